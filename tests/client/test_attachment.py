"""The attachment's state machine: asked, claimed, held, lost, an answer at a time."""

from __future__ import annotations

import random

import pytest

from dsreg.client.attachment import (
    ASK_AGAIN_S,
    RETRY_S,
    UNSUPPORTED_S,
    Ask,
    Attachment,
    Claim,
    Held,
    Knows,
    Lost,
    State,
    WaitsFor,
)
from dsreg.client.limits import LEAVES_AGAIN_S, LEAVES_S, SAY_AGAIN_S, TELL_AGAIN_S
from dsreg.constants import NO_OWNER
from dsreg.errors import AlreadyAttached, AttachRefused, ClientError, DiskFenced, Outcome
from dsreg.protocol.messages import CommandKind, Response, Status, owner_of
from dsreg.protocol.tags import ATTACHED, MAX_EPOCH, counter_of, epoch_of, unpack_tag
from tests.client.asks import asks, of

ME, RIVAL = owner_of(b"m" * 16, "host a"), owner_of(b"r" * 16, "host b, process 7")


def told(epoch: int = 0, owner: bytes = NO_OWNER, alive: bool = False) -> Response:
    return Response(Status.OK, CommandKind.ATTACH, 1, b"", b"", True, epoch, alive, believed=MAX_EPOCH + 1, owner=owner)


def refused(status: Status, epoch: int = 0) -> Response:
    return Response(status, CommandKind.ATTACH, 1, extended=True, epoch=epoch)


def claiming(take_over: bool = False, now_s: float = 0.0, epoch: int = 0) -> Attachment:
    """Of three nodes, two have said that the disk is at `epoch` and free."""
    attachment = Attachment(Claim(ME, take_over), of(3))
    assert asks(attachment.connected(3, attachment.quorum, now_s)) == 0
    assert asks(attachment.answer(1, told(epoch), now_s)) is None
    assert asks(attachment.answer(2, told(epoch), now_s)) == epoch + 1
    return attachment


def held(now_s: float = 0.0, epoch: int = 0) -> Attachment:
    attachment = claiming(now_s=now_s, epoch=epoch)
    for rank in (1, 2):
        assert asks(attachment.answer(rank, told(epoch + 1, ME, alive=True), now_s)) is None
    assert attachment.state is State.HELD
    return attachment


def lost(attachment: Attachment, kind: type[ClientError]) -> str:
    """Why it is lost; it says nothing more to anybody."""
    assert attachment.state is State.LOST and type(attachment.error) is kind
    assert attachment.error.outcome is Outcome.DID_NOT_HAPPEN
    assert asks(attachment.connected(3, attachment.quorum, 1e9)) is asks(attachment.tick(1e9)) is None
    assert asks(attachment.answer(3, told(), 1e9)) is None and attachment.state is State.LOST
    return attachment.error.reason


# --- the way there --------------------------------------------------------------------------------
def test_the_epoch_after_the_highest_that_a_majority_knows_is_claimed_and_held_at_a_majority() -> None:
    attachment = Attachment(Claim(ME), of(5))
    assert asks(attachment.connected(3, attachment.quorum, 0.0)) == 0
    assert asks(attachment.answer(1, told(4, RIVAL), 0.0)) is None
    assert asks(attachment.answer(2, told(), 0.0)) is None
    assert asks(attachment.answer(3, told(6), 0.0)) == 7
    for rank in (3, 4):
        assert asks(attachment.answer(rank, told(7, ME, alive=True), 0.0)) is None
        assert attachment.state is State.CLAIMING
    assert asks(attachment.connected(3, attachment.quorum, 0.0)) == 7, "a node that connects now"
    assert asks(attachment.answer(5, told(7, ME, alive=True), 0.0)) is None
    assert attachment.state is State.HELD
    assert asks(attachment.connected(3, attachment.quorum, 0.0)) == 7, "a node that connects later is to know the owner"


def test_a_single_node_is_a_majority_of_one() -> None:
    attachment = Attachment(Claim(ME), of(1))
    assert asks(attachment.answer(1, told(), 0.0)) == 1
    attachment.answer(1, told(1, ME, alive=True), 0.0)
    assert attachment.state is State.HELD


def test_a_node_counts_once() -> None:
    attachment = Attachment(Claim(ME), of(3))
    assert asks(attachment.answer(1, told(), 0.0)) is asks(attachment.answer(1, told(), 0.0)) is None
    assert attachment.state is State.ASKING
    assert asks(attachment.answer(2, told(), 0.0)) == 1
    for _ in range(3):
        attachment.answer(1, told(1, ME, alive=True), 0.0)
    assert attachment.state is State.CLAIMING


