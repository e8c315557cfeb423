"""The client's core with the disk attached, as scripts: PUT, what it falls back on, what fencing ends."""

from __future__ import annotations

import pytest

from dsreg.client.attachment import ASK_AGAIN_S
from dsreg.client.events import (
    Abandon,
    Attached,
    Close,
    Completed,
    Connected,
    Disconnected,
    Drop,
    Dropped,
    Failed,
    KeyRefused,
    NotAttached,
    Received,
    Start,
    Tick,
    Waits,
    Withdraw,
)
from dsreg.client.limits import GET_ATTEMPT_S, LEAVES_S, MAX_LAGGING, MAX_REFUSALS, PROBE_S, PUT_ATTEMPT_S, SILENCE_S
from dsreg.errors import AlreadyAttached, AuthenticationFailed, Outcome, OutOfRange
from dsreg.protocol.messages import CommandKind, Response, Status
from dsreg.protocol.tags import ATTACHED, pack_tag, restamped, ts_of, unpack_tag
from tests.client.attached_play import OWNER, RIVAL, AttachedPlay, attach_answer, errors, gets, one, puts
from tests.client.play import DATA, answered, commands, failure, ok

GET, PUT, READ, STORE = CommandKind.GET, CommandKind.PUT, CommandKind.READ, CommandKind.STORE
MINE, LEFT = pack_tag(ts_of(1, 5), ATTACHED, 0, 1), pack_tag(5, 2)


# --- attaching ------------------------------------------------------------------------------------
def test_operations_wait_until_it_is_attached() -> None:
    play = AttachedPlay(held=False)
    assert play.do(Start(5, 0, 1, DATA)) == play.do(Start(6, 256, 1)) == []
    attached, *sent = play.attach()
    assert attached == Attached(1)
    assert [(rank, command.kind, command.epoch) for rank, command in commands(sent)] == [
        (1, PUT, 1), (2, PUT, 1), (3, PUT, 1), (2, GET, 1), (3, GET, 1),
    ]


def test_no_ticks_are_needed_once_it_is_attached() -> None:
    play = AttachedPlay(held=False)
    assert play.core.busy
    play.attach()
    assert not play.core.busy


def test_a_question_that_is_lost_is_asked_again() -> None:
    play = AttachedPlay(held=False)
    assert play.do(Tick(), after_s=ASK_AGAIN_S / 2) == []
    again = commands(play.do(Tick(), after_s=ASK_AGAIN_S))
    assert [(rank, command.kind, command.epoch) for rank, command in again] == [
        (rank, CommandKind.ATTACH, 0) for rank in (1, 2, 3)
    ]


def test_a_node_that_comes_later_is_told_who_has_it() -> None:
    play = AttachedPlay(up=(1, 2))
    rank, claim = play.sends(Connected(3))
    assert (rank, claim.kind, claim.epoch, claim.owner) == (3, CommandKind.ATTACH, 1, OWNER)
    assert play.do(attach_answer(claim, 3, 1, OWNER, True)) == []
    assert set(puts(play)) == {1, 2, 3}


def test_a_disk_that_somebody_has_fails_what_waits_and_what_comes() -> None:
    play = AttachedPlay(held=False)
    play.do(Start(5, 0, 1, DATA))
    play.do(attach_answer(play.asked[1], 1, 3, RIVAL, True))
    [waits] = play.do(attach_answer(play.asked[2], 2, 3, RIVAL, True))
    assert isinstance(waits, Waits) and not waits.needs_help
    play.now_s += LEAVES_S
    asked = dict(commands(play.do(Tick())))
    play.do(attach_answer(asked[1], 1, 3, RIVAL, True))
    effects = play.do(attach_answer(asked[2], 2, 3, RIVAL, True))
    assert isinstance(effects[0], NotAttached) and "the other client" in effects[0].error.reason
    assert errors(effects) == {5: (AlreadyAttached, Outcome.DID_NOT_HAPPEN)}
    assert errors(play.do(Start(6, 0, 1))) == {6: (AlreadyAttached, Outcome.DID_NOT_HAPPEN)}
    assert not play.core.busy
    assert play.do(Disconnected(1)) == play.do(Connected(1)) == []


