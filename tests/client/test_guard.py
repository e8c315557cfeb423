"""A client that has not attached the disk does not write beside one that has, as plays of its core."""

from __future__ import annotations

import pytest

from dsreg.client.events import Abandon, Completed, Connected, Dropped, Effect, Received, Tick
from dsreg.client.limits import CLEARED_S, LEAVES_AGAIN_S, LEAVES_S
from dsreg.errors import AlreadyAttached, Outcome
from dsreg.protocol.messages import Command, CommandKind, Response, Status
from dsreg.protocol.tags import pack_tag, ts_of
from tests.client.attached_play import OWNER, RIVAL, attach_answer
from tests.client.play import Play, commands, failure, ok

ATTACH, STORE, TAG = CommandKind.ATTACH, CommandKind.STORE, CommandKind.TAG


def tags(epoch: int) -> bytes:
    """What a TAG names while `epoch` is in force."""
    return pack_tag(ts_of(epoch, 7), 1, 0, epoch)


def named(play: Play, operation: int, epoch: int, sector: int = 0) -> list[Effect]:
    """Begin a write; its TAG is answered."""
    rank, command = play.tag(operation, sector)
    return play.do(ok(command, rank, tags(epoch)))


def questions(effects: list[Effect]) -> dict[int, Command]:
    sent = commands(effects)
    assert {(command.kind, command.epoch) for _, command in sent} == {(ATTACH, 0)}
    return dict(sent)


def told(play: Play, asked: dict[int, Command], epoch: int, alive: bool, *ranks: int) -> list[Effect]:
    """These nodes answer the question; what the last of them leads to."""
    *first, last = ranks
    for rank in first:
        assert play.do(attach_answer(asked[rank], rank, epoch, OWNER, alive)) == []
    return play.do(attach_answer(asked[last], last, epoch, OWNER, alive))


def still_alive(play: Play, asked: dict[int, Command], epoch: int, *ranks: int) -> list[Effect]:
    """These nodes answer that the owner is alive, and say so until it cannot be one that has just left."""
    assert told(play, asked, epoch, True, *ranks) == []
    play.now_s += LEAVES_S
    return told(play, questions(play.do(Tick())), epoch, True, *ranks)


def stored(effects: list[Effect]) -> Command:
    [(_, command)] = commands(effects)
    assert command.kind is STORE
    return command


def test_a_disk_that_was_never_attached_costs_no_question() -> None:
    play = Play()
    store = stored(named(play, 5, 0))
    assert play.do(ok(store, 1)) == [Completed(5)]


def test_a_write_is_refused_while_the_owner_is_alive() -> None:
    play = Play()
    asked = questions(named(play, 5, 1))
    assert set(asked) == {1, 2, 3}
    error = failure(still_alive(play, asked, 1, 1, 3)).error
    assert isinstance(error, AlreadyAttached) and error.outcome is Outcome.DID_NOT_HAPPEN
    assert "attached by this client, which is alive" in error.reason and "force=True" in error.reason
    play.now_s += LEAVES_AGAIN_S
    # It asks anew for the next one, and does not wait again for an owner that is known to stay.
    asked = questions(named(play, 6, 1))
    assert isinstance(failure(told(play, asked, 1, True, 1, 3)).error, AlreadyAttached)
    play.now_s += LEAVES_AGAIN_S
    asked = questions(named(play, 7, 1))
    stored(told(play, asked, 1, False, 2, 3))


def test_an_owner_that_has_just_left_holds_a_write_back_for_a_moment() -> None:
    play = Play()
    assert told(play, questions(named(play, 5, 1)), 1, True, 1, 3) == []
    assert play.do(Tick()) == [], "it is not asked for without a pause"
    play.now_s += LEAVES_AGAIN_S
    asked = questions(play.do(Tick()))
    stored(told(play, asked, 1, False, 1, 3))


