"""The table of all checks. `dsreg health`, `dsreg status` and whatever else speaks of health show what these find."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from dsreg.health import of_cluster, of_keys, of_machines, of_nodes
from dsreg.health.findings import Finding, Severity, State


@dataclass(frozen=True, slots=True)
class Check:
    """`about`: what it is there for, in a few words. `find` gives findings that have the check's name. `of_one`:
    whether it means something where only one node was asked."""

    name: str
    about: str
    find: Callable[[State], Iterator[Finding]]
    of_one: bool = True


CHECKS = (
    Check("quorum_lost", "a majority answers", of_cluster.quorum_lost, of_one=False),
    Check("no_space", "a majority has room for new data", of_cluster.no_space, of_one=False),
    Check("node_down", "every node answers", of_nodes.node_down),
    Check("waits", "every node serves", of_nodes.waits),
    Check("directory_changed", "every node has its directory", of_nodes.directory_changed),
    Check("damage", "what the disks keep is whole", of_nodes.damage),
    Check("node_full", "every node has room for new data", of_nodes.node_full),
    Check("disk_filling", "no file system fills up", of_machines.disk_filling),
    Check("unknown_sectors", "no node has a new directory", of_nodes.unknown_sectors),
    Check("behind", "no node lacks writes", of_nodes.behind),
    Check("no_spare", "one more node may be lost", of_cluster.no_spare, of_one=False),
    Check("link_down", "the nodes reach each other", of_nodes.link_down),
    Check("members_changing", "one set of nodes decides", of_cluster.members_changing),
    Check("slow_node", "no node answers late", of_machines.slow_node, of_one=False),
    Check("slow_sync", "no disk is slower than the others", of_machines.slow_sync, of_one=False),
    Check("clock", "the clocks are right", of_machines.clock),
    Check("plain_clients", "nobody writes beside an attachment", of_cluster.plain_clients),
    Check("versions_differ", "the nodes are of one version", of_machines.versions_differ, of_one=False),
    Check("keys_changing", "no key is being changed", of_keys.keys_changing),
    Check("unsealed", "connections are encrypted", of_cluster.unsealed),
)


def examine(state: State) -> tuple[Finding, ...]:
    """What is to be said of the cluster, the worst first; of what is equally bad, in the order of the table."""
    found = [finding for check in CHECKS if check.of_one or not state.alone for finding in check.find(state)]
    return tuple(sorted(found, key=lambda finding: -finding.severity))


def worst(findings: Iterable[Finding]) -> Severity:
    """NOTICE if there are none: nobody has to look."""
    return max((finding.severity for finding in findings), default=Severity.NOTICE)


def by_check(findings: Sequence[Finding]) -> dict[str, int]:
    """For each check by name: -1 if it has found nothing, else the worst severity."""
    return {
        check.name: max((finding.severity for finding in findings if finding.check == check.name), default=-1)
        for check in CHECKS
    }


def to_do(findings: Iterable[Finding]) -> list[str]:
    """What somebody should do, each once."""
    return list(dict.fromkeys(finding.to_do for finding in findings if finding.to_do))
