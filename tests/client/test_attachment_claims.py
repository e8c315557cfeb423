"""Attaching where nodes doubt: clocks that are wrong, bounds that are reached, nodes that have just started; and what
is said of a claim that has failed."""

from __future__ import annotations

import pytest

from dsreg.client.attachment import (
    BOUND_AGAIN_S,
    UNSUPPORTED_S,
    UNSURE_AGAIN_S,
    Attachment,
    Claim,
    State,
)
from dsreg.client.limits import LEAVES_S
from dsreg.constants import NO_OWNER
from dsreg.errors import AlreadyAttached, AttachRefused, AuthenticationFailed, DiskFenced, Outcome
from dsreg.protocol.messages import CommandKind, Response, Status, owner_of
from dsreg.protocol.plausibility import ALWAYS_PLAUSIBLE_EPOCH
from dsreg.protocol.tags import MAX_EPOCH, counter_of, unpack_tag
from tests.client.asks import asks, of

ME, RIVAL = owner_of(b"m" * 16, "host a"), owner_of(b"r" * 16, "host b")
CLOCKLESS = ALWAYS_PLAUSIBLE_EPOCH  # what a node believes whose clock says 1970


def told(
    epoch: int = 0, owner: bytes = NO_OWNER, alive: bool = False, *, unsure: bool = False, mixed: bool = False,
    counter: int = 0, believed: int = MAX_EPOCH,
) -> Response:
    return Response(
        Status.OK, CommandKind.ATTACH, 1, b"", b"", True, epoch, alive, unsure, mixed, counter, believed, owner
    )


def refused(status: Status, epoch: int = 0) -> Response:
    return Response(status, CommandKind.ATTACH, 1, extended=True, epoch=epoch)


def claiming(epoch: int, owner: bytes = NO_OWNER, alive: bool = False) -> Attachment:
    """Of three nodes two have said that the disk is at `epoch`, and all are sent the claim of the next one."""
    attachment = Attachment(Claim(ME, take_over=True), of(3))
    assert asks(attachment.connected(3, attachment.quorum, 0.0)) == 0
    assert asks(attachment.answer(1, told(epoch, owner, alive), 0.0)) is None
    assert asks(attachment.answer(2, told(epoch, owner, alive), 0.0)) == epoch + 1
    for rank in (1, 2, 3):
        attachment.sent(rank, epoch + 1)
    return attachment


# --- a node's disbelief is its own ----------------------------------------------------------------
def test_one_node_with_a_wrong_clock_does_not_keep_the_disk_from_anybody() -> None:
    attachment = claiming(70_000)
    attachment.answer(3, refused(Status.DISBELIEVED), 0.0)
    assert attachment.state is State.CLAIMING
    for rank in (1, 2):
        attachment.answer(rank, told(70_001, ME, alive=True), 0.0)
    assert (attachment.state, attachment.epoch) == (State.HELD, 70_001)


def test_one_node_with_a_wrong_clock_and_one_that_is_down_are_waited_for() -> None:
    attachment = claiming(70_000)
    attachment.answer(1, told(70_001, ME, alive=True), 0.0)
    attachment.answer(3, refused(Status.DISBELIEVED), 0.0)
    assert attachment.state is State.CLAIMING
    assert asks(attachment.tick(1.0)) == 70_001
    attachment.answer(3, told(70_001, ME, alive=True), 1.0)
    assert attachment.state is State.HELD, "its clock was set"


def test_a_claim_that_failed_does_not_raise_the_epoch_of_the_next_try() -> None:
    attachment = claiming(70_000)
    attachment.answer(1, told(70_001, ME, alive=True), 0.0)
    for rank in (2, 3):
        attachment.answer(rank, refused(Status.DISBELIEVED), 0.0)
    assert attachment.state is State.ASKING
    assert asks(attachment.tick(5.0)) == 0
    attachment.answer(2, told(70_000), 5.0)
    assert asks(attachment.answer(1, told(70_001, ME, alive=True), 5.0)) == 70_001, "node 1 has nobody else in it"


@pytest.mark.parametrize("other", [NO_OWNER, RIVAL])
def test_an_epoch_that_may_be_anothers_is_not_claimed(other: bytes) -> None:
    attachment = Attachment(Claim(ME, take_over=True), of(5))
    attachment.answer(1, told(7, ME), 0.0)
    attachment.answer(2, told(7, other), 0.0)
    assert asks(attachment.answer(3, told(6), 0.0)) == 8


# --- nothing is claimed that cannot succeed -------------------------------------------------------
def test_a_claim_that_a_majority_would_not_believe_is_not_made_but_waited_for() -> None:
    attachment = Attachment(Claim(ME), of(3))
    attachment.answer(1, told(1_500_000, believed=1_500_000), 0.0)
    assert asks(attachment.answer(2, told(1_500_000, believed=1_500_003), 0.0)) is None
    assert attachment.state is State.ASKING and attachment.outcome is Outcome.DID_NOT_HAPPEN
    _, text, needs_help = attachment.waits_for
    assert needs_help and "attached 1500000 times" in text and "node 1 " in text and "about 64 s" in text
    assert asks(attachment.tick(BOUND_AGAIN_S - 0.1)) is None and asks(attachment.tick(BOUND_AGAIN_S)) == 0
    attachment.answer(1, told(1_500_000, believed=1_500_001), 64.0)
    assert asks(attachment.answer(2, told(1_500_000, believed=1_500_004), 64.0)) == 1_500_001
    assert attachment.waits_for.text == ""