def test_an_attachment_that_comes_later_is_noticed_by_the_next_write() -> None:
    play = Play()
    for operation, epoch in ((5, 0), (6, 3)):
        effects = named(play, operation, epoch)
        if not epoch:
            play.do(ok(stored(effects), 1))
    assert isinstance(failure(still_alive(play, questions(effects), 3, 1, 2)).error, AlreadyAttached)


def test_the_answer_holds_for_a_moment_and_for_its_epoch() -> None:
    play = Play()
    play.do(ok(stored(told(play, questions(named(play, 5, 2)), 2, False, 1, 2)), 1))
    for operation in (6, 7):
        play.do(ok(stored(named(play, operation, 2)), 1))
    questions(named(play, 8, 3, sector=1))  # attached since
    play = Play()
    play.do(ok(stored(told(play, questions(named(play, 5, 2)), 2, False, 1, 2)), 1))
    play.now_s += CLEARED_S
    questions(named(play, 6, 2))  # the owner may be back


def test_one_question_serves_all_that_wait() -> None:
    play = Play()
    asked = questions(named(play, 5, 1))
    assert named(play, 6, 1, sector=1) == []
    assert len(commands(told(play, asked, 1, False, 1, 2))) == 2


def test_an_answer_about_an_older_epoch_is_none() -> None:
    """The question was under way when the disk was attached: it is asked again."""
    play = Play()
    asked = questions(named(play, 5, 1))
    assert named(play, 6, 2, sector=1) == []
    effects = commands(told(play, asked, 1, False, 1, 2))
    assert [command.kind for _, command in effects] == [STORE, ATTACH, ATTACH, ATTACH]


def test_force_asks_nobody() -> None:
    play = Play()
    rank, command = play.tag(5, force=True)
    stored(play.do(ok(command, rank, tags(1))))


def test_a_node_that_has_missed_the_take_over_says_nothing_of_it() -> None:
    play = Play()
    asked = questions(named(play, 5, 2))
    assert play.do(attach_answer(asked[1], 1, 1, RIVAL, True)) == []
    stored(play.do(attach_answer(asked[2], 2, 2, OWNER, False)))


@pytest.mark.parametrize("status", [Status.STOPPING, Status.REFUSED])
def test_it_is_asked_again_until_a_majority_knows(status: Status) -> None:
    play = Play(up=(1, 2))
    asked = questions(named(play, 5, 1))
    assert play.do(attach_answer(asked[1], 1, 1, OWNER, False)) == []
    refused = Response(status, ATTACH, asked[2].request, b"", b"", True)
    assert play.do(Received(2, (refused,))) == []
    assert play.do(Tick(), 0.5) == [] and play.do(Connected(3)) == []
    again = questions(play.do(Tick(), 0.6))
    assert set(again) == {1, 2, 3}
    assert play.do(attach_answer(asked[2], 2, 1, OWNER, True)) == [], "to the first question"
    stored(told(play, again, 1, False, 2, 3))


def test_a_write_that_was_given_up_is_over() -> None:
    play = Play()
    asked = questions(named(play, 5, 1))
    assert play.do(Abandon(5)) == [Dropped(5)] and not play.core.busy
    assert told(play, asked, 1, True, 1, 2) == []


def test_a_node_that_has_just_started_cannot_say_that_nobody_has_it() -> None:
    """The owner has not reconnected to it yet."""
    play = Play(up=(1, 2, 3))
    asked = questions(named(play, 5, 1))
    for rank in (1, 2):
        answer = Response(Status.OK, ATTACH, asked[rank].request, b"", b"", True, 1, False, unsure=True, owner=OWNER)
        assert play.do(Received(rank, (answer,))) == []
    assert play.do(attach_answer(asked[3], 3, 1, OWNER, False)) == []
    again = questions(play.do(Tick(), 1.1))
    assert isinstance(failure(still_alive(play, again, 1, 1, 2)).error, AlreadyAttached)
