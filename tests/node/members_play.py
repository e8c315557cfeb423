"""Plays of Members: a node with a real storage and interpreter, and wires whose other side decodes what comes."""

from __future__ import annotations

from collections.abc import Sequence

from dsreg.constants import MIN_JOURNAL_BYTES
from dsreg.node.interpreter import Connection, Interpreter
from dsreg.node.members import Members
from dsreg.protocol.address import Place
from dsreg.protocol.codec import Bounds, Encodings, Keys, Side, UnsealingDecoder
from dsreg.protocol.life import Life, Stage
from dsreg.protocol.messages import Buffer, LivesReport
from dsreg.register.assembly import new_heal, new_replica
from dsreg.register.configuration import quorum_of
from dsreg.register.quorum import bit, ranks_in
from dsreg.storage import Identity, StableStorage, Start
from dsreg.testing.memory_files import MemoryFiles, drop_all

RANKS = (1, 2, 3)
KEYS = Keys(bytes(32), bytes(64))
WHOSE = Identity(bytes(16), 1, RANKS, 64)
MAX_COMMITS = 20  # in a turn of a play
OWN, TWO, THREE, OTHER = (Life(1, bytes([number]) * 16) for number in (1, 2, 3, 9))


class Wire:
    """A transport whose other side decodes what comes."""

    outgoing_bytes = 0
    peer = "nobody:0"
    is_sealed = closed = False
    features = 0

    def __init__(self) -> None:
        self.got: list[object] = []
        self.sent: list[object] = []  # of these: what has left the node
        ranks = frozenset((*RANKS, 4, 5))
        self._decoder = UnsealingDecoder(KEYS, bounds=Bounds(64, ranks), side=Side.NODE, extended=True)

    def put(self, buffers: Sequence[Buffer]) -> None:
        self.got += self._decoder.feed(b"".join(buffers))

    def flush(self) -> None:
        self.sent = list(self.got)

    def close(self) -> None:
        self.closed = True


class Node:
    """The node 1, or that of `whose`, on `files`, with an empty directory or as it was left."""

    def __init__(
        self, files: MemoryFiles, *, rejoin: bool = False, place: Place | None = None, whose: Identity = WHOSE,
        joins: bool = False, new: bool = False,
    ) -> None:
        self.now_s = 0.0
        self.files = files
        self.storage = StableStorage.open(files, whose, MIN_JOURNAL_BYTES, lambda: OWN.store, Start(joins=joins))
        quorum = quorum_of(self.storage.configuration.record.current)
        replica = new_replica(
            whose.rank, quorum, self.storage, uuid_prefix=7, jitter=lambda: 1.0, life=self.storage.lives.own.number
        )
        heal = new_heal(replica, quorum, self.storage)
        self.interpreter = Interpreter(replica, heal, self.storage, Encodings(KEYS), lambda: self.now_s, lambda: 0.0)
        self.members = Members(
            whose.rank, quorum, self.storage.lives, self.interpreter, new=new, rejoin=rejoin, place=place
        )

    def accept(self) -> tuple[Connection, Wire]:
        wire = Wire()
        connection = Connection(wire)  # type: ignore[arg-type]
        self.members.listens(wire, node=True, answer=True)  # type: ignore[arg-type]
        return connection, wire

    def commit(self) -> None:
        for _ in range(MAX_COMMITS):
            if (commit := self.storage.next_commit()) is None:
                return
            commit.run()
            self.interpreter.committed(self.storage.finish_commit(commit))
        raise AssertionError("each commit leaves something to commit")


def report(rank: int, own: Life, stage: Stage = Stage.STARTED, **known: Life) -> LivesReport:
    ranks = {"one": 1, "two": 2, "three": 3}
    return LivesReport(rank, False, stage, own, {ranks[name]: life for name, life in known.items()})


def begun(place: Place | None = None) -> Node:
    node = Node(MemoryFiles())
    node.storage.lives.begin()
    return checked(Node(node.files.crash(drop_all), place=place))


def checked(node: Node) -> Node:
    """Whose directory is no older state, as far as nodes can say that know nothing of it."""
    for rank in ranks_in(node.members.configuring.quorum.members & ~bit(node.members.rank)):
        node.members.marking.check.speaks_contract(rank)
    node.members.tick()
    assert node.interpreter.started
    node.commit()
    return node