def test_a_third_node_may_make_the_majority() -> None:
    attachment = Attachment(Claim(ME), of(3))
    attachment.answer(1, told(70_000, believed=CLOCKLESS), 0.0)
    assert asks(attachment.answer(2, told(70_000), 0.0)) is None
    assert "years behind" not in attachment.waits_for.text or "node 1" in attachment.waits_for.text
    assert asks(attachment.answer(3, told(70_000), 0.0)) == 70_001


def test_clocks_that_are_years_behind_are_told() -> None:
    attachment = Attachment(Claim(ME), of(3))
    attachment.answer(1, told(70_000, believed=CLOCKLESS), 0.0)
    attachment.answer(3, told(70_000, believed=CLOCKLESS), 0.0)
    assert "nodes 1 and 3 accept at most 65536" in attachment.waits_for.text
    assert "clocks are years behind: set them" in attachment.waits_for.text


def test_what_a_node_has_promised_already_it_takes_whatever_its_clock_says() -> None:
    attachment = Attachment(Claim(ME), of(3))
    for rank in (1, 2):
        epoch = asks(attachment.answer(rank, told(70_001, ME, believed=CLOCKLESS), 0.0))
    assert epoch == 70_001


def test_nodes_that_speak_only_the_contract_fence_nobody() -> None:
    attachment, now_s = Attachment(Claim(ME, take_over=True), of(3)), 0.0
    while attachment.state is State.ASKING:
        for rank in (1, 2):
            assert asks(attachment.answer(rank, told(3, RIVAL, True, mixed=True), now_s)) is None, "nothing is claimed"
        now_s += 1.0
    assert now_s > UNSUPPORTED_S
    assert type(attachment.error) is AttachRefused and attachment.error.outcome is Outcome.DID_NOT_HAPPEN
    assert "fenced" not in attachment.error.reason


# --- nodes that have just started -----------------------------------------------------------------
def test_nodes_that_do_not_know_yet_whether_the_owner_is_alive_are_waited_for() -> None:
    attachment = Attachment(Claim(ME), of(3))
    for rank in (1, 2):
        assert asks(attachment.answer(rank, told(4, RIVAL, unsure=True), 0.0)) is None
    assert attachment.state is State.ASKING
    text = attachment.waits_for.text
    assert "nodes 1 and 2 started a few seconds ago" in text and "host b" in text
    assert asks(attachment.tick(UNSURE_AGAIN_S - 0.1)) is None and asks(attachment.tick(UNSURE_AGAIN_S)) == 0
    attachment.answer(1, told(4, RIVAL, alive=True), 1.0)
    attachment.answer(2, told(4, RIVAL, unsure=True), 1.0)
    attachment.answer(1, told(4, RIVAL, alive=True), 1.0 + LEAVES_S)
    assert type(attachment.error) is AlreadyAttached, "it has come back"


def test_a_majority_that_knows_is_enough_and_who_takes_over_need_not_know() -> None:
    attachment = Attachment(Claim(ME), of(3))
    attachment.answer(1, told(4, RIVAL, unsure=True), 0.0)
    assert asks(attachment.answer(2, told(4, RIVAL), 0.0)) is None
    assert asks(attachment.answer(3, told(4, RIVAL), 0.0)) == 5
    attachment = Attachment(Claim(ME, take_over=True), of(3))
    attachment.answer(1, told(4, RIVAL, unsure=True), 0.0)
    assert asks(attachment.answer(2, told(4, RIVAL, unsure=True), 0.0)) == 5


# --- what is said of a claim that has failed ------------------------------------------------------
def test_a_take_over_that_failed_where_a_node_had_accepted_it_may_have_happened() -> None:
    attachment = claiming(3, RIVAL, alive=True)
    attachment.answer(1, told(4, ME, alive=True), 0.0)
    assert attachment.outcome is Outcome.MAY_HAVE_HAPPENED
    attachment.refuse(AuthenticationFailed("no node accepts the client key", Outcome.DID_NOT_HAPPEN))
    assert type(attachment.error) is AuthenticationFailed and attachment.error.outcome is Outcome.MAY_HAVE_HAPPENED
    assert "no node accepts the client key" in attachment.error.reason
    assert "host b, which had the disk attached, may be fenced already" in attachment.error.reason