def test_nodes_that_do_not_accept_the_key_end_it() -> None:
    play = AttachedPlay(up=())
    assert play.do(KeyRefused(1)) == play.do(Disconnected(2)) == []
    [told] = play.do(Disconnected(3))
    assert isinstance(told, NotAttached) and isinstance(told.error, AuthenticationFailed)
    assert not play.core.busy


def test_a_majority_is_one_of_the_nodes_that_there_are() -> None:
    """The configuration has three nodes, and the first one that answers says that the cluster is of five."""
    play = AttachedPlay(up=())
    first = play.sends(Connected(1, 5))[1]
    others = {rank: play.sends(Connected(rank, 5))[1] for rank in (2, 3)}
    assert play.do(attach_answer(first, 1)) == play.do(attach_answer(others[2], 2)) == []
    claims = dict(commands(play.do(attach_answer(others[3], 3))))
    for rank in (1, 2):
        assert play.do(attach_answer(claims[rank], rank, 1, OWNER, True)) == []
    assert play.do(attach_answer(claims[3], 3, 1, OWNER, True)) == [Attached(1)]
    sent = puts(play)
    assert play.do(ok(sent[1], 1)) == play.do(ok(sent[2], 2)) == []
    assert play.do(ok(sent[3], 3)) == [Completed(5)]
    play.do(Disconnected(3))
    assert play.sends(Start(6, 0, 1, DATA))[1].kind is STORE, "two of five are no majority"
    assert play.sends(Start(7, 256, 1))[1].kind is READ


# --- PUT ------------------------------------------------------------------------------------------
def test_a_write_is_put_at_all_nodes_and_done_at_a_majority() -> None:
    play = AttachedPlay()
    sent = puts(play, count=2)
    command = sent[1]
    assert (command.first, command.count, command.data, command.epoch) == (0, 2, DATA * 2, 1)
    assert command.tags[:16] == command.tags[16:]
    tag = unpack_tag(command.tags[:16])
    assert (tag.wr, tag.life, tag.epoch, tag.ts >> 56) == (ATTACHED, 0, 1, 1)
    assert play.core.outcome(5) is Outcome.MAY_HAVE_HAPPENED
    assert play.do(ok(command, 2)) == []
    assert play.do(ok(command, 3)) == [Completed(5)]
    assert (play.core.counters.quorums, play.core.counters.coordinated) == (1, 0)


def test_a_node_that_is_behind_gets_the_put_all_the_same() -> None:
    play = AttachedPlay()
    sent = puts(play)
    play.do(ok(sent[1], 1))
    assert play.do(ok(sent[2], 2)) == [Completed(5)], "nothing is withdrawn"
    assert play.do(ok(sent[3], 3)) == []
    assert play.core.counters.late_answers == 0
    assert not play.core.busy


def test_a_node_that_is_too_far_behind_is_spared_the_oldest() -> None:
    play = AttachedPlay()
    oldest = command = puts(play)[1]
    for operation in range(6, 6 + MAX_LAGGING):
        for rank in (1, 2):
            play.do(ok(command, rank))
        command = puts(play, operation)[1]
    play.do(ok(command, 1))
    assert play.do(ok(command, 2)) == [Withdraw(3, oldest.request), Completed(operation)]


def test_a_node_that_was_spared_writes_is_asked_to_compare_its_copy_when_it_answers_again() -> None:
    """By being told of the attachment once more."""
    play = AttachedPlay()
    command = puts(play)[1]
    late = []
    for operation in range(6, 6 + MAX_LAGGING + 1):
        late.append(command)
        for rank in (1, 2):
            play.do(ok(command, rank))
        command = puts(play, operation)[1]
    [(rank, again)] = commands(play.do(ok(late[1], 3)))
    assert (rank, again.kind, again.epoch) == (3, CommandKind.ATTACH, 1)
    assert play.do(attach_answer(again, 3, 1, OWNER, True)) == []
    for each in late[2:]:
        assert play.do(ok(each, 3)) == [], "once is enough"