def test_answers_to_the_question_do_not_accept_the_claim() -> None:
    attachment = claiming()
    for answer in (told(), told(1, RIVAL, alive=True), told(1), told(2, ME)):
        assert asks(attachment.answer(3, answer, 0.0)) is asks(attachment.answer(2, answer, 0.0)) is None
        assert attachment.state is State.CLAIMING


def test_what_is_not_answered_is_asked_again() -> None:
    attachment = Attachment(Claim(ME), of(3))
    attachment.connected(3, attachment.quorum, 10.0)
    assert asks(attachment.tick(10.0 + ASK_AGAIN_S - 0.01)) is None
    assert asks(attachment.tick(10.0 + ASK_AGAIN_S)) == 0
    assert asks(attachment.tick(10.0 + ASK_AGAIN_S)) is None
    attachment.answer(1, told(3), 12.0)
    attachment.answer(2, told(3), 12.0)
    assert asks(attachment.tick(12.0 + ASK_AGAIN_S)) == 4, "the same claim"
    for rank in (1, 2):
        attachment.answer(rank, told(4, ME, alive=True), 13.5)
    assert asks(attachment.tick(1000.0)) is None, "nothing is to be asked any more"


# --- others ---------------------------------------------------------------------------------------
def test_an_owner_that_is_alive_keeps_it() -> None:
    attachment = Attachment(Claim(ME), of(3))
    attachment.answer(1, told(4, RIVAL, alive=True), 0.0)
    assert attachment.state is State.ASKING, "one node's word is not heeded"
    assert asks(attachment.answer(2, told(4, RIVAL), 0.0)) is None
    assert attachment.state is State.ASKING, "it may have just left"
    assert "host b, process 7 has the disk attached, or has just detached it" in attachment.waits_for.text
    assert asks(attachment.tick(LEAVES_S)) == 0
    attachment.answer(1, told(4, RIVAL, alive=True), LEAVES_S)
    assert attachment.state is State.ASKING, "answers from before do not count"
    attachment.answer(2, told(4, RIVAL), LEAVES_S)
    assert "attached by host b, process 7, which is alive" in lost(attachment, AlreadyAttached)


def test_an_owner_that_has_just_left_is_followed() -> None:
    attachment = Attachment(Claim(ME), of(3))
    for rank in (1, 2):
        assert asks(attachment.answer(rank, told(4, RIVAL, alive=True), 0.0)) is None
    assert asks(attachment.tick(LEAVES_AGAIN_S - 0.01)) is None and asks(attachment.tick(LEAVES_AGAIN_S)) == 0
    attachment.answer(1, told(4, RIVAL), 0.3)
    assert asks(attachment.answer(2, told(4, RIVAL), 0.3)) == 5
    assert attachment.waits_for.text == ""


def test_an_owner_without_a_name_keeps_it() -> None:
    attachment = Attachment(Claim(ME), of(1))
    for now_s in (0.0, LEAVES_S):
        attachment.answer(1, told(4, NO_OWNER, alive=True), now_s)
    assert "attached by another client" in lost(attachment, AlreadyAttached)


def test_an_owner_that_is_gone_or_to_be_taken_over_does_not() -> None:
    for alive, take_over in ((False, False), (True, True)):
        attachment = Attachment(Claim(ME, take_over), of(3))
        attachment.answer(1, told(4, RIVAL, alive), 0.0)
        assert asks(attachment.answer(2, told(4, RIVAL, alive), 0.0)) == 5


def test_a_claim_that_is_crossed_is_made_anew_after_a_while() -> None:
    attachment = claiming(take_over=True)
    attachment.answer(1, told(1, ME, alive=True), 0.0)
    assert asks(attachment.answer(2, refused(Status.FENCED, 1), 0.0)) is None
    assert attachment.state is State.CLAIMING, "node 3 may accept it"
    assert asks(attachment.answer(3, refused(Status.FENCED, 1), 0.0)) is None
    assert attachment.state is State.ASKING
    assert asks(attachment.connected(3, attachment.quorum, 0.0)) is asks(attachment.tick(RETRY_S - 0.01)) is None
    for rank in (1, 2, 3):
        assert asks(attachment.answer(rank, told(), 0.0)) is None, "an answer from before"
    assert asks(attachment.tick(2 * RETRY_S)) == 0
    assert asks(attachment.answer(2, told(1, RIVAL, alive=True), 0.5)) is None
    assert asks(attachment.answer(3, told(1, RIVAL, alive=True), 0.5)) == 2
    assert asks(attachment.answer(1, told(1, ME, alive=True), 0.5)) is None, "the claim from before"
    for rank in (1, 2):
        assert attachment.state is State.CLAIMING
        attachment.answer(rank, told(2, ME, alive=True), 0.5)
    assert (attachment.state, attachment.epoch) == (State.HELD, 2)


