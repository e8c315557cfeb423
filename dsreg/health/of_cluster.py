"""Checks of all nodes together: quorum, room, what may be lost, members, and who uses the disk."""

from __future__ import annotations

from collections.abc import Iterator

from dsreg.health.attached import attachment_of
from dsreg.health.findings import Finding, Severity, State, named
from dsreg.health.in_sync import can_lose, why_not_more
from dsreg.health.of_machines import number
from dsreg.health.of_nodes import start_them
from dsreg.health.serving import why_no_space
from dsreg.register.quorum import ranks_in
from dsreg.units import duration_text, nodes_text

# A client that writes beside an attachment is told of for so long after its last write.
PLAIN_S = 60.0
# Links between nodes that are as they may be, but are not sealed.
_NOT_SEALED = ("contract", "extension")


def quorum_lost(state: State) -> Iterator[Finding]:
    """A read through a majority was tried, and failed."""
    if state.no_quorum:
        yield Finding("quorum_lost", Severity.CRITICAL, (), f"no quorum: {state.no_quorum}", start_them(state))


def no_space(state: State) -> Iterator[Finding]:
    """A majority answers, and too few nodes have room: reads go on, and writes of new data wait."""
    if not state.no_quorum and state.answers and (why := why_no_space(state.answers)):
        yield Finding("no_space", Severity.CRITICAL, (), f"no space: {why}")


def no_spare(state: State) -> Iterator[Finding]:
    """The loss of another node, whichever it is, would stop the disk. Nodes that only compare are about to say that
    they have all: that is no warning. Where a node cannot say, as it is of a version that does not, nothing is said."""
    quorum = state.force.quorum if state.answers else None
    if state.no_quorum or quorum is None or not quorum.spare(quorum.members) or can_lose(state.answers):
        return
    states = {answer.node.rank: state.copies[answer.node.rank].state for answer in state.members}
    if "unknown" in states.values():
        return
    moving = [rank for rank, copy in state.copies.items() if rank in states and copy.is_moving]
    is_about_to_pass = not state.unlisted and set(states.values()) <= {"in sync", "compares"} and not state.changed
    yield Finding(
        "no_spare", Severity.NOTICE if is_about_to_pass else Severity.WARNING, (),
        f"the loss of one more node would stop the disk ({why_not_more(state.answers) or 'nodes are missing'})",
        f"stop no other node before {nodes_text(moving)} {'are' if len(moving) > 1 else 'is'} done: "
        f"dsreg wait --healed {state.file}" if moving else "",
    )


def members_changing(state: State) -> Iterator[Finding]:
    """The old and the new set of nodes decide together. It ends with the command that began it."""
    if state.force.joining:
        yield Finding(
            "members_changing", Severity.WARNING, tuple(ranks_in(state.force.members)), state.force.described(),
            "if nobody is changing the members at this moment: give the command again that began it, or take it back: "
            f"dsreg members cancel {state.file}",
        )


def plain_clients(state: State) -> Iterator[Finding]:
    """Somebody writes to the disk without having attached it, while another one has: two writers who do not know of
    each other destroy a file system, and every sector so written costs the attachment a slower read."""
    ages = {answer.node.rank: number(answer.report, "plain_write_s") for answer in state.answering}
    writers = {rank: age_s for rank, age_s in ages.items() if age_s is not None and age_s <= PLAIN_S}
    if writers:
        by = attachment_of(answer.report for answer in state.answering if answer.report is not None).by
        yield Finding(
            "plain_clients", Severity.WARNING, tuple(sorted(writers)),
            f"a client that has not attached the disk wrote to it {duration_text(min(writers.values()))} ago, through "
            f"{nodes_text(sorted(writers))}, while it is attached{f' by {by}' if by else ''}",
            "find the second writer and end it, unless whoever has attached the disk knows of it",
        )


def unsealed(state: State) -> Iterator[Finding]:
    """Traffic that everybody on the network can read: between nodes, or with clients that do not seal."""
    for answer in state.answering:
        assert answer.report is not None
        peers = [int(rank) for rank, link in answer.report.get("peers", {}).items() if link in _NOT_SEALED]
        clients = int(number(answer.report, "unsealed_connections") or 0)
        what = [f"with {nodes_text(sorted(peers))}"] if peers else []
        what += [f"on {clients} connection{'s' if clients > 1 else ''} from outside"] if clients else []
        if what:
            yield Finding("unsealed", Severity.NOTICE, (answer.node.rank,),
                          f"{named(answer)}: talks {' and '.join(what)} without encryption")
