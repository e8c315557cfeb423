"""Hostile messages into a whole cluster of replicas: no exception, nothing left behind, no register frozen."""

from __future__ import annotations

import random

import pytest

from dsreg.constants import MAX_REMEMBERED_UUIDS
from dsreg.core.belief import MAX_TS_PER_S
from dsreg.core.messages import Command, CommandKind, PeerMessage, Receipt, Status, WriteProc
from dsreg.core.tags import pack_tag
from tests.core.cluster import Cluster, Peer
from tests.fuzz.hostile import EDGES, Hostile, through_the_wire

SECTORS = 12
UNIX_TIME_S = 1_800_000_000
LIMIT = UNIX_TIME_S * MAX_TS_PER_S
VALUE = bytes(range(256)) * 16


class Attack:
    """A cluster with honest clients, one outsider who knows the keys, and every step chosen by `rng`."""

    def __init__(self, rng: random.Random, nodes: int = 3) -> None:
        self.rng = rng
        self.cluster = Cluster(nodes, rng)
        self.ranks = tuple(self.cluster.nodes)
        for node in self.cluster.nodes.values():
            node.replica.unix_time = lambda: UNIX_TIME_S + self.cluster.now
        self.hostile = Hostile(rng, self.ranks, SECTORS, [LIMIT])
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
            self.cluster._carry_out(node, node.replica.message(origin, message, self.cluster.now))

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

    def assert_bounded(self) -> None:
        for node in self.cluster.nodes.values():
            for seen in node.replica._repeats._peers.values():
                assert len(seen) <= MAX_REMEMBERED_UUIDS
            assert set(node.replica._repeats._peers) <= set(self.ranks)


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
