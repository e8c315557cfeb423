"""A write of a client that has not attached the disk: the tags that a majority names, as plays of its core."""

from __future__ import annotations

import pytest

from dsreg.client.events import Completed, Disconnected, Received, Send, Start, Tick, Withdraw
from dsreg.client.limits import GET_ATTEMPT_S
from dsreg.protocol.messages import Command, CommandKind, Response, Status
from dsreg.protocol.tags import pack_tag, ts_of
from tests.client.play import DATA, Play, answered, commands, ok

STORE, TAG = CommandKind.STORE, CommandKind.TAG
FIRST, SECOND = pack_tag(8, 1), pack_tag(7, 2)


def begun(play: Play, operation: int = 5, count: int = 1) -> list[tuple[int, Command]]:
    """Begin a write: the TAGs, and where they go."""
    sent = commands(play.do(Start(operation, 0, count, DATA * count)))
    assert [(command.kind, command.alone, command.data) for _, command in sent] == [(TAG, True, b"")] * 2
    return sent


@pytest.mark.parametrize("tags", [(FIRST, SECOND), (SECOND, FIRST)])
def test_it_stores_under_the_highest_that_a_majority_has_named(tags: tuple[bytes, bytes]) -> None:
    play = Play()
    (one, first), (two, second) = begun(play, count=2)
    assert (one, two) == (1, 2)
    assert play.do(ok(first, 1, tags[0])) == [], "one node has not seen what a majority has"
    rank, store = play.sends(ok(second, 2, tags[1]))
    assert (rank, store) == (1, Command.store(store.request, 0, FIRST * 2, DATA * 2))
    assert play.do(ok(store, 1)) == [Completed(5)]


def test_per_sector_where_a_node_names_several() -> None:
    play = Play()
    (_, first), (_, second) = begun(play, count=2)
    low, high = pack_tag(3, 1), pack_tag(9, 1)
    response = Response(Status.OK, TAG, first.request, low + high, extended=True)
    assert play.do(Received(1, (response,))) == []
    _, store = play.sends(ok(second, 2, SECOND))
    assert store.tags == SECOND + high


def left(play: Play, effects: list[object]) -> None:
    """One node is asked, which asks the others; the write goes on with what that names."""
    [(rank, tag)] = [(each.rank, each.message) for each in effects if isinstance(each, Send)]
    assert isinstance(tag, Command) and (tag.kind, tag.alone) == (TAG, False)
    _, store = play.sends(ok(tag, rank, FIRST))
    assert store.kind is STORE and store.tags == FIRST


@pytest.mark.parametrize("status", [Status.REFUSED, Status.STOPPING])
def test_it_is_left_to_a_node_when_one_of_the_majority_does_not_name_any(status: Status) -> None:
    play = Play()
    (_, first), (_, second) = begun(play)
    assert play.do(ok(first, 1, FIRST)) == []
    left(play, [*play.do(answered(second, 2, status))])


def test_it_is_left_to_a_node_when_one_of_the_majority_goes() -> None:
    play = Play()
    begun(play)
    left(play, [*play.do(Disconnected(2))])


def test_it_is_left_to_a_node_when_no_majority_names_any_in_time() -> None:
    play = Play()
    (_, first), _ = begun(play)
    assert play.do(ok(first, 1, FIRST)) == []
    effects = play.do(Tick(), after_s=GET_ATTEMPT_S + 0.01)
    assert effects[0] == Withdraw(2, first.request)
    left(play, [*effects])


def test_it_is_left_to_a_node_when_they_are_not_of_one_epoch() -> None:
    """A node that has not heard of an attachment knows nothing of what that has restamped."""
    play = Play()
    (_, first), (_, second) = begun(play)
    assert play.do(ok(first, 1, pack_tag(ts_of(2, 1), 1, 0, 2))) == []
    left(play, [*play.do(ok(second, 2, SECOND))])


def test_it_is_left_to_a_node_when_fewer_than_a_majority_are_connected() -> None:
    play = Play(up=(3,))
    left(play, [*play.do(Start(5, 0, 1, DATA))])
