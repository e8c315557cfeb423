"""Replicas whose members change while operations are under way: is every sector linearizable?

Five nodes, of which three are members, then all, then three others, and so on: each change by a joint configuration.
All of it, and the order of everything else, by one seed. A node that has not been told of a change answers, counts and
coordinates by what it knows.
"""

from __future__ import annotations

import random

import pytest

from dsreg.constants import SECTOR_SIZE
from dsreg.protocol.configuration import Configuration
from dsreg.protocol.messages import Ack, Command, CommandKind, Fenced, ReadProc, Receipt, Value, WriteProc
from dsreg.protocol.tags import highest_epoch, iter_tags, pack_tag
from dsreg.register.atomic_register import AtomicRegister
from dsreg.register.configuration import Goal, must_learn, next_for, quorum_of
from dsreg.register.effects import Effect, Fence, Load, Persist, Reply, Tell
from dsreg.register.quorum import bit, mask, ranks_in
from tests.register.cluster import Cluster, Packet
from tests.register.play import NEW, RANK, RID, Play, at
from tests.register.test_attaching import FAR, attach
from tests.register.test_model import SECTORS, Call, Run
from tests.register.test_replica_epochs import E, promise

RANKS = (1, 2, 3, 4, 5)
SETS = [mask(ranks) for ranks in ((1, 2, 3), RANKS, (3, 4, 5), (1, 4, 5), (1, 2), (2, 3, 4, 5), (1,))]


class Changing(Cluster):
    """`without`: a rule that is left out."""

    def __init__(self, rng: random.Random, without: str) -> None:
        first = Configuration(1, 1 << 20, SETS[0], 0, mask(RANKS))
        super().__init__(len(RANKS), rng, quorum=quorum_of(first))
        self.without = without
        self.chosen = [first]
        self.known = dict.fromkeys(RANKS, first)  # by rank; durable
        self.sent: dict[int, Configuration] = {}  # by id of the packet: what its sender knew
        self.snapshots: dict[int, dict[int, bytes]] = {}  # by rank, tags when it heard of the joint configuration

    # --- what is told -------------------------------------------------------------------------------
    def _send(self, packet: Packet) -> None:
        super()._send(packet)
        if self.packets and self.packets[-1] is packet:
            self.sent[id(packet)] = self.known[packet.sender]

    def _deliver(self, index: int) -> None:
        packet = self.packets[index]
        sender, receiver = self.sent[id(packet)], packet.receiver
        if self.without != "answers of one number":
            self._hears(receiver, sender)
            is_answer = isinstance(packet.message, (Value, Ack, Fenced, Receipt))
            if is_answer and sender != self.known[receiver]:
                self.packets.pop(index)
                return
        super()._deliver(index)

    def _hears(self, rank: int, configuration: Configuration) -> None:
        node = self.nodes[rank]
        if configuration.number <= self.known[rank].number or not node.up:
            return
        self.known[rank] = configuration
        node.quorum = quorum_of(configuration)
        self._carry_out(node, node.replica.reconfigured(node.quorum, self.at()))

    def tell(self) -> None:
        """Somebody hears of what was chosen last."""
        self._hears(self.rng.choice(RANKS), self.chosen[-1])

    # --- what is chosen -----------------------------------------------------------------------------
    def choose(self, wanted: int = 0) -> None:
        """The next configuration, if those that decide can vote for it. `wanted`: the members; 0: any."""
        base = self.chosen[-1]
        wanted = wanted or self.rng.choice([each for each in SETS if each != base.ranks])
        following = next_for(base, Goal(wanted, base.sectors))
        assert following is not None
        voters = 0
        for rank in ranks_in(base.members):
            if self.nodes[rank].up and self.known[rank] == base:
                if not must_learn(base, following, rank) or self.without == "learning" or self._learns(rank, base):
                    voters |= bit(rank)
        if quorum_of(base).decided(voters):
            self.chosen.append(following)

    def _learns(self, rank: int, base: Configuration) -> bool:
        """What f + 1 of the earlier set have, while they know this configuration, is stored at the node."""
        tellers = [other for other in ranks_in(base.ranks) if self.known[other].number >= base.number]
        earlier = quorum_of(base._replace(joining=0))
        if not earlier.blocks(mask(tellers)):
            return False
        storage = self.nodes[rank].storage
        for other in self.rng.sample(tellers, len(tellers)):
            their = self.nodes[other].storage
            tags, data, damaged = their.load(0, SECTORS)
            assert not damaged
            if their.epoch > storage.epoch:
                storage.queue(Fence(their.epoch, their.owner, ()))
                while storage.queued:
                    self._commit(self.nodes[rank], 0)
            for sector, tag in enumerate(iter_tags(tags)):
                value = data[sector * SECTOR_SIZE:(sector + 1) * SECTOR_SIZE]
                if tag > storage.tags(sector, 1):
                    assert highest_epoch(tag) <= storage.epoch
                    storage.queue(Persist(sector, 1, tag, value, (), True))
                    storage.commit(len(storage.queued) - 1)
        return True


