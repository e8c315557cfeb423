"""Checks of single nodes, each by what it says of itself or for want of that."""

from __future__ import annotations

from collections.abc import Iterator

from dsreg.health.damage import damage_of, described, found_by, still_open
from dsreg.health.findings import Finding, Severity, State, named
from dsreg.health.serving import is_full
from dsreg.register.quorum import mask, ranks_in
from dsreg.units import nodes_text, size_text

# What a link must not be: see `peers` in docs/protocol.md.
_LINK_FAULTS = {
    "down": "does not reach node {peer}",
    "silent": "gets no answer from node {peer} (wrong keys, or it speaks only the contract)",
    "waiting": "waits for node {peer} to start with its directory",
    "unsealed": "does not use node {peer}, which does not seal its connections",
}


def node_down(state: State) -> Iterator[Finding]:
    """A node does not answer. Asked alone, that is all that there is to know of it, and critical."""
    to_do = start_them(state)
    severity = Severity.CRITICAL if state.alone else Severity.WARNING
    for answer in state.members:
        if answer.report is None:
            yield Finding("node_down", severity, (answer.node.rank,), f"{named(answer)}: {answer.fault}",
                          "" if answer.refuses else to_do)
    for rank in ranks_in(state.unlisted):
        yield Finding("node_down", severity, (rank,), f"node {rank} is not in cluster.toml, and was not found",
                      f"use a {state.file} that has node {rank}: copy it from a host whose nodes were changed")


def start_them(state: State) -> str:
    """What to do where nodes are not up; "" if all are. Of one that refuses the fault says what is wrong."""
    silent = [answer.node.rank for answer in state.members if answer.report is None and not answer.refuses]
    if not silent:
        return ""
    to_do = (f"start {nodes_text(silent)}, with {'their directories' if len(silent) > 1 else 'its directory'}; "
             "what is missed is fetched then")
    if state.no_quorum and state.force.quorum.blocks(mask(silent)):
        to_do += (". Nothing is lost by waiting. Only if the directories of so many nodes are lost for good that no "
                  "majority is left, see the runbook, \"A majority of the directories is lost\"")
    return to_do


def waits(state: State) -> Iterator[Finding]:
    """A node is up, and does not serve yet."""
    for answer in state.answering:
        assert answer.report is not None
        if why := answer.report.get("lives", {}).get("waits_for"):
            yield Finding("waits", Severity.WARNING, (answer.node.rank,), f"{named(answer)}: does not serve yet: {why}")


def directory_changed(state: State) -> Iterator[Finding]:
    """Others know the node by another directory."""
    for rank, fault in sorted(state.changed.items()):
        yield Finding(
            "directory_changed", Severity.WARNING, (rank,), f"node {rank} is not counted: {fault}",
            f"put the old directory of node {rank} back. If that is lost for good: dsreg node --rejoin, see the "
            "runbook, \"A node's directory is lost\"",
        )


def behind(state: State) -> Iterator[Finding]:
    """A node lacks writes of the time when it was down. It fetches them by itself."""
    for answer in state.answering:
        copy = state.copies[answer.node.rank]
        if copy.state == "behind":
            yield Finding("behind", Severity.WARNING, (answer.node.rank,),
                          f"{named(answer)}: lacks {size_text(copy.lacks)}, which it fetches from the other nodes")


def unknown_sectors(state: State) -> Iterator[Finding]:
    """A node has a new directory, and answers for nothing that it has not learned from the others."""
    for answer in state.answering:
        copy = state.copies[answer.node.rank]
        if copy.state == "learns":
            yield Finding("unknown_sectors", Severity.WARNING, (answer.node.rank,),
                          f"{named(answer)}: has yet to learn {size_text(copy.lacks)} from the other nodes")


def damage(state: State) -> Iterator[Finding]:
    """A disk has not kept what was written. It is repaired from the others, as far as that is possible; also where it
    was, the disk has to be looked at."""
    for answer in state.answering:
        assert answer.report is not None
        rank, found, lost = answer.node.rank, found_by(answer), int(answer.report.get("damaged") or 0)
        if contradictions := damage_of(answer).get("contradictions"):
            yield Finding("damage", Severity.WARNING, (rank,),
                          f"{named(answer)}: two values have the same tag, at {contradictions} sectors",
                          "see docs/scrub.md, \"Damage of one sector at several nodes\"")
        if lost and not found:
            yield Finding("damage", Severity.WARNING, (rank,),
                          f"{named(answer)}: {lost} damaged sectors, to be repaired from the other nodes")
        elif found:
            is_open = still_open(answer) > 0
            yield Finding(
                "damage", Severity.WARNING if is_open or lost else Severity.NOTICE, (rank,),
                f"{named(answer)}: {described(found, damage_of(answer))}",
                f"look at the disk of node {rank}; see the runbook, \"Sectors are damaged\"",
            )


def node_full(state: State) -> Iterator[Finding]:
    """A node refuses writes of new data. While a majority has room nothing waits, but the node falls behind."""
    for answer in state.answering:
        if is_full(answer):
            yield Finding("node_full", Severity.WARNING, (answer.node.rank,), f"{named(answer)}: no space for new data",
                          f"make room in the file system of node {answer.node.rank}")


def link_down(state: State) -> Iterator[Finding]:
    """A node does not reach another one that is up. That one is down is said once, and not by each of the others."""
    silent = {str(rank) for rank in state.silent}
    for answer in state.answering:
        assert answer.report is not None
        for peer, link in sorted(answer.report.get("peers", {}).items(), key=lambda entry: int(entry[0])):
            if link in _LINK_FAULTS and peer not in silent:
                yield Finding("link_down", Severity.WARNING, (answer.node.rank, int(peer)),
                              f"{named(answer)}: {_LINK_FAULTS[link].format(peer=peer)}")