def test_rivals_wait_for_different_times_and_longer_each_time() -> None:
    def waits(owner: bytes) -> list[float]:
        attachment = Attachment(Claim(owner), of(1))
        found, now_s = [], 0.0
        for _ in range(4):
            attachment.answer(1, told(), now_s)
            attachment.answer(1, refused(Status.FENCED, 1), now_s)
            since_s = now_s
            while asks(attachment.tick(now_s)) is None:
                now_s += 0.001
            found.append(now_s - since_s)
        return found

    mine, theirs = waits(owner_of(bytes(range(0, 160, 10)), "")), waits(owner_of(bytes(range(200, 40, -10)), ""))
    assert mine == sorted(mine) and theirs == sorted(theirs)
    assert all(abs(one - other) > 0.01 for one, other in zip(mine[:2], theirs[:2], strict=True))
    assert RETRY_S <= mine[0] and theirs[3] <= 4 * 2 * RETRY_S + 0.01


# --- nodes that cannot ----------------------------------------------------------------------------
def test_nodes_that_speak_only_the_contract_are_waited_for_and_then_it_is_refused() -> None:
    attachment, now_s = Attachment(Claim(ME), of(1)), 0.0
    while attachment.state is not State.LOST:
        assert now_s < UNSUPPORTED_S + 10
        attachment.answer(1, told(), now_s)
        attachment.answer(1, refused(Status.UNSUPPORTED), now_s)
        while attachment.state is not State.LOST and asks(attachment.tick(now_s)) is None:
            now_s += 0.01
    assert now_s > UNSUPPORTED_S
    assert "speaks only the contract" in lost(attachment, AttachRefused)


def test_a_node_that_links_to_its_peers_later_is_waited_for() -> None:
    attachment = claiming()
    attachment.answer(1, refused(Status.UNSUPPORTED), 0.0)
    attachment.answer(2, told(1, ME, alive=True), 0.0)
    assert asks(attachment.tick(1.0)) == 1, "the same claim"
    attachment.answer(1, told(1, ME, alive=True), 1.0)
    assert attachment.state is State.HELD


def test_no_epoch_is_left() -> None:
    attachment = Attachment(Claim(ME), of(1))
    assert asks(attachment.answer(1, told(MAX_EPOCH), 0.0)) is None
    assert "too often" in lost(attachment, AttachRefused)


# --- held and lost --------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", [CommandKind.ATTACH, CommandKind.PUT, CommandKind.GET])
def test_only_a_newer_epoch_ends_it(kind: CommandKind) -> None:
    attachment = held(epoch=4)
    for epoch in (0, 4, 5):
        attachment.check(refused(Status.FENCED, epoch)._replace(kind=kind))
        assert attachment.state is State.HELD
    attachment.check(Response(Status.OK, kind, 9, epoch=6))
    assert attachment.state is State.HELD, "a node that knows of a claim has not refused anything"
    attachment.check(refused(Status.FENCED, 6)._replace(kind=kind))
    assert "taken the disk over" in lost(attachment, DiskFenced)


def test_an_answer_to_attach_may_end_it() -> None:
    attachment = held()
    assert asks(attachment.answer(3, refused(Status.FENCED, 2), 0.0)) is None
    lost(attachment, DiskFenced)


def test_what_is_fenced_before_it_is_held_is_not_lost() -> None:
    attachment = claiming()
    attachment.check(refused(Status.FENCED, 9)._replace(kind=CommandKind.GET))
    assert attachment.state is State.CLAIMING


# --- tags -----------------------------------------------------------------------------------------
def test_tags_are_of_the_epoch_and_rise_with_the_clock_and_without_it(rng: random.Random) -> None:
    attachment, now_s = held(now_s=50.0, epoch=6), 50.0
    last = b""
    for _ in range(2000):
        now_s += rng.choice([0.0, 0.0, 1e-7, 1e-6, 0.02])
        tag = attachment.next_tag(now_s)
        assert tag > last
        last = tag
        ts, wr, life, epoch = unpack_tag(tag)
        assert (epoch_of(ts), wr, life, epoch) == (7, ATTACHED, 0, 7)
        assert counter_of(ts) >= int((now_s - 50.0) * 1e6)


