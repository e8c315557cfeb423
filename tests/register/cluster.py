"""Several replicas, storage in memory and a network, every step of which is chosen from one seed.

Anything that is under way (a message, a store, a load) may be next, or be delayed for as long as the choice likes.
Messages are also lost and doubled; a crash loses what is not durable; answers to a crashed incarnation reach
the next one.
"""

from __future__ import annotations

import random
from collections import deque
from typing import NamedTuple

from dsreg.constants import SECTOR_SIZE
from dsreg.protocol.messages import Buffer, Command, PeerMessage, Receipt, Response
from dsreg.protocol.tags import iter_tags
from dsreg.register.assembly import new_replica
from dsreg.register.effects import Again, Durable, Effect, Fence, Load, Persist, Reply, Reserve, Tell
from dsreg.register.now import Now
from dsreg.register.quorum import Quorum, majority_of
from dsreg.register.replica import Replica
from dsreg.testing.memory_storage import MemoryStorage
from tests.register.settled import assert_settled, is_busy


class Peer(NamedTuple):
    """The connection on which a node asked."""

    rank: int


class Packet(NamedTuple):
    sender: int
    receiver: int
    message: PeerMessage | Receipt


class Node:
    """A replica on its storage. A crash makes a new replica on the same storage."""

    def __init__(self, rank: int, quorum: Quorum) -> None:
        self.rank = rank
        self.quorum = quorum
        self.storage = MemoryStorage()
        self.loads: list[Load] = []
        self.up = True
        self.replica = self._start()

    def _start(self) -> Replica:
        return new_replica(
            self.rank,
            self.quorum,
            self.storage,
            uuid_prefix=self.storage.incarnation,
            jitter=lambda: 1.0,
        )

    def crash(self) -> None:
        self.up = False
        self.storage.crash()
        self.loads.clear()

    def restart(self) -> None:
        self.up = True
        self.storage.full = False
        self.replica = self._start()


