"""What the client knows of nodes that have no room, as plays of its core."""

from __future__ import annotations

import json

import pytest

from dsreg.client.events import Completed, Effect, Received, Send, Start, Tick
from dsreg.client.limits import FULL_S
from dsreg.protocol.messages import Command, CommandKind, Status, StatusReport, StatusRequest
from tests.client.attached_play import AttachedPlay
from tests.client.play import DATA, Play, answered, commands, ok

STORE, PUT = CommandKind.STORE, CommandKind.PUT


def obstacle(play: Play) -> tuple[str, bool]:
    return play.core.obstacle(play.now_s)


def puts(play: Play, operation: int) -> dict[int, Command]:
    sent = dict(commands(play.do(Start(operation, 0, 1, DATA))))
    assert {command.kind for command in sent.values()} == {PUT}
    return sent


def status(play: Play, effects: list[Effect], rank: int, **report: object) -> list[Effect]:
    """The node answers the question for its status."""
    *_, request = [effect.message for effect in effects if isinstance(effect, Send) and effect.rank == rank
                 and isinstance(effect.message, StatusRequest)]
    return play.do(Received(rank, (StatusReport(request.request, json.dumps(report).encode()),)))


def test_a_full_minority_is_in_nobodys_way() -> None:
    play = AttachedPlay()
    sent = puts(play, 5)
    assert play.do(answered(sent[1], 1, Status.NO_SPACE)) == []
    assert play.do(ok(sent[2], 2)) == [] and obstacle(play) == ("", False)
    assert Completed(5) in play.do(ok(sent[3], 3))


def test_a_full_majority_is_said() -> None:
    play = AttachedPlay()
    sent = puts(play, 5)
    play.do(answered(sent[1], 1, Status.NO_SPACE))
    rank, store = commands(play.do(answered(sent[3], 3, Status.NO_SPACE)))[0]
    assert store.kind is STORE and rank == 1
    text, is_full = obstacle(play)
    assert is_full and "no space: the nodes 1, 3 have no room for new data" in text
    play.now_s += FULL_S
    assert obstacle(play) == ("", False), "that was long ago"


def test_a_refusal_for_another_reason_is_no_want_of_room() -> None:
    play = AttachedPlay()
    sent = puts(play, 5)
    for rank in (1, 3):
        play.do(answered(sent[rank], rank, Status.REFUSED))
    assert obstacle(play) == ("", False)


def test_a_late_answer_counts_too() -> None:
    play = AttachedPlay()
    sent = puts(play, 5)
    play.do(ok(sent[1], 1))
    assert Completed(5) in play.do(ok(sent[2], 2))
    play.do(answered(sent[3], 3, Status.NO_SPACE))
    sent = puts(play, 6)
    play.do(answered(sent[2], 2, Status.NO_SPACE))
    assert "the nodes 2, 3 have no room" in obstacle(play)[0]


@pytest.mark.parametrize(("report", "is_full"), [({"no_space": False}, False), ({}, True), ({"no_space": "no"}, True)])
def test_nodes_are_asked_while_a_store_waits(report: dict[str, object], is_full: bool) -> None:
    """A write without an attachment: the node that has the STORE asks the others, and answers nothing."""
    play = Play()
    rank, tag = play.tag(5)
    play.do(ok(tag, rank))
    effects = play.do(Tick(), 1.1)
    for told in (1, 2):
        assert status(play, effects, told, no_space=True) == []
    assert obstacle(play)[1]
    effects = play.do(Tick(), 2.0)
    for told in (1, 2):
        status(play, effects, told, **report)
    assert obstacle(play)[1] is is_full
    play.now_s += FULL_S
    assert not obstacle(play)[1]


def test_too_few_nodes_are_said_as_such() -> None:
    play = Play(up=(2,))
    assert obstacle(play) == ("no majority: 1 of 3 nodes are connected, 2 are needed", False)
