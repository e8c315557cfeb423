"""A View as a page of HTML."""

from __future__ import annotations

from dsreg.constants import SECTOR_SIZE
from dsreg.health.checks import worst
from dsreg.health.findings import Finding, Severity
from dsreg.health.in_force import of_members
from dsreg.health.in_sync import can_lose
from dsreg.health.serving import serves
from dsreg.page.clients import clients
from dsreg.page.markup import Html, el, joined, small
from dsreg.page.nodes import nodes, scrubs
from dsreg.page.plots import plots
from dsreg.page.style import STYLE, STYLE_SOURCE
from dsreg.page.view import View
from dsreg.register.quorum import counted, mask
from dsreg.units import size_text

# Nothing is loaded, run, framed, or sent anywhere; only the page's own style applies.
POLICY = (f"default-src 'none'; style-src {STYLE_SOURCE}; img-src data:; base-uri 'none'; form-action 'none'; "
          "frame-ancestors 'none'")
_HEALTH = {Severity.NOTICE: "Well", Severity.WARNING: "Degraded", Severity.CRITICAL: "Critical"}
_KINDS = {Severity.NOTICE: "well", Severity.WARNING: "worse", Severity.CRITICAL: "down"}
_MARKS = {Severity.NOTICE: "notice", Severity.WARNING: "worse", Severity.CRITICAL: "down"}


def document(view: View) -> str:
    """The whole page."""
    title = f"{_HEALTH[worst(view.findings)]}: disk of {_nodes_text(view)}"
    head = el(
        "head", el("meta", charset="utf-8"), el("title", title),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", http_equiv="refresh", content=view.refresh_s),
        el("link", rel="icon", href="data:,"),  # else browsers ask for one
        el("style", Html(STYLE)),
    )
    main = el(
        "main", _health(view), el("section", _disk(view)), el("section", nodes(view)),
        el("section", plots(view.history, view.rank)), el("section", clients(view)),
        *([el("section", scrub)] if (scrub := scrubs(view)) else []),
    )
    return f"<!doctype html>\n{el('html', head, el('body', _header(view), main, _footer(view)), lang='en')}\n"


def _header(view: View) -> Html:
    seen = f"As node {view.rank} sees it, {view.when}. Asked again every {view.refresh_s} s."
    return el("header", el("h1", f"Disk of {size_text(_sectors(view) * SECTOR_SIZE)} on {_nodes_text(view)}"),
              el("p", seen))


def _sectors(view: View) -> int:
    return view.force.sectors or view.sectors


def _nodes_text(view: View) -> str:
    size = view.force.members.bit_count()
    return f"{size} node{'' if size == 1 else 's'}"


def _footer(view: View) -> Html:
    return el("footer", el("p", "Nothing can be changed here. ", el("a", "Metrics", href="metrics"), ", ",
                           el("a", "health as text", href="healthz"),
                           f". In a terminal: dsreg status {view.file}, dsreg top {view.file}"))


# --- health ---------------------------------------------------------------------------------------
def _health(view: View) -> Html:
    severity = worst(view.findings)
    kind = _KINDS[severity]
    well = "No check finds anything." if not view.findings else "Nothing that somebody has to see to."
    advised: set[str] = set()
    found = el("ul", *(_finding(finding, advised) for finding in view.findings)) if view.findings else ""
    line = el("p", f"{_answering(view)}. {_may_lose(view)}." + (f" {well}" if severity is Severity.NOTICE else ""))
    return el("section", el("h2", el("span", _HEALTH[severity], class_=f"state {kind}")), line, found,
              class_=f"health {kind}", aria_label="Health")


def _finding(finding: Finding, advised: set[str]) -> Html:
    """`advised`: what is said already, to which what this one says is added."""
    mark = el("span", finding.severity.name.capitalize(), class_=f"mark {_MARKS[finding.severity]}")
    to_do = el("p", el("strong", "To do: "), finding.to_do) if finding.to_do and finding.to_do not in advised else ""
    advised.add(finding.to_do)
    return el("li", mark, finding.sentence, to_do)


def _answering(view: View) -> str:
    answering = [answer.node.rank for answer in of_members(view.answers) if serves(answer, view.changed)]
    text = counted(view.force.quorum, mask(answering), "answer")
    return f"No quorum: {text}" if view.no_quorum else text[:1].upper() + text[1:]


def _may_lose(view: View) -> str:
    number = 0 if view.no_quorum else can_lose(view.answers)
    if not number:
        return "No node may be lost now"
    return f"{number} more node{'' if number == 1 else 's'} may be lost"


# --- the disk -------------------------------------------------------------------------------------
def _disk(view: View) -> Html:
    attachment = view.attachment
    reports = [answer.report for answer in view.answers if answer.report is not None]
    written = max((int(report.get("sectors_written", 0)) for report in reports), default=0) * SECTOR_SIZE
    epoch = f"epoch {attachment.epoch}" if attachment.epoch else "it never was attached"
    facts = [
        ("Attached by", attachment.by or "nobody", epoch if reports else ""),
        ("Size", size_text(_sectors(view) * SECTOR_SIZE), f"{_sectors(view)} sectors"),
        ("Written", size_text(written), "on the node that has most"),
        ("Majority", f"{view.force.quorum.needed} of {view.force.quorum.size} nodes",
         view.force.described() if view.force.number > 1 else ""),
    ]
    return joined(el("h2", "The disk"), el("dl", *(
        el("div", el("dt", name), el("dd", value, small(more))) for name, value, more in facts)))