def test_a_node_that_is_behind_and_silent_is_dropped() -> None:
    play = AttachedPlay()
    sent = puts(play)
    play.do(ok(sent[1], 1))
    play.do(ok(sent[2], 2))
    assert play.core.busy
    play.do(Tick(), after_s=PROBE_S)
    assert play.do(Tick(), after_s=SILENCE_S) == [Drop(3)]
    assert not play.core.busy


def test_tags_rise_from_write_to_write() -> None:
    play = AttachedPlay()
    tags = [puts(play, operation, operation * 256)[1].tags for operation in range(1, 20)]
    assert tags == sorted(set(tags))


def test_with_no_majority_connected_a_node_is_left_to_store_it() -> None:
    play = AttachedPlay()
    play.do(Disconnected(1))
    play.do(Disconnected(3))
    rank, store = play.sends(Start(5, 0, 1, DATA))
    assert (rank, store.kind, store.epoch, store.data) == (2, STORE, 1, DATA)
    assert unpack_tag(store.tags).wr == ATTACHED
    assert play.do(ok(store, 2)) == [Completed(5)]


@pytest.mark.parametrize("how", ["gone", "stopping", "no answer"])
def test_a_put_that_no_majority_answers_is_stored_under_the_same_tag(how: str) -> None:
    play = AttachedPlay(up=(1, 2))
    put = puts(play)[1]
    assert play.do(ok(put, 1)) == []
    if how == "gone":
        effects = play.do(Disconnected(2))
    elif how == "stopping":
        effects = play.do(answered(put, 2, Status.STOPPING))
    else:
        assert play.do(Tick(), after_s=PUT_ATTEMPT_S - 0.1) == []
        effects = play.do(Tick(), after_s=0.2)
    rank, store = one(effects)
    assert (rank, store) == (1, put._replace(kind=STORE, request=store.request))
    assert play.core.outcome(5) is Outcome.MAY_HAVE_HAPPENED
    assert play.do(ok(store, 1))[-1] == Completed(5)


def test_one_node_that_hangs_or_goes_costs_nothing() -> None:
    play = AttachedPlay()
    sent = puts(play)
    assert play.do(Disconnected(3)) == []
    play.do(ok(sent[1], 1))
    assert play.do(ok(sent[2], 2)) == [Completed(5)]


def test_damaged_puts_are_left_to_a_node_and_end_as_any_other_command() -> None:
    play = AttachedPlay(up=(1, 2))
    put = puts(play)[1]
    rank, store = one(play.do(answered(put, 1, Status.AUTH_FAILURE)))
    assert store.kind is STORE
    for _ in range(MAX_REFUSALS):
        effects = play.do(answered(store, rank, Status.AUTH_FAILURE))
        rank, again = one(effects)
        assert again == store
    failed = failure(play.do(answered(store, rank, Status.AUTH_FAILURE)))
    assert isinstance(failed.error, AuthenticationFailed)


def test_a_sector_that_a_node_does_not_have() -> None:
    play = AttachedPlay()
    put = puts(play)[1]
    failed = [effect for effect in play.do(answered(put, 1, Status.INVALID_SECTOR_INDEX)) if isinstance(effect, Failed)]
    assert isinstance(failed[0].error, OutOfRange)
    assert failed[0].error.outcome is Outcome.MAY_HAVE_HAPPENED, "others may have stored it"


# --- giving up ------------------------------------------------------------------------------------
def test_an_abandoned_put_runs_to_its_end() -> None:
    play = AttachedPlay()
    sent = puts(play)
    assert play.do(Abandon(5)) == []
    play.do(ok(sent[1], 1))
    assert play.do(ok(sent[3], 3)) == [Completed(5)]


