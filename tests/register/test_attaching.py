"""ATTACH at a node, and what it tells of the writes of the attachment: plays. Rules: docs/attachments.md."""

from __future__ import annotations

import pytest

from dsreg.protocol.messages import Ack, Command, CommandKind, ReadProc, Response, Status, Value, WriteProc
from dsreg.protocol.plausibility import ALWAYS_PLAUSIBLE_EPOCH
from dsreg.protocol.tags import ATTACHED, attached_counter, is_overtaken, pack_tag, restamped, ts_of
from dsreg.register.effects import Again, Effect, Fence, Persist, Reply
from dsreg.register.epochs import MAX_LEAP
from tests.protocol.values import data
from tests.register.play import CLIENT, NEW, PEER, RANK, RID, Play, ask, at, load, ok, tell
from tests.register.settled import assert_settled
from tests.register.test_replica_epochs import HIGH, LIFE, WRITE, E, attached, promise, refusal

OWNER = bytes([7]) * 64
FAR = E + MAX_LEAP + 1


def attach(epoch: int, request: int = 1) -> Command:
    return Command.attach(request, epoch, OWNER)


def told(effects: list[Effect]) -> Response:
    (answer,) = effects
    assert isinstance(answer, Reply) and isinstance(answer.message, Response)
    return answer.message


# --- ATTACH through the replica -------------------------------------------------------------------
def test_attach_ends_with_its_connection() -> None:
    one = Play()
    owner = bytes([7]) * 64
    command = Command.attach(1, E, owner)
    (fence,) = one.command(command)
    assert fence == Fence(E, owner, (Again(command, CLIENT),))
    (answer,) = one.commit(fence)
    response = Response(Status.OK, command.kind, 1, extended=True, epoch=E, alive=True, believed=ALWAYS_PLAUSIBLE_EPOCH,
                        owner=owner)
    assert answer == Reply(CLIENT, response, command)
    assert one.replica.epochs.is_owner_connected
    assert one.replica.disconnected(CLIENT, at(0.0)) == ([], [])
    assert not one.replica.epochs.is_owner_connected


def test_rule_9_attach_while_a_peer_speaks_only_the_contract() -> None:
    one = Play(contract=(3,))
    command = Command.attach(1, E, bytes(64))
    assert one.command(command) == refusal(command, Status.UNSUPPORTED, epoch=0)
    one.replica.link_up(3, True, at(0.0))
    assert isinstance(one.command(command)[0], Fence)


def test_rule_9_nothing_is_said_to_a_contract_peer_under_an_epoch_and_two_of_three_are_enough() -> None:
    one = Play(contract=(3,))
    (fence,) = one.message(ReadProc(2, 900, 90, 1, False, b"", E))
    one.commit(fence)
    assert one.write() == ask(to=(2,), epoch=E)
    (record,) = one.value(2, RID, HIGH, epoch=E)
    assert one.commit(record) == tell(attached(1, RANK, LIFE), to=(2,))
    assert one.ack(2, RID) == [ok(WRITE)]
    assert one.message(Value(3, RID, 0, 1, HIGH, NEW, bytes(16)))[1:] == [], "its answer has no epoch"


# --- claims that are far above what is promised -----------------------------------------------------
def question(rid: int = RID, epoch: int = E, to: tuple[int, ...] = (2, 3)) -> list[Effect]:
    return ask(rid, 0, 1, epoch=epoch, to=to)


def test_a_claim_within_reach_needs_nobody() -> None:
    one = Play()
    promise(one)
    assert one.command(attach(FAR - 1)) == [Fence(FAR - 1, OWNER, (Again(attach(FAR - 1), CLIENT),))]


def test_a_claim_that_is_far_above_is_taken_if_a_majority_is_near_it() -> None:
    one = Play()
    promise(one)
    assert one.command(attach(FAR)) == question()
    assert one.replica.is_under_way(RID) and one.replica.epochs.promised == E, "nothing is promised before"
    assert one.value(2, RID, HIGH, epoch=E + 1) == [Fence(FAR, OWNER, (Again(attach(FAR), CLIENT),))]
    assert_settled(one.replica, 100.0)


def test_a_claim_that_nobody_is_near_is_not_believed() -> None:
    one = Play()
    promise(one)
    one.command(attach(FAR))
    assert one.value(2, RID, HIGH, epoch=E) == [], "node 3 may know of more"
    assert one.value(3, RID, HIGH, epoch=E) == refusal(attach(FAR), Status.DISBELIEVED)
    assert one.replica.epochs.promised == E
    assert_settled(one.replica, 100.0)


def test_the_third_node_may_be_the_one_that_knows() -> None:
    one = Play()
    promise(one)
    one.command(attach(FAR))
    one.value(2, RID, HIGH, epoch=E)
    assert one.value(3, RID, HIGH, epoch=FAR - 1) == [Fence(FAR, OWNER, (Again(attach(FAR), CLIENT),))]


def test_a_single_node_decides_by_itself() -> None:
    one = Play(nodes=1)
    assert told(one.command(attach(MAX_LEAP + 1))).status is Status.DISBELIEVED
    assert isinstance(one.command(attach(MAX_LEAP))[0], Fence)


def test_a_claim_that_is_made_again_replaces_the_first() -> None:
    one = Play()
    promise(one)
    one.command(attach(FAR))
    assert one.command(attach(FAR, 2)) == [*refusal(attach(FAR), Status.DISBELIEVED), *question(RID + 1)]
    assert one.value(2, RID, HIGH, epoch=FAR) == []
    assert isinstance(one.value(2, RID + 1, HIGH, epoch=FAR)[0], Fence)


