"""Clients that leave at any moment: nothing of what they asked for stays counted, or kept."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from dsreg.constants import MIN_JOURNAL_BYTES, SECTOR_SIZE, TAG_SIZE
from dsreg.node.interpreter import Connection, Interpreter
from dsreg.protocol.codec import Encodings, Keys
from dsreg.protocol.messages import Ack, Buffer, Command, CommandKind, Value, owner_of
from dsreg.protocol.tags import ATTACHED, pack_tag
from dsreg.protocol.zeros import zero_command
from dsreg.register.assembly import new_heal, new_replica
from dsreg.register.effects import Load
from dsreg.register.quorum import majority_of
from dsreg.storage import Identity, StableStorage
from dsreg.testing.memory_files import MemoryFiles
from tests.simulation.leftovers import left_in_node
from tests.storage.support import checkpoint_now

RANKS = (1, 2, 3)
SECTORS = 600  # of which all but zeros over whole chunks are to the first 64
KEYS = Keys(bytes(32), bytes(64))
DATA = b"x" * SECTOR_SIZE


class Sink:
    """A transport that takes all it gets."""

    outgoing_bytes = 0
    peer = "nobody:0"
    is_sealed = closed = False
    features = 0

    def put(self, buffers: Sequence[Buffer]) -> None:
        pass

    def flush(self) -> None:
        pass


class Scene:
    """The node 1 of three: its storage, its replica and its interpreter. The others answer when the test says so."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.files = MemoryFiles()
        self.storage = StableStorage.open(self.files, Identity(bytes(16), 1, RANKS, SECTORS), MIN_JOURNAL_BYTES)
        self.replica = new_replica(1, majority_of(RANKS), self.storage, uuid_prefix=7, jitter=lambda: 1.0)
        heal = new_heal(self.replica, majority_of(RANKS), self.storage)
        encodings = Encodings(KEYS)
        self.interpreter = Interpreter(self.replica, heal, self.storage, encodings, lambda: self.now_s, lambda: 0.0)
        self.loads: list[Load] = []
        self.interpreter.on_slow_load = self.loads.append
        self.connections: list[Connection] = []
        for rank in RANKS[1:]:
            self.interpreter.link_up(rank, Sink(), True)  # type: ignore[arg-type]

    def connect(self) -> Connection:
        self.connections.append(Connection(Sink()))  # type: ignore[arg-type]
        return self.connections[-1]

    def leave(self, connection: Connection) -> None:
        self.connections.remove(connection)
        self.interpreter.disconnected(connection)

    def peers_answer(self) -> None:
        """One of the others: with what was never written, then with an acknowledgement."""
        for rid, operation in list(self.replica._coordinator._executions.items()):
            first, count = operation.command.first, operation.command.count
            tags, data = bytes(count * TAG_SIZE), bytes(count * SECTOR_SIZE)
            epoch = operation.register.epoch
            self.interpreter.message(None, Value(2, rid, first, count, tags, data, epoch=epoch))
            self.interpreter.message(None, Ack(2, rid, first, count))
        self.interpreter.end_turn()

    def disk_works(self) -> None:
        loads, self.loads[:] = list(self.loads), []
        for load in loads:
            loaded = self.storage.load(load.question.first, load.question.count, wait=True)
            assert loaded is not None
            self.interpreter.loaded(load, loaded)
        while True:
            if (commit := self.storage.next_commit()) is not None:
                commit.run()
                self.interpreter.committed(self.storage.finish_commit(commit))
            elif self.storage.checkpoint_due(idle=False):
                checkpoint_now(self.storage)
            else:
                return

    def settle(self) -> None:
        for _ in range(100):
            self.peers_answer()
            self.disk_works()
            self.now_s += 1.0
            self.interpreter.tick()

    def left(self) -> dict[str, int]:
        return left_in_node(self.interpreter, self.connections)


# What is stored here alone, and goes to the disk at once.
OWN_COPY = (CommandKind.PUT, CommandKind.ZERO)


def command(kind: CommandKind, request: int, first: int, count: int, epoch: int) -> Command:
    tags, data = b"", b""
    if kind is CommandKind.STORE:
        tags, data = pack_tag(1 + request, 2) * count, DATA * count
    elif kind is CommandKind.PUT:
        tags, data = pack_tag((epoch << 56) + 1 + request, ATTACHED, 0, epoch) * count, DATA * count
    elif kind is CommandKind.ZERO:
        return zero_command(request, 0, 512, pack_tag((epoch << 56) + 1 + request, ATTACHED, 0, epoch), epoch)
    elif kind is CommandKind.WRITE:
        count, data = 1, DATA
    elif kind is CommandKind.ATTACH:
        return Command.attach(request, epoch, owner_of(bytes(16), "somebody"))
    if kind is not CommandKind.PUT:
        epoch = 0
    values = kind is CommandKind.GET and request % 2 == 0
    return Command(kind, request, first, count, tags, data, kind is not CommandKind.WRITE, epoch, values)


@pytest.mark.parametrize("kind", [kind for kind in CommandKind if kind is not CommandKind.ATTACH])
def test_what_is_given_up_is_not_counted_any_more(kind: CommandKind) -> None:
    """Two on the same sectors: one is under way, one waits for it. No other node answers, nothing is committed."""
    scene = Scene()
    stays, leaves = scene.connect(), scene.connect()
    scene.interpreter.command(stays, command(CommandKind.STORE, 1, 0, 4, 0))
    before = scene.interpreter.unfinished, scene.interpreter.unfinished_bytes
    assert before == (1, 4 * SECTOR_SIZE)
    for request in range(2, 10):
        scene.interpreter.command(leaves, command(kind, request, 0, 4, 1 if kind in OWN_COPY else 0))
    scene.leave(leaves)
    if kind not in OWN_COPY:  # that is on its way to the disk
        assert (scene.interpreter.unfinished, scene.interpreter.unfinished_bytes) == before
        assert leaves.unfinished == leaves.unfinished_bytes == 0
    scene.settle()
    assert leaves.unfinished == leaves.unfinished_bytes == 0
    assert scene.left() == {}


def test_clients_that_leave_at_any_moment(rng: random.Random) -> None:
    scene = Scene()
    epoch = 0
    for request in range(3000):
        if len(scene.connections) < 4:
            scene.connect()
        connection = rng.choice(scene.connections)
        match rng.randrange(12):
            case 0:
                scene.leave(connection)
            case 1:
                scene.disk_works()
            case 2:
                scene.peers_answer()
            case 3:
                scene.now_s += 1.0
                scene.interpreter.tick()
            case 4:
                scene.files.capacity = None if scene.files.capacity is not None else scene.files.used()
            case _:
                kind = rng.choice(list(CommandKind))
                epoch += kind is CommandKind.ATTACH
                count = rng.randint(1, 8)
                first = rng.randrange(64 - count)
                scene.interpreter.command(connection, command(kind, request, first, count, max(1, epoch)))
                scene.interpreter.end_turn()
    scene.files.capacity = None
    scene.settle()
    assert scene.left() == {}