def test_an_abandoned_read_that_has_decided_what_to_raise_runs_to_its_end() -> None:
    """Its STORE may be slow. A later read that met other nodes, decided on something older, and returned that, would be
    followed by one that finds what this one has restamped."""
    play = AttachedPlay()
    sent = gets(play)
    play.do(ok(sent[1], 1, MINE))
    _, read = one(play.do(ok(sent[2], 2, LEFT)))
    assert read.kind is READ
    message = Response(Status.OK, READ, read.request, LEFT, DATA, True, 1)
    rank, store = one(play.do(Received(1, (message,))))
    assert (store.kind, store.tags) == (STORE, restamped(LEFT, 1))
    assert play.core.outcome(5) is Outcome.DID_NOT_HAPPEN
    assert play.do(Abandon(5)) == []
    assert play.do(ok(store, rank)) == [Completed(5, DATA)]


def test_a_put_that_all_refused_did_not_happen() -> None:
    play = AttachedPlay(up=(1, 2))
    put = puts(play)[1]
    _, store = one(play.do(answered(put, 1, Status.STOPPING)))
    assert play.core.outcome(5) is Outcome.MAY_HAVE_HAPPENED, "the other one may have it"
    assert play.do(answered(store, 2, Status.STOPPING)) == []
    assert play.core.outcome(5) is Outcome.MAY_HAVE_HAPPENED


def test_what_waits_for_the_attachment_can_be_abandoned() -> None:
    play = AttachedPlay(held=False)
    play.do(Start(5, 0, 1, DATA))
    assert play.do(Abandon(5)) == [Dropped(5)]
    assert play.attach() == [Attached(1)]


def test_closing_says_that_a_put_may_have_happened() -> None:
    play = AttachedPlay()
    puts(play)
    gets(play, 6)
    outcomes = {operation: outcome for operation, (_, outcome) in errors(play.do(Close())).items()}
    assert outcomes == {5: Outcome.MAY_HAVE_HAPPENED, 6: Outcome.DID_NOT_HAPPEN}


# --- reading --------------------------------------------------------------------------------------
def test_a_read_of_what_this_attachment_has_stored_takes_a_majority() -> None:
    play = AttachedPlay()
    sent = gets(play)
    assert [(rank, command.values, command.epoch) for rank, command in sent.items()] == [(1, True, 1), (2, False, 1)]
    play.do(ok(sent[1], 1, MINE))
    assert play.do(ok(sent[2], 2, MINE)) == [Completed(5, DATA)]


def test_what_differs_is_left_to_a_node_with_the_epoch() -> None:
    play = AttachedPlay()
    sent = gets(play)
    play.do(ok(sent[1], 1, MINE))
    rank, read = one(play.do(ok(sent[2], 2, LEFT)))
    assert (rank, read.kind, read.epoch) == (1, READ, 1)
    assert play.do(ok(read, 1)) == [Completed(5, DATA)]


def test_what_is_older_than_the_attachment_is_asked_of_all() -> None:
    play = AttachedPlay()
    sent = gets(play)
    play.do(ok(sent[1], 1, LEFT))
    rank, third = one(play.do(ok(sent[2], 2, LEFT)))
    assert (rank, third.kind, third.values) == (3, GET, False)
    assert play.do(ok(third, 3, LEFT)) == [Completed(5, DATA)]
    sent = gets(play, 6)
    assert set(sent) == {1, 2, 3}, "the next one is probably like it"
    play.do(ok(sent[1], 1, MINE))
    assert play.do(ok(sent[2], 2, MINE)) == [Withdraw(3, sent[3].request), Completed(6, DATA)]
    assert set(gets(play, 7)) == {1, 2}


@pytest.mark.parametrize("late", [False, True])
def test_what_is_older_than_the_attachment_is_left_to_a_node_if_not_all_answer(late: bool) -> None:
    play = AttachedPlay(up=(1, 2, 3) if late else (1, 2))
    sent = gets(play)
    play.do(ok(sent[1], 1, LEFT))
    effects = play.do(ok(sent[2], 2, LEFT))
    if late:
        effects = play.do(Tick(), after_s=GET_ATTEMPT_S + 0.1)
    rank, read = one(effects)
    assert (read.kind, read.epoch) == (READ, 1)
