"""Who uses the disk."""

from __future__ import annotations

from dsreg.health.traffic import User
from dsreg.page.markup import Html, el, joined, small, table
from dsreg.page.view import View
from dsreg.units import count_text, nodes_text, rate_text

_HEADS = ("Client", "Use", "Requests/s", "Data", "Waiting", "Connections", "Encrypted")


def clients(view: View) -> Html:
    left_out = sum(int(answer.report.get("clients_left_out", 0)) for answer in view.answers if answer.report)
    if not view.users:
        return joined(el("h2", "Clients"), el("p", "Nobody who is connected has asked for anything."))
    more = f" Besides these there are {left_out} more connections." if left_out else ""
    return joined(
        table("Clients", _HEADS, [_row(user) for user in view.users]),
        el("p", "Requests are counted at each node that has them: a write of whoever has attached the disk is one at "
                f"every node.{more}", class_="note"))


def _row(user: User) -> list[str]:
    return [
        joined(user.who, small(f"at {nodes_text(user.ranks)}")),
        el("span", "has attached the disk", class_="state well") if user.has_attached else "has not attached it",
        "" if user.requests is None else count_text(user.requests),
        "" if user.bytes is None else rate_text(user.bytes),
        count_text(user.unfinished), count_text(user.connections),
        "yes" if user.is_sealed else el("span", "no", class_="state worse"),
    ]
