"""Hostile messages into a whole cluster of replicas: no exception, nothing left behind, no register frozen."""

from __future__ import annotations

import random

import pytest

from dsreg.constants import MAX_REMEMBERED_UUIDS
from dsreg.protocol.messages import (
    Command,
    CommandKind,
    Fenced,
    PeerMessage,
    ReadProc,
    Receipt,
    Response,
    Status,
    Value,
    WriteProc,
    owner_of,
)
from dsreg.protocol.plausibility import ALWAYS_PLAUSIBLE_EPOCH, FIRST_EPOCH_S, MAX_COUNTS_PER_S, S_PER_EPOCH
from dsreg.protocol.tags import ATTACHED, MAX_EPOCH, pack_tag, ts_of
from tests.fuzz.hostile import EDGES, Hostile, through_the_wire
from tests.register.cluster import Cluster, Peer

SECTORS = 12
UNIX_TIME_S = 1_800_000_000
LIMIT = UNIX_TIME_S * MAX_COUNTS_PER_S
EPOCH_LIMIT = (UNIX_TIME_S - FIRST_EPOCH_S) // S_PER_EPOCH
OWNER = owner_of(bytes(range(16)), "later")
VALUE = bytes(range(256)) * 16


class Attack:
    """A cluster with honest clients, one outsider who knows the keys, and every step chosen by `rng`."""

    def __init__(self, rng: random.Random, nodes: int = 3) -> None:
        self.rng = rng
        self.cluster = Cluster(nodes, rng, unix_time_s=UNIX_TIME_S)
        self.cluster.checks_tags = False
        self.ranks = tuple(self.cluster.nodes)
        self.hostile = Hostile(rng, self.ranks, SECTORS, [LIMIT], [EPOCH_LIMIT])
        self.requests = 0

    def step(self) -> None:
        choice = self.rng.random()
        if choice < 0.2:
            self.honest()
        elif choice < 0.5:
            self.dishonest(self.rng.choice(self.ranks))
        else:
            for packet in self.cluster.packets[-1:]:
                self.hostile.overheard(packet.message)
            self.cluster.step()

    def honest(self) -> None:
        self.requests += 1
        kind = self.rng.choice((CommandKind.READ, CommandKind.WRITE, CommandKind.TAG))
        first = self.rng.randrange(SECTORS)
        data = VALUE if kind is CommandKind.WRITE else b""
        command = Command(kind, self.requests, first, 1, data=data, extended=kind is CommandKind.TAG)
        self.cluster.command(self.rng.choice(self.ranks), "client", command)

    def dishonest(self, target: int) -> None:
        for message in through_the_wire(self.hostile.message(), self.ranks, SECTORS):
            self.tell(target, message)

    def tell(self, target: int, message: object) -> None:
        """As the interpreter of `target` would."""
        if isinstance(message, Command):
            self.cluster.command(target, "outsider", message)
        elif isinstance(message, PeerMessage | Receipt):
            node = self.cluster.nodes[target]
            origin = None if isinstance(message, Receipt) or message.uuid else Peer(self.other(target))
            self.cluster._carry_out(node, node.replica.message(origin, message, self.cluster.at()))

    def other(self, rank: int) -> int:
        return next(other for other in self.ranks if other != rank)

    def assert_usable(self) -> None:
        """Everything that was begun finishes; then each node writes and reads each sector.

        Before that each node reads, which brings its own copy to a majority: what the outsider has told a
        minority may come to light at any time, but no longer once everybody has it.
        """
        self.cluster.settle()
        for rank in self.ranks:
            for sector in range(SECTORS):
                self.cluster.command(rank, "settler", Command(CommandKind.READ, sector, sector, 1))
            self.cluster.settle()
        for rank in self.ranks:
            for sector in range(SECTORS):
                for kind, data in ((CommandKind.WRITE, VALUE), (CommandKind.READ, b"")):
                    self.cluster.command(rank, ("check", rank), Command(kind, sector, sector, 1, data=data))
            self.cluster.settle()
            answers = [response for connection, response in self.cluster.responses if connection == ("check", rank)]
            assert len(answers) == 2 * SECTORS
            assert all(answer.status is Status.OK for answer in answers)
            assert all(answer.data == VALUE for answer in answers if answer.kind is CommandKind.READ)
        self._assert_attachable()

    def _assert_attachable(self) -> None:
        """Whatever epoch the outsider made the nodes promise: soon after somebody else can attach the disk."""
        self.cluster.pass_time(S_PER_EPOCH + 1)
        epoch = 1 + max(answer.epoch for answer in self._ask_all(Command.attach(0, 0, OWNER)))
        attach = Command.attach(0, epoch, OWNER)
        for answer in self._ask_all(attach):
            assert (answer.status, answer.epoch, answer.owner, answer.alive) == (Status.OK, epoch, OWNER, True)
        tag = pack_tag(ts_of(epoch, 1), ATTACHED, 0, epoch)
        for sector in range(SECTORS):
            put = Command(CommandKind.PUT, 0, sector, 1, tag, VALUE, True, epoch)
            assert all(answer.status is Status.OK for answer in self._ask_all(put))
            get = Command(CommandKind.GET, 0, sector, 1, b"", b"", True, epoch, True)
            for answer in self._ask_all(get):
                assert (answer.status, answer.tags, answer.data, answer.epoch) == (Status.OK, tag, VALUE, epoch)

    def _ask_all(self, command: Command) -> list[Response]:
        """The answers of all nodes to `command`."""
        self.requests += 1
        for rank in self.ranks:
            self.cluster.command(rank, ("owner", self.requests), command)
        self.cluster.settle()
        answers = [response for to, response in self.cluster.responses if to == ("owner", self.requests)]
        assert len(answers) == len(self.ranks)
        return answers

    def assert_bounded(self) -> None:
        for node in self.cluster.nodes.values():
            repeats = node.replica._acceptor._repeats
            for seen in repeats._peers.values():
                assert len(seen) <= MAX_REMEMBERED_UUIDS
            assert set(repeats._peers) <= set(self.ranks)