class ChangingRun(Run):
    """Without damage, full disks and the contract: see test_model.py for those."""

    def __init__(self, seed: int, without: str = "") -> None:
        super().__init__(seed)
        self.rng = random.Random(seed)
        self.cluster: Changing = Changing(self.rng, without)

    def _send(self, call: Call) -> None:
        kind = CommandKind.STORE if call.tags else call.kind
        written = call.data if kind in (CommandKind.WRITE, CommandKind.STORE) else b""
        command = Command(kind, call.number, call.first, call.count, call.tags, written, kind > CommandKind.WRITE)
        cluster = self.cluster
        able = [rank for rank, node in cluster.nodes.items() if node.up and cluster.known[rank].members & bit(rank)]
        if able:
            cluster.command(self.rng.choice(able), call, command)

    def _fault(self) -> None:
        cluster = self.cluster
        for _ in range(self.rng.randrange(6)):
            self.rng.choice((cluster.choose, cluster.tell, cluster.tell))()
        if self.rng.random() < 0.2:
            rank = self.rng.choice(RANKS)
            cluster.crash(rank) if cluster.nodes[rank].up else cluster.restart(rank)

    def settle(self) -> None:
        for rank in RANKS:
            if not self.cluster.nodes[rank].up:
                self.cluster.restart(rank)
            self.cluster._hears(rank, self.cluster.chosen[-1])


def run(seed: int, without: str = "") -> ChangingRun:
    one = ChangingRun(seed, without)
    settle = one.cluster.settle
    one.cluster.settle = lambda: (one.settle(), settle())  # type: ignore[method-assign]
    one.go()
    return one


def test_operations_go_on_while_members_change() -> None:
    changes = 0
    for seed in range(400):
        one = run(seed)
        assert not one.faults()
        changes += len(one.cluster.chosen) - 1
    assert changes > 400


def test_without_learning_something_is_lost() -> None:
    assert any(run(seed, "learning").faults() for seed in range(1500))


def not_told(seed: int, without: str = "") -> ChangingRun:
    """1 2 3 become 1 4 5. Node 1 does not hear of it, and coordinates a write. Then node 4 coordinates a read."""
    one = ChangingRun(seed, without)
    cluster = one.cluster
    cluster.loss = 0.0
    after = mask((1, 4, 5))
    cluster.choose(after)
    for rank in (2, 3, 4, 5):
        cluster._hears(rank, cluster.chosen[-1])
    cluster.choose(after)
    assert [configuration.number for configuration in cluster.chosen] == [1, 2, 3]
    for rank, kind in ((1, CommandKind.WRITE), (4, CommandKind.READ)):
        if rank == 4:
            for told in (4, 5):
                cluster._hears(told, cluster.chosen[-1])
        call = one._new_call(kind, 0, 1)
        cluster.command(rank, call, Command(kind, call.number, 0, 1, b"", call.data))
        while cluster.packets or any(node.storage.queued or node.loads for node in cluster.nodes.values()):
            cluster.step()
            one._collect()
    return one


def test_a_coordinator_that_was_not_told_cannot_count_those_that_were() -> None:
    for seed in range(50):
        assert not not_told(seed).faults()
    assert any(not_told(seed, "answers of one number").faults() for seed in range(50))


def test_operations_that_do_not_begin_again_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """They count on what was answered before."""

    def keeps_its_answers(self: AtomicRegister, quorum: object) -> list:
        self.quorum = quorum  # type: ignore[assignment]
        return []

    monkeypatch.setattr(AtomicRegister, "reconfigured", keeps_its_answers)
    assert any(_faults_or_stuck(seed) for seed in range(1500))


def _faults_or_stuck(seed: int) -> bool:
    try:
        return bool(run(seed).faults())
    except AssertionError:
        return True


# --- plays: what is done with an operation in each of its phases ----------------------------------------
JOINT = quorum_of(Configuration(2, 100, mask((1, 2, 3)), mask(RANKS), mask(RANKS)))
NEXT = quorum_of(Configuration(3, 100, mask(RANKS), 0, mask(RANKS)))
LOW, TAG = pack_tag(6, 2), pack_tag(7, RANK)


