"""A node names tags by its own copy alone, for a client that asks a majority itself."""

from __future__ import annotations

import pytest

from dsreg.protocol.messages import Command, CommandKind, Response, Status
from dsreg.protocol.tags import pack_tag, ts_of
from dsreg.register.effects import Effect, Persist, Reply, Reserve
from dsreg.register.execution import is_counted, uncounted
from dsreg.register.held import Held
from dsreg.register.tag_allocator import PROMISE_STEP
from tests.protocol.values import data, tags
from tests.register.play import CLIENT, RANK, RID, Play
from tests.register.settled import assert_settled


def alone(play: Play, first: int = 0, count: int = 1, request: int = 5) -> list[Effect]:
    return play.command(Command.tag(request, first, count, alone=True))


def named(effect: Effect) -> bytes:
    assert isinstance(effect, Reply) and effect.connection == CLIENT
    assert isinstance(effect.message, Response) and effect.message.status is Status.OK
    return effect.message.tags


def test_it_is_above_the_own_copy_and_promised_and_nobody_is_asked() -> None:
    play = Play(promised=2 * PROMISE_STEP)
    play.have(tags((7, 2)), data(7))
    (promise,) = alone(play, count=2)
    assert isinstance(promise, Reserve) and promise.ts >= 2 * PROMISE_STEP
    (answer,) = play.commit(promise)
    assert named(answer) == tags((2 * PROMISE_STEP + 1, RANK)) * 2, "above what was named before a restart"
    assert_settled(play.replica, 100.0)


def test_no_tag_is_named_twice() -> None:
    play = Play()
    first, second = (play.commit(*alone(play, request=request)) for request in (5, 6))
    assert named(*first) < named(*second)


def test_it_waits_for_a_write_that_may_be_about_to_choose_the_same_tag() -> None:
    play = Play()
    play.write()
    assert alone(play) == []
    (persist,) = play.value(2, RID, tags((4, 3)))
    assert isinstance(persist, Persist)
    play.commit(persist)
    _, promise = play.ack(2, RID)
    (answer,) = play.commit(promise)
    assert named(answer) > persist.tags


def test_it_does_not_wait_for_what_is_done_to_other_sectors() -> None:
    play = Play()
    play.write()
    (promise,) = alone(play, first=1)
    assert isinstance(promise, Reserve)


def test_a_node_that_has_lost_its_copy_names_nothing() -> None:
    play = Play()
    play.have(tags((3, RANK)), data(3))
    play.storage.damage(0, tag_too=True)
    refusal, *repair = alone(play)
    assert isinstance(refusal, Reply) and isinstance(refusal.message, Response)
    assert refusal.message.status is Status.REFUSED
    assert repair, "and it repairs it"


def test_it_is_of_the_epoch_in_force() -> None:
    play = Play()
    play.storage.epoch = play.replica.epochs.promised = 2
    (answer,) = alone(play)
    life = play.replica.allocator.life_in(2)
    assert named(answer) == pack_tag(ts_of(2, 0) + 1, RANK, life, 2)


@pytest.mark.parametrize("is_alone", [False, True])
def test_only_a_client_that_may_count_is_told_of_one(*, is_alone: bool) -> None:
    command = Command.tag(5, 0, 1, alone=is_alone)
    refusal = Response(Status.REFUSED, CommandKind.TAG, 5, extended=True)
    assert (is_counted(command), uncounted(command)) == ((True, refusal) if is_alone else (False, None))


@pytest.mark.parametrize("is_alone", [False, True])
def test_nothing_is_named_before_the_node_serves(*, is_alone: bool) -> None:
    """One that asks others is begun: none of them answers before they may, and nodes of the contract show themselves.
    """
    assert Held().holds(CLIENT, Command.tag(5, 0, 1, alone=is_alone)) is is_alone