@pytest.mark.parametrize("nodes", [2, 3, 5])
def test_hostile_messages_among_honest_work(nodes: int, rng: random.Random) -> None:
    for _ in range(6):
        attack = Attack(rng, nodes)
        for _ in range(400):
            attack.step()
        attack.assert_usable()
        attack.assert_bounded()


@pytest.mark.parametrize("ts", [*EDGES, LIMIT - 1, LIMIT, LIMIT + 1])
def test_one_bad_message_does_not_freeze_a_register(ts: int, rng: random.Random) -> None:
    """Told to one node, to a majority, to all: every node can still write and read."""
    for targets in ((1,), (1, 2), (1, 2, 3)):
        attack = Attack(rng)
        for target in targets:
            message = WriteProc(attack.other(target), 7, 3, 1, pack_tag(min(ts, (1 << 64) - 1), 2), VALUE)
            for delivered in through_the_wire(message, attack.ranks, SECTORS):
                attack.tell(target, delivered)
        attack.assert_usable()


@pytest.mark.parametrize(
    "epoch", [1, ALWAYS_PLAUSIBLE_EPOCH, EPOCH_LIMIT - 1, EPOCH_LIMIT, EPOCH_LIMIT + 1, MAX_EPOCH - 1, MAX_EPOCH]
)
def test_one_bad_epoch_does_not_freeze_a_register(epoch: int, rng: random.Random) -> None:
    """In each message that carries one; as the epoch that is in force, or of a tag at the edge of what is believed."""
    tags = [pack_tag(ts_of(epoch, 5), 2, 0, epoch), pack_tag(ts_of(epoch, LIMIT), ATTACHED, 0, epoch)]
    command = Command(CommandKind.STORE, 7, 3, 1, tags[0], VALUE, True)
    for message in (
        ReadProc(2, 7, 3, 1, True, b"", epoch),
        *(WriteProc(2, 7, 3, 1, tag, VALUE) for tag in tags),
        *(command._replace(tags=tag) for tag in tags),
        *(command._replace(kind=CommandKind.PUT, tags=tag, epoch=epoch) for tag in tags),
        Command(CommandKind.GET, 7, 3, 1, extended=True, epoch=epoch),
        Command(CommandKind.READ, 7, 3, 1, extended=True, epoch=epoch),
        Command.attach(7, epoch, b"\xff" * 64),
    ):
        attack = Attack(rng)
        for delivered in through_the_wire(message, attack.ranks, SECTORS):
            attack.tell(rng.choice((1, 3)), delivered)
        attack.assert_usable()


@pytest.mark.parametrize("under", [0, 1])
@pytest.mark.parametrize("epoch", [1, 2, EPOCH_LIMIT, EPOCH_LIMIT + 1])
def test_one_bad_answer_does_not_freeze_a_register(under: int, epoch: int, rng: random.Random) -> None:
    """Answers to a question that is really under way, of an epoch, or with a tag of one, that nobody else knows of."""
    tag = pack_tag(ts_of(epoch, 5), 2, 0, epoch)
    for kind in (CommandKind.READ, CommandKind.TAG, CommandKind.WRITE):
        attack = Attack(rng)
        data = VALUE if kind is CommandKind.WRITE else b""
        attack.cluster.command(1, "client", Command(kind, 9, 3, 1, data=data))
        rid = max(attack.cluster.nodes[1].replica._coordinator._executions)
        for message in (Value(2, rid, 3, 1, tag, VALUE, b"", under), Fenced(2, rid, 3, 1, epoch)):
            for delivered in through_the_wire(message, attack.ranks, SECTORS):
                attack.tell(1, delivered)
        attack.assert_usable()
