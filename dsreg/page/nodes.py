"""The nodes: what they are and do, and how complete and sound their copies are."""

from __future__ import annotations

from dsreg.health.answers import NodeAnswer
from dsreg.health.condition import condition
from dsreg.health.damage import damage_of, described, found_by
from dsreg.health.of_machines import number
from dsreg.health.traffic import queue
from dsreg.page.markup import Html, el, joined, small, table
from dsreg.page.view import View
from dsreg.units import count_text, duration_text, latency_text, rate_text, share_text, size_text

_HEADS = ("Node", "State", "Copy", "Reads/s", "Writes/s", "Data", "p50 / p99", "Waiting", "Sync", "Free", "Up, version")


def nodes(view: View) -> Html:
    """State, lag and rates."""
    return table("Nodes", _HEADS, [_row(view, answer) for answer in view.answers], "wide")


def _row(view: View, answer: NodeAnswer) -> list[str]:
    rank, report = answer.node.rank, answer.report
    rates, waiting = view.rates.get(rank), queue(answer)
    sync_s = number(report, "syncs", "median_s")
    size, free = number(report, "storage", "size_bytes"), number(report, "storage", "available_bytes")
    up_s = number(report, "uptime_s")
    return [
        joined(f"Node {rank}", el("b", "this node", class_="tag") if rank == view.rank else "",
               small(answer.node.address)),
        _state(view, answer), _copy(view, answer),
        "" if rates is None else count_text(rates.reads), "" if rates is None else count_text(rates.writes),
        "" if rates is None else rate_text(rates.bytes),
        "" if rates is None or rates.p50_s is None or rates.p99_s is None
        else f"{latency_text(rates.p50_s)} / {latency_text(rates.p99_s)}",
        "" if waiting is None else count_text(waiting),
        "" if sync_s is None else latency_text(sync_s),
        "" if not size or free is None else joined(size_text(free), small(f"of {size_text(size)}")),
        "" if report is None or up_s is None else joined(duration_text(up_s), small(str(report.get("version", "")))),
    ]


def _state(view: View, answer: NodeAnswer) -> Html:
    found = condition(answer, view.changed, view.force.members)
    return el("span", found.text, class_=f"state {found.kind}")


def _copy(view: View, answer: NodeAnswer) -> str:
    """How far its copy is, with a bar while it is about to change."""
    copy = view.copies[answer.node.rank]
    if not copy.is_moving:
        return el("span", copy.state, class_="state well" if copy.state == "in sync" else "") if copy.state else ""
    more = [
        share_text(copy.share) if copy.share is not None else "",
        f"{size_text(copy.lacks)} missing" if copy.lacks else "",
        rate_text(copy.rate) if copy.lacks and copy.rate else "",
        f"{duration_text(copy.left_s)} left" if copy.lacks and copy.left_s is not None else "",
    ]
    return joined(el("span", copy.state, class_="state worse"), _bar(copy.share, f"copy of node {answer.node.rank}"),
                  small(", ".join(filter(None, more))))


def _bar(share: float | None, label: str) -> Html:
    return Html() if share is None else el("progress", share_text(share), value=f"{share:.4f}", max=1, aria_label=label)


# --- scrub ----------------------------------------------------------------------------------------
def scrubs(view: View) -> Html:
    """What each node has verified of its copy, and found."""
    rows = [
        [f"Node {answer.node.rank}", _pass(answer), _last(answer), _next(answer), _damage(answer)]
        for answer in view.answers if number(answer.report, "scrub", "progress") is not None
    ]
    heads = ("Node", "Scrub", "Last pass", "Next pass", "Damage")
    return table("Scrub: the copies verified", heads, rows) if rows else Html()


def _pass(answer: NodeAnswer) -> Html:
    assert answer.report is not None
    share = number(answer.report, "scrub", "progress") or 0.0
    if answer.report["scrub"].get("running") is not True:
        return joined("idle")
    done, whole = number(answer.report, "scrub", "verified_bytes"), number(answer.report, "scrub", "total_bytes")
    amount = "" if done is None or whole is None else f"{size_text(done)} of {size_text(whole)}"
    return joined("runs, ", share_text(share), _bar(share, f"scrub of node {answer.node.rank}"), small(amount))


def _last(answer: NodeAnswer) -> str:
    ago_s = number(answer.report, "scrub", "last_s")
    return "none since its start" if ago_s is None else f"{duration_text(ago_s)} ago"


def _next(answer: NodeAnswer) -> str:
    if answer.report is not None and answer.report["scrub"].get("running") is True:
        return "under way"
    left_s = number(answer.report, "scrub", "next_s")
    return "only when it is asked for" if left_s is None else f"in {duration_text(left_s)}"


def _damage(answer: NodeAnswer) -> Html:
    text = described(found_by(answer), damage_of(answer))
    is_open = bool(damage_of(answer).get("open"))
    return el("span", text, class_=f"state {'worse' if is_open or found_by(answer) else 'well'}")