def test_a_claim_without_an_answer_may_have_happened_and_one_that_all_refused_has_not() -> None:
    attachment = claiming(3, RIVAL, alive=True)
    for rank in (1, 2):
        attachment.answer(rank, refused(Status.FENCED, 4), 0.0)
        assert attachment.outcome is Outcome.MAY_HAVE_HAPPENED and "host b" in attachment.aftermath
    attachment.sent(3, 4)
    attachment = claiming(3, RIVAL, alive=True)
    for rank in (1, 3):
        attachment.answer(rank, refused(Status.STOPPING), 0.0)
    assert attachment.state is State.CLAIMING
    attachment.answer(2, refused(Status.FENCED, 9), 0.0)
    assert attachment.state is State.ASKING, "an epoch in which that node would fence it"
    assert attachment.outcome is Outcome.DID_NOT_HAPPEN and attachment.aftermath == ""


def test_a_claim_that_nobody_was_fenced_by_says_no_such_thing() -> None:
    attachment = claiming(3)
    assert attachment.outcome is Outcome.MAY_HAVE_HAPPENED and attachment.aftermath == ""


# --- copies of this client ------------------------------------------------------------------------
def held(now_s: float) -> Attachment:
    attachment = claiming(3)
    for rank in (1, 2):
        attachment.answer(rank, told(4, ME, alive=True), now_s)
    assert attachment.state is State.HELD
    return attachment


def test_a_client_that_hears_of_a_write_of_its_own_that_it_has_not_made_stops() -> None:
    attachment = held(1.0)
    counter = counter_of(unpack_tag(attachment.next_tag(2.0)).ts)
    attachment.answer(3, told(4, ME, counter=counter), 3.0)
    assert attachment.state is State.HELD, "that is its own"
    attachment.answer(3, told(4, ME, counter=counter + 1), 3.0)
    assert type(attachment.error) is DiskFenced and "restored from a snapshot" in attachment.error.reason


def test_one_that_was_put_back_to_before_it_had_the_disk_stops() -> None:
    attachment = claiming(3)
    attachment.answer(1, told(4, ME, alive=True, counter=17), 1.0)
    assert type(attachment.error) is DiskFenced
    attachment = Attachment(Claim(ME), of(3))
    attachment.answer(1, told(4, ME, counter=17), 1.0)
    assert type(attachment.error) is DiskFenced


def test_the_counter_of_another_attachment_means_nothing() -> None:
    attachment = Attachment(Claim(ME), of(3))
    for rank in (1, 2):
        epoch = asks(attachment.answer(rank, told(4, RIVAL, counter=17), 1.0))
    assert epoch == 5


def test_a_write_that_meets_a_later_one_of_its_own_ends_it() -> None:
    attachment = held(1.0)
    attachment.overtaken()
    assert type(attachment.error) is DiskFenced and attachment.error.outcome is Outcome.DID_NOT_HAPPEN


# --- what of an earlier claim, or of an earlier answer, does not count --------------------------------
def test_who_accepted_an_earlier_claim_has_not_accepted_the_next_one() -> None:
    attachment = claiming(0)
    attachment.answer(1, told(1, ME, alive=True), 0.0)
    for rank in (2, 3):
        attachment.answer(rank, refused(Status.FENCED, 1), 0.0)
    assert attachment.state is State.ASKING and asks(attachment.tick(60.0)) == 0
    assert asks(attachment.answer(2, told(1, RIVAL), 60.0)) is None
    assert asks(attachment.answer(3, told(1, RIVAL), 60.0)) == 2
    attachment.answer(3, told(2, ME, alive=True), 60.0)
    assert attachment.state is State.CLAIMING
    attachment.answer(2, told(2, ME, alive=True), 60.0)
    assert (attachment.state, attachment.epoch) == (State.HELD, 2)


def test_a_node_that_accepts_after_it_has_refused_is_no_refusal() -> None:
    attachment = claiming(70_000)
    attachment.answer(3, refused(Status.DISBELIEVED), 0.0)
    attachment.answer(3, told(70_001, ME, alive=True), 1.0)
    attachment.answer(2, refused(Status.DISBELIEVED), 1.0)
    assert attachment.state is State.CLAIMING
    attachment.answer(1, told(70_001, ME, alive=True), 1.0)
    assert attachment.state is State.HELD


def test_a_rival_has_as_many_nodes_and_the_third_is_down() -> None:
    attachment = claiming(0)
    attachment.answer(1, told(1, ME, alive=True), 0.0)
    attachment.answer(2, refused(Status.FENCED, 1), 0.0)
    assert asks(attachment.tick(0.5)) is None and attachment.state is State.CLAIMING  # the third may still answer
    assert asks(attachment.tick(1.0)) is None and attachment.state is State.ASKING
    assert asks(attachment.tick(60.0)) == 0


def test_nothing_is_claimed_while_one_of_the_majority_has_a_peer_of_the_contract() -> None:
    attachment = Attachment(Claim(ME), of(3))
    attachment.connected(3, attachment.quorum, 0.0)
    assert asks(attachment.answer(1, told(), 0.0)) is None
    assert asks(attachment.answer(2, told(mixed=True), 0.0)) is None
    assert attachment.state is State.ASKING and "speaks only the contract" in attachment.waits_for.text
    assert asks(attachment.answer(3, told(), 0.1)) == 1
