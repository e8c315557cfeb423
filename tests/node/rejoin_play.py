"""Plays of a node that rejoins: a real storage and interpreter."""

from __future__ import annotations

from dsreg.constants import NO_OWNER
from dsreg.protocol.configuration import Record
from dsreg.protocol.life import Life, Stage
from dsreg.protocol.messages import Accepted
from dsreg.testing.memory_files import MemoryFiles
from tests.node.members_play import THREE, TWO, Node, Wire, report

KNOWN = Life(1, b"?" * 16)  # the directory of this node that is lost


def told_by_both(node: Node, known: Life = KNOWN) -> None:
    node.members.told(report(2, TWO, one=known, three=THREE))
    node.members.told(report(3, THREE, one=known, two=TWO))


def accepted_by(
    node: Node, rank: int, own: Life, epoch: int = 0, owner: bytes = NO_OWNER, record: Record | None = None
) -> None:
    life = node.storage.lives.own
    node.members.told(report(rank, own, one=life, **{"two": TWO} if rank == 3 else {"three": THREE}))
    node.members.told(Accepted(rank, 1, life, own, epoch, owner, 9, record))


def rejoining(files: MemoryFiles | None = None) -> Node:
    node = Node(files or MemoryFiles(), rejoin=True)
    told_by_both(node)
    assert node.members.stage is Stage.CLAIMING
    return node


def acceptances(wire: Wire) -> list[Accepted]:
    return [message for message in wire.got if isinstance(message, Accepted)]
