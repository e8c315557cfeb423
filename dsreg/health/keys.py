"""What nodes tell of their keys: who has yet to take a step of a change, and who uses an old key still."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dsreg.health.answers import NodeAnswer
from dsreg.health.findings import named
from dsreg.units import printable


def yet_to_take(answers: Sequence[NodeAnswer], wanted: Mapping[str, Sequence[str]], files: str) -> list[str]:
    """A line for each node that does not use and accept what is `wanted`: for each kind of key the fingerprints, the
    one in use first. `files`: what to copy to it."""
    lines = []
    for answer in answers:
        if answer.report is None:
            lines.append(f"{named(answer)}: {answer.fault}; start it, or, if it stays down, give --without "
                         f"{answer.node.rank}")
        elif "keys" not in answer.report:
            lines.append(f"{named(answer)}: is of a version whose keys cannot be changed while it runs; upgrade it")
        elif any(answer.report["keys"][kind]["accepts"] != [*names] for kind, names in wanted.items()):
            lines.append(f"{named(answer)}: has other keys than the files here; copy {files} to its host, and restart "
                         "it if systemd keeps its keys")
    return lines


def still_old(answers: Sequence[NodeAnswer], quiet_s: float) -> list[str]:
    """A line for each party that has used another key than the nodes in the last `quiet_s`."""
    found: dict[str, str] = {}
    for answer in answers:
        for other in answer.report["keys"]["others"] if answer.report is not None else ():
            is_late = other["connected"] or other["seen_s"] < quiet_s and not other["node"]
            if is_late and (peer := printable(str(other["peer"]))) not in found:
                who = "a node" if other["node"] else "a client"
                when = "is connected" if other["connected"] else f"was connected {other['seen_s']:.0f} s ago"
                found[peer] = (f"{peer}: {who} that uses the old key {other['key']} {when}, at node "
                               f"{answer.node.rank}; give it the new one")
    return [found[peer] for peer in sorted(found)]