def test_the_clock_runs_from_the_first_question_on() -> None:
    """Others can write in the epoch as soon as one node knows of it: long before the majority that holds it."""
    attachment = claiming(now_s=100.0)
    for rank in (1, 2):
        attachment.answer(rank, told(1, ME, alive=True), 160.0)
    assert counter_of(unpack_tag(attachment.next_tag(160.0)).ts) == 60_000_000


def test_a_new_claim_keeps_the_clock() -> None:
    attachment = claiming(now_s=100.0)
    assert asks(attachment.tick(103.0)) == 1
    for rank in (1, 2):
        attachment.answer(rank, refused(Status.FENCED, 1), 104.0)
    assert asks(attachment.tick(110.0)) == 0
    attachment.answer(2, told(1, RIVAL), 110.0)
    attachment.answer(3, told(1, RIVAL), 110.0)
    assert asks(attachment.tick(112.0)) == 2
    for rank in (1, 2):
        attachment.answer(rank, told(2, ME, alive=True), 113.0)
    assert counter_of(unpack_tag(attachment.next_tag(113.0)).ts) == 13_000_000


def test_the_clock_runs_while_a_majority_is_still_being_asked() -> None:
    """Epoch 5 was a rival's claim at node 1, which we cannot reach. Node 2 says that it knows of 4, and hears of 5 in
    a plain write at once: 1 and 2 complete such writes, each with one count more, until node 3 tells us of 4, too."""
    attachment = Attachment(Claim(ME), of(3))
    assert asks(attachment.connected(3, attachment.quorum, 100.0)) == 0
    assert asks(attachment.answer(2, told(4), 100.0)) is None
    assert asks(attachment.answer(3, told(4), 100.9)) == 5
    for rank in (2, 3):
        attachment.answer(rank, told(5, ME, alive=True), 100.902)
    assert counter_of(unpack_tag(attachment.next_tag(100.902)).ts) >= 900_000, "above 0.9 s of theirs"


# --- effects --------------------------------------------------------------------------------------
def test_each_change_is_told_once() -> None:
    attachment = Attachment(Claim(ME), of(3))
    assert attachment.connected(2, of(3), 0.0) == [Ask(0, 2)]
    assert attachment.answer(1, told(), 0.0) == []
    assert attachment.answer(2, told(), 0.0) == [Ask(1)]
    assert attachment.answer(1, told(1, ME, alive=True), 0.0) == []
    assert attachment.answer(2, told(1, ME, alive=True), 0.0) == [Held(1)]
    assert attachment.answer(3, told(1, ME, alive=True), 0.0) == [Knows(3)]
    assert attachment.check(refused(Status.FENCED, 1)) == [], "its own epoch"
    [lost] = attachment.check(refused(Status.FENCED, 2))
    assert isinstance(lost, Lost) and lost.error is attachment.error
    assert attachment.check(refused(Status.FENCED, 2)) == attachment.overtaken() == attachment.tick(9.0) == []


def test_what_it_waits_for_is_said_again_after_a_while() -> None:
    attachment = Attachment(Claim(ME), of(1))
    mixed = told()._replace(mixed=True)
    [said] = attachment.answer(1, mixed, 0.0)
    assert isinstance(said, WaitsFor) and "speaks only the contract" in said.text and not said.needs_help
    attachment = Attachment(Claim(ME), of(1))
    doubtful = told(70_000)._replace(believed=70_000)
    [said] = attachment.answer(1, doubtful, 0.0)
    assert isinstance(said, WaitsFor) and said.needs_help
    assert attachment.answer(1, doubtful, SAY_AGAIN_S - 0.1) == []
    assert attachment.tick(SAY_AGAIN_S) == [said]


def test_a_node_that_does_not_believe_it_is_told_again_but_not_each_time() -> None:
    attachment = held(now_s=0.0)
    assert attachment.disbelieved(3, 0.0) == [Ask(1, 3)]
    assert attachment.disbelieved(3, TELL_AGAIN_S - 0.1) == []
    assert attachment.disbelieved(2, TELL_AGAIN_S - 0.1) == [Ask(1, 2)], "of each node by itself"
    assert attachment.disbelieved(3, TELL_AGAIN_S) == [Ask(1, 3)]