def sent(effects: list[Effect]) -> list[tuple[int, object]]:
    return [(effect.rank, effect.message) for effect in effects if isinstance(effect, Tell)]


def test_a_query_is_asked_again_of_all_and_what_was_answered_before_does_not_count() -> None:
    one = Play()
    one.write()
    again = one.replica.reconfigured(JOINT, at(0.0))
    assert sent(again) == [(rank, ReadProc(RANK, RID + 1, 0, 1, False)) for rank in (2, 3, 4, 5)]
    assert one.value(2, RID, LOW) == [] and one.value(3, RID, LOW) == []
    assert one.value(2, RID + 1, LOW) == [], "two of 1 2 3, and two of 1 2 3 4 5"
    (record,) = one.value(4, RID + 1, LOW)
    assert isinstance(record, Persist) and record.tags == TAG


def test_what_is_being_recorded_here_is_recorded_again_under_the_same_tag() -> None:
    one = Play()
    one.write()
    (record,) = one.value(2, RID, LOW)
    assert isinstance(record, Persist)
    (again,) = one.replica.reconfigured(JOINT, at(0.0))
    assert isinstance(again, Persist) and again.tags == record.tags == TAG
    assert one.commit(record) == [], "nobody waits for that any more"
    assert sent(one.commit(again)) == [
        (rank, WriteProc(RANK, RID + 1, 0, 1, TAG, NEW)) for rank in (2, 3, 4, 5)
    ]


def test_a_store_goes_out_again_under_the_same_tag_and_acknowledgements_of_before_do_not_count() -> None:
    one = Play()
    one.store(TAG)
    one.ack(2, RID)
    *out, own = one.replica.reconfigured(JOINT, at(0.0))
    assert sent(out) == [(rank, WriteProc(RANK, RID + 1, 0, 1, TAG, NEW)) for rank in (2, 3, 4, 5)]
    assert one.commit(own) == [] and one.ack(2, RID) == [] and one.ack(3, RID) == []
    assert one.ack(2, RID + 1) == []
    (done,) = one.ack(5, RID + 1)
    assert isinstance(done, Reply)


def test_what_waits_for_an_earlier_operation_is_done_under_the_later_configuration() -> None:
    one = Play()
    one.store(TAG)
    assert one.read(request=2) == []
    one.commit(one.replica.reconfigured(NEXT, at(0.0))[-1])
    for rank in (2, 3):
        effects = one.ack(rank, RID + 1)
    assert [rank for rank, _ in sent(effects)] == [2, 3, 4, 5]
    one.load(next(effect for effect in effects if isinstance(effect, Load)))
    assert one.value(2, RID + 2, TAG) == [], "two of five"
    assert isinstance(one.value(3, RID + 2, TAG)[0], Reply)


def test_how_far_others_have_promised_is_asked_again_of_all() -> None:
    one = Play()
    promise(one)
    assert sent(one.command(attach(FAR))) == [(rank, ReadProc(RANK, RID, 0, 1, False, epoch=E)) for rank in (2, 3)]
    again = one.replica.reconfigured(JOINT, at(0.0))
    assert sent(again) == [(rank, ReadProc(RANK, RID + 1, 0, 1, False, epoch=E)) for rank in (2, 3, 4, 5)]
    assert one.value(2, RID, LOW, epoch=E + 2) == []
    assert one.value(2, RID + 1, LOW, epoch=E + 2) == []
    (fence,) = one.value(5, RID + 1, LOW, epoch=E)
    assert isinstance(fence, Fence) and fence.epoch == FAR


def test_what_others_had_promised_before_does_not_count() -> None:
    one = Play(nodes=5)
    promise(one)
    one.command(attach(FAR))
    assert one.value(2, RID, LOW, epoch=E + 2) == []
    one.replica.reconfigured(NEXT, at(0.0))
    assert one.value(3, RID + 1, LOW, epoch=E + 2) == [], "two of five"
    (fence,) = one.value(4, RID + 1, LOW, epoch=E)
    assert isinstance(fence, Fence) and fence.epoch == FAR


def test_a_node_that_is_no_member_any_more_completes_what_it_has_begun() -> None:
    one = Play()
    one.store(TAG)
    *_, own = one.replica.reconfigured(quorum_of(Configuration(3, 100, mask((2, 3, 4)), 0, mask(RANKS))), at(0.0))
    assert one.commit(own) == [] and one.ack(2, RID + 1) == []
    assert isinstance(one.ack(4, RID + 1)[0], Reply)
