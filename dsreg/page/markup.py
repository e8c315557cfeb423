"""Elements of HTML. What is no Html already is text, whoever has chosen it, and is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

# They have no content. In SVG that has to be said.
_EMPTY = ("meta", "link", "line", "polyline")


class Html(str):
    """Text that may stand in a page as it is."""

    __slots__ = ()


def el(name: str, /, *children: str, **attributes: str | float | bool) -> Html:
    """An element. Attributes: `_` is `-`, at the end nothing (class_, for_); True: it has no value; False: there is
    none."""
    opening = name
    for key, value in attributes.items():
        key = key.rstrip("_").replace("_", "-")
        if value is True:
            opening += f" {key}"
        elif value is not False:
            opening += f' {key}="{escape(str(value))}"'
    return Html(f"<{opening}/>") if name in _EMPTY else Html(f"<{opening}>{joined(*children)}</{name}>")


def joined(*children: str) -> Html:
    return Html("".join(child if isinstance(child, Html) else escape(child) for child in children))


def small(text: str) -> Html:
    """Beside or below something more important."""
    return el("small", text) if text else Html()


def table(caption: str, heads: Sequence[str], rows: Sequence[Sequence[str]], class_: str = "") -> Html:
    """The first cell of a row names it. The roles are those that a table has anyway, but loses where a style sheet
    shows its rows one below the other, as it does on a narrow screen; there each cell has its head before it."""
    head = el("tr", *(el("th", text, scope="col", role="columnheader") for text in heads), role="row")
    body = [
        el("tr", el("th", cells[0], scope="row", role="rowheader"), *(
            el("td", el("span", cell) if cell else "", role="cell", data_label=label)
            for label, cell in zip(heads[1:], cells[1:], strict=True)
        ), role="row")
        for cells in rows
    ]
    return el("table", el("caption", caption), el("thead", head, role="rowgroup"),
              el("tbody", *body, role="rowgroup"), role="table", class_=class_ or False)