def test_a_claim_whose_client_has_gone_is_given_up() -> None:
    one = Play()
    promise(one)
    one.command(attach(FAR))
    assert one.replica.disconnected(CLIENT, at(0.0)) == ([attach(FAR)], [])
    assert one.value(2, RID, HIGH, epoch=FAR) == []
    assert_settled(one.replica, 100.0)


def test_what_the_clock_forbids_is_not_asked_about() -> None:
    one = Play()
    assert told(one.command(attach(ALWAYS_PLAUSIBLE_EPOCH + 1))).status is Status.DISBELIEVED
    one.command(attach(ALWAYS_PLAUSIBLE_EPOCH))
    assert one.value(2, RID, HIGH, epoch=ALWAYS_PLAUSIBLE_EPOCH + 1) == [], "an answer that nobody believes"
    assert isinstance(one.value(3, RID, HIGH, epoch=ALWAYS_PLAUSIBLE_EPOCH)[0], Fence)


# --- writes of the attachment that meet later ones ------------------------------------------------
def put(tag: bytes, first: int = 0, count: int = 1) -> Command:
    return Command(CommandKind.PUT, 5, first, count, tag * count, NEW * count, True, E)


@pytest.mark.parametrize(
    ("tag", "there", "expected"),
    [
        (attached(5), attached(6), True),
        (attached(5), attached(5), False),
        (attached(5), attached(4), False),
        (attached(5), attached(6, 2), False),  # a plain write may overtake it in silence
        (attached(5), restamped(attached(6), E + 1), False),  # that is for the fence
        (attached(5), bytes(16), False),
        (attached(5, 2), attached(6), False),  # of no attachment
        (restamped(pack_tag(ts_of(E - 1, 5), ATTACHED), E), attached(6), False),  # one restamped from an older one
        (attached(5) + attached(5), attached(4) + attached(6), True),
    ],
)
def test_what_is_overtaken(tag: bytes, there: bytes, expected: bool) -> None:
    assert is_overtaken(tag, there) is expected


def test_the_highest_counter_of_an_attachment() -> None:
    mixed = attached(5) + attached(9, 2) + restamped(attached(11), E + 1) + attached(7)
    assert attached_counter(mixed, E) == 7 and attached_counter(mixed, E + 1) == 0
    assert attached_counter(attached(5) * 3, E) == 5 and attached_counter(bytes(32), E) == 0


def test_a_put_that_meets_a_later_one_that_is_not_durable_yet() -> None:
    one = Play()
    promise(one)
    (first,) = one.command(put(attached(6)))
    one.storage.queue(first)  # type: ignore[arg-type]
    (second,) = one.command(put(attached(5)))
    assert isinstance(second, Persist) and told(list(second.then)).status is Status.OVERTAKEN  # type: ignore[arg-type]


def test_a_store_at_a_coordinator_that_has_a_later_one_ends_at_once_and_the_queue_goes_on() -> None:
    one = Play()
    promise(one)
    one.have(attached(6), NEW)
    command = Command(CommandKind.STORE, 5, 0, 1, attached(5), data(3), True, E)
    assert one.command(command) == refusal(command, Status.OVERTAKEN)
    assert one.replica.unfinished() == 0
    assert_settled(one.replica, 100.0)


def test_a_peer_that_has_a_later_one_says_so_once_it_is_durable() -> None:
    one = Play()
    promise(one)
    one.have(attached(6), data(4))
    (persist,) = one.message(WriteProc(2, 50, 0, 1, attached(5), NEW))
    assert one.commit(persist) == [Reply(PEER, Ack(RANK, 50, 0, 1, overtaken=True))]
    assert one.storage.load(0, 1) == (attached(6), data(4), False)


def test_a_store_of_an_attachment_that_a_peer_says_is_overtaken_ends() -> None:
    one = Play()
    promise(one)
    command = Command(CommandKind.STORE, 1, 0, 1, attached(5), NEW, True, E)
    one.command(command)
    assert one.message(Ack(3, RID, 0, 1, overtaken=True)) == refusal(command, Status.OVERTAKEN)
    assert one.replica.unfinished() == 0


def test_a_read_that_writes_back_what_is_overtaken_has_its_acknowledgement() -> None:
    """A plain one: the attachment may be writing the sector at this moment."""
    one = Play()
    promise(one)
    one.have(attached(5), NEW)
    one.read()
    one.load(load(epoch=E))
    *_, own_copy = one.value(2, RID, restamped(HIGH, E), epoch=E)
    assert one.commit(own_copy) == []
    command = Command(CommandKind.READ, 1, 0, 1)
    assert one.message(Ack(3, RID, 0, 1, overtaken=True)) == [ok(command, value=NEW)]


def test_the_counter_is_told_and_outlives_a_restart() -> None:
    one = Play()
    (fence,) = one.command(attach(E))
    one.commit(fence)
    (persist,) = one.command(put(attached(5)))
    assert told(one.command(attach(0))).counter == 5, "on its way to the disk: somebody has chosen it"
    one.commit(persist)
    assert one.storage.attached_counter == 5
    (fence,) = one.command(attach(E + 1))
    assert told(one.command(attach(0))).counter == 0, "of an attachment that is not in force yet nothing is told"
    one.commit(fence)
    now = told(one.command(attach(0)))
    assert (now.epoch, now.counter, now.alive) == (E + 1, 0, True)