class Cluster:
    """`contract`: the pairs of ranks (lower first) that speak only the contract with each other.

    `unix_time_s`: what all their clocks say at the beginning. `quorum`: a majority of all nodes, unless it is given.
    """

    def __init__(
        self,
        nodes: int,
        rng: random.Random,
        contract: frozenset[tuple[int, int]] = frozenset(),
        unix_time_s: float = 0.0,
        quorum: Quorum | None = None,
    ) -> None:
        ranks = tuple(range(1, nodes + 1))
        self.rng = rng
        self.now = 0.0
        self.unix_time_s = unix_time_s
        self.loss = 0.1
        self.quorum = majority_of(ranks) if quorum is None else quorum
        self.nodes = {rank: Node(rank, self.quorum) for rank in ranks}
        self.packets: list[Packet] = []
        self.responses: list[tuple[object, Response]] = []  # for the clients: (connection, response)
        self._contract = contract
        self.checks_tags = True  # an outsider may use any
        self._values: dict[tuple[int, bytes], Buffer] = {}
        for rank in ranks:
            self._connect(rank)

    def at(self) -> Now:
        return Now(self.now, self.unix_time_s + self.now)

    # --- what a test does -------------------------------------------------------------------------
    def command(self, rank: int, connection: object, command: Command) -> None:
        node = self.nodes[rank]
        if node.up:
            self._carry_out(node, node.replica.command(connection, command, self.at()))

    def crash(self, rank: int) -> None:
        self.nodes[rank].crash()

    def restart(self, rank: int) -> None:
        self.nodes[rank].restart()
        self._connect(rank)

    def step(self) -> None:
        """One thing that is under way happens; time passes now and then."""
        choices: list[tuple[Node, str, int]] = []
        for node in self.nodes.values():
            if node.up:
                queued = range(len(node.storage.queued))
                choices += [(node, "commit", index) for index in queued if node.storage.may_commit(index)]
                choices += [(node, "load", index) for index in range(len(node.loads))]
        pick = self.rng.randrange(len(choices) + len(self.packets) + 1)
        if pick < len(choices):
            node, what, index = choices[pick]
            (self._commit if what == "commit" else self._load)(node, index)
        elif pick < len(choices) + len(self.packets):
            self._deliver(pick - len(choices))
        else:
            self.pass_time(self.rng.random())

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        for node in self.nodes.values():
            if node.up:
                self._carry_out(node, node.replica.tick(self.at()))

    def settle(self) -> None:
        """No more faults: everything that was begun on a live node must finish, and nothing may be left behind."""
        self.loss = 0.0
        for rank, node in self.nodes.items():
            node.storage.full = False
            if not node.up:
                self.restart(rank)
        for _ in range(40):  # of the longest interval between two sendings
            while self.packets or any(node.storage.queued or node.loads for node in self.nodes.values()):
                self.step()
            if not any(is_busy(node.replica) for node in self.nodes.values()):
                break
            self.pass_time(10.0)
        for node in self.nodes.values():
            assert not node.replica.unfinished(), f"node {node.rank} has not finished what it began"
            assert_settled(node.replica, self.now + 100)

    # --- the world --------------------------------------------------------------------------------
    def _connect(self, rank: int) -> None:
        """The links from and to `rank` come up."""
        for other in self.nodes:
            if other != rank:
                extended = (min(rank, other), max(rank, other)) not in self._contract
                for node, peer in ((self.nodes[rank], other), (self.nodes[other], rank)):
                    if node.up:
                        self._carry_out(node, node.replica.link_up(peer, extended, self.at()))

    def _carry_out(self, node: Node, effects: list[Effect]) -> None:
        todo: deque[Effect] = deque(effects)
        while todo:
            match todo.popleft():
                case Persist() | Reserve() | Fence() as store:
                    node.storage.queue(store)
                case Load() as load:
                    node.loads.append(load)
                case Again() as again:
                    todo.extend(node.replica.again(again, self.at()))
                case Durable(what):
                    todo.extend(node.replica.durable(what, self.at()))
                case Tell(rank, message):
                    self._send(Packet(node.rank, rank, message))
                case Reply(Peer(rank), message) if not isinstance(message, Response):
                    self._send(Packet(node.rank, rank, message))
                case Reply(connection, message):
                    assert isinstance(message, Response)
                    self.responses.append((connection, message))

    def _send(self, packet: Packet) -> None:
        assert packet.sender != packet.receiver, "messages to itself take no link"
        if self.rng.random() >= self.loss:
            self.packets.append(packet)

    def _deliver(self, index: int) -> None:
        packet = self.packets.pop(index)
        node = self.nodes[packet.receiver]
        if self.rng.random() < self.loss:
            self.packets.append(packet)
        if node.up:
            origin = None if isinstance(packet.message, Receipt) or packet.message.uuid else Peer(packet.sender)
            self._carry_out(node, node.replica.message(origin, packet.message, self.at()))

    def _check_tags(self, stored: Persist) -> None:
        """No tag of a write stands for two values, whatever else becomes of them."""
        for index, tag in enumerate(iter_tags(stored.tags)):
            value = stored.data[index * SECTOR_SIZE:(index + 1) * SECTOR_SIZE]
            known = self._values.setdefault((stored.first + index, tag), value)
            assert known == value, f"two values under {tag.hex()}, of sector {stored.first + index}"

    def _commit(self, node: Node, index: int) -> None:
        effect, ok = node.storage.commit(index)
        if ok and self.checks_tags and isinstance(effect, Persist):
            self._check_tags(effect)
        if ok:
            self._carry_out(node, list(effect.then))
        else:
            assert isinstance(effect, Persist)
            self._carry_out(node, node.replica.refused(effect, self.at()))

    def _load(self, node: Node, index: int) -> None:
        load = node.loads.pop(index)
        tags, data, damaged = node.storage.load(load.question.first, load.question.count)
        self._carry_out(node, node.replica.loaded(load, tags, data, damaged, self.at()))
