"""The client's core where a node does not take an epoch, or has a later write than the client knows of: as scripts."""

from __future__ import annotations

import pytest

from dsreg.client.events import (
    Completed,
    Connected,
    Disconnected,
    Effect,
    Failed,
    NotAttached,
    Start,
    Tick,
    Waits,
)
from dsreg.client.limits import TELL_AGAIN_S
from dsreg.errors import DiskFenced, NotBelieved, Outcome
from dsreg.protocol.messages import CommandKind, Status
from tests.client.attached_play import OWNER, RIVAL, AttachedPlay, attach_answer, errors, gets, one, puts
from tests.client.play import DATA, Play, answered, commands, failure, ok

GET, PUT, READ, STORE, ATTACH = (
    CommandKind.GET, CommandKind.PUT, CommandKind.READ, CommandKind.STORE, CommandKind.ATTACH,
)


def kinds(effects: list[Effect]) -> list[tuple[int, CommandKind]]:
    return [(rank, command.kind) for rank, command in commands(effects)]


# --- disbelief is one node's opinion --------------------------------------------------------------
def test_a_put_that_one_node_does_not_believe_is_done_by_the_others() -> None:
    play = AttachedPlay()
    put = puts(play)[1]
    assert kinds(play.do(answered(put, 3, Status.DISBELIEVED, epoch=0))) == [(3, ATTACH)], "perhaps nobody told it"
    assert play.do(ok(put, 1)) == []
    assert play.do(ok(put, 2)) == [Completed(5)]


def test_a_read_that_one_node_does_not_believe_is_done_by_the_others() -> None:
    play = AttachedPlay()
    sent = gets(play)
    assert set(sent) == {1, 2}
    effects = play.do(answered(sent[2], 2, Status.DISBELIEVED))
    assert (1, READ) in kinds(effects)
    read = dict(commands(effects))[1]
    assert play.do(ok(read, 1))[-1] == Completed(5, DATA)
    assert set(gets(play, 6)) == {1, 3}, "it is asked last from now on"


def test_a_node_is_not_asked_again_what_it_does_not_believe_before_it_was_told_once_more() -> None:
    play = AttachedPlay(up=(1, 2))
    put = puts(play)[1]
    _, told = one(play.do(answered(put, 2, Status.DISBELIEVED))[:1])
    effects = play.do(Disconnected(1))
    assert kinds(effects) == [], "node 2 is no way to do it"
    effects = play.do(attach_answer(told, 2, 1, OWNER, True))
    assert kinds(effects) == [(2, STORE)], "and is now"


def test_who_has_the_disk_is_not_told_again_with_every_refusal() -> None:
    play = AttachedPlay()
    for operation in range(5, 15):
        put = puts(play, operation, operation * 256)[1]
        effects = play.do(answered(put, 3, Status.DISBELIEVED))
        assert kinds(effects) == ([(3, ATTACH)] if operation == 5 else [])
        for rank in (1, 2):
            effects = play.do(ok(put, rank))
        assert effects == [Completed(operation)]
    play.do(Tick(), after_s=TELL_AGAIN_S)
    put = puts(play, 20, 0)[1]
    assert kinds(play.do(answered(put, 3, Status.DISBELIEVED))) == [(3, ATTACH)]


def test_what_a_majority_does_not_believe_fails_and_certainly_did_not_happen() -> None:
    play = Play()
    _, tag = play.tag(5)
    rank, store = play.sends(ok(tag, 1))
    rank, store = play.sends(answered(store, rank, Status.DISBELIEVED))
    assert store.kind is STORE and rank != 1
    failed = failure(play.do(answered(store, rank, Status.DISBELIEVED)))
    assert isinstance(failed.error, NotBelieved) and failed.error.outcome is Outcome.DID_NOT_HAPPEN
    assert f"nodes 1, {rank} refuse its epoch or its tag" in failed.error.reason


def test_a_node_that_comes_back_may_believe_it() -> None:
    play = Play(up=(1, 2))
    _, tag = play.tag(5)
    rank, store = play.sends(ok(tag, 1))
    rank, store = play.sends(answered(store, 1, Status.DISBELIEVED))
    assert rank == 2
    assert play.do(Disconnected(2)) == [], "the other one does not take it"
    play.do(Disconnected(1))
    rank, again = play.sends(Connected(1))
    assert (rank, again) == (1, store), "it was started again"
    assert play.do(ok(again, 1)) == [Completed(5)]


# --- later writes of the same attachment ----------------------------------------------------------
@pytest.mark.parametrize("kind", [PUT, STORE])
def test_a_write_that_meets_a_later_one_of_its_own_attachment_ends_everything(kind: CommandKind) -> None:
    play = AttachedPlay()
    if kind is STORE:
        play.do(Disconnected(2))
        play.do(Disconnected(3))
    rank, command = commands(play.do(Start(5, 0, 1, DATA)))[0]
    assert command.kind is kind
    effects = play.do(answered(command, rank, Status.OVERTAKEN))
    told = next(effect for effect in effects if isinstance(effect, NotAttached))
    assert isinstance(told.error, DiskFenced) and "cloned" in told.error.reason
    assert errors(effects) == {5: (DiskFenced, Outcome.MAY_HAVE_HAPPENED)}
    assert errors(play.do(Start(6, 0, 1))) == {6: (DiskFenced, Outcome.DID_NOT_HAPPEN)}


def test_a_late_put_that_meets_a_later_one_means_nothing() -> None:
    """Node 3 has got the next write of the sector first, through another node."""
    play = AttachedPlay()
    put = puts(play)[1]
    play.do(ok(put, 1))
    assert play.do(ok(put, 2)) == [Completed(5)]
    assert play.do(answered(put, 3, Status.OVERTAKEN)) == []
    assert set(puts(play, 6)) == {1, 2, 3}


def test_a_late_store_that_meets_a_later_one_means_nothing() -> None:
    play = AttachedPlay(up=(1, 2))
    put = puts(play)[1]
    rank, store = one(play.do(answered(put, 1, Status.REFUSED)))
    other, again = one(play.do(Tick(), after_s=1.5))
    assert {rank, other} == {1, 2}
    assert Completed(5) in play.do(ok(again, other))
    assert play.do(answered(store, rank, Status.OVERTAKEN)) == []
    assert not any(isinstance(effect, Failed) for effect in play.do(Start(6, 0, 1, DATA)))


# --- what is waited for ---------------------------------------------------------------------------
def test_what_the_attaching_waits_for_is_told_once() -> None:
    play = AttachedPlay(held=False)
    bound = 70_000
    for _ in range(3):
        for rank in (1, 2):
            effects = play.do(attach_answer(play.asked[rank], rank, bound, RIVAL, believed=bound))
            told = [effect for effect in effects if isinstance(effect, Waits)]
            assert all(effect.needs_help and "attached 70000 times" in effect.text for effect in told)
            assert len(told) == (rank == 2 and play.now_s == 100.0)
        play.do(Tick(), after_s=10.0)
