"""Elements of HTML: what is no Html is text, in contents and in attributes."""

from __future__ import annotations

from dsreg.page.markup import Html, el, joined, table
from tests.page.test_document import Parsed

EVIL = "\"'><script>alert(1)</script>&amp;"


def test_text_and_attributes_are_what_they_were() -> None:
    page = Parsed(el("p", EVIL, el("b", EVIL), title=EVIL, class_="x", aria_label="y", hidden=True, lang=False))
    assert page.elements == [
        ("p", {"title": EVIL, "class": "x", "aria-label": "y", "hidden": None}), ("b", {})]
    assert page.text == f"{EVIL} {EVIL} "


def test_what_is_html_is_not_escaped_again() -> None:
    assert joined("<", Html("<b>"), el("i", "&")) == "&lt;<b><i>&amp;</i>"
    assert el("meta", charset="utf-8") == '<meta charset="utf-8"/>'


def test_cells_that_are_empty_are_marked_as_such() -> None:
    page = Parsed(table("Of two", ("a", "b", "c"), [["1", "", EVIL]]))
    assert [name for name, _ in page.elements].count("span") == 1 and page.text.endswith(f"1 {EVIL} ")
    assert [cell["data-label"] for cell in page.all("td")] == ["b", "c"]
