"""The client's core as scripts: an event at a time, then the effects expected."""

from __future__ import annotations

import pytest

from dsreg.client.events import (
    Completed,
    Connected,
    Disconnected,
    Drop,
    Received,
    Send,
    Start,
    Tick,
    Withdraw,
)
from dsreg.client.limits import (
    ATTEMPT_FIRST_S,
    AVOID_FIRST_S,
    GET_ATTEMPT_S,
    PROBE_S,
    RESEND_S,
    SILENCE_S,
)
from dsreg.constants import MAX_RUN_SECTORS
from dsreg.protocol.messages import Command, CommandKind, Response, Status, StatusReport, StatusRequest
from dsreg.protocol.tags import pack_tag
from tests.client.play import DATA, TAGS, Play, answered, commands, ok


# --- the two kinds of operation -------------------------------------------------------------------
def test_a_read_asks_a_majority_for_tags_and_one_of_it_for_values() -> None:
    play = Play()
    (one, first), (two, second) = commands(play.do(Start(5, 0, 2)))
    assert (one, first) == (1, Command(CommandKind.GET, first.request, 0, 2, extended=True, values=True))
    assert (two, second) == (2, first._replace(values=False))
    assert play.do(ok(second, 2)) == []
    assert play.do(ok(first, 1)) == [Completed(5, DATA * 2)]
    assert not play.core.busy
    assert (play.core.counters.quorums, play.core.counters.coordinated) == (1, 0)


def test_a_read_that_a_majority_does_not_agree_on_is_left_to_a_node() -> None:
    play = Play()
    rank, read = play.read(5, 0, 2)
    assert (rank, read) == (1, Command(CommandKind.READ, read.request, 0, 2, extended=True))
    assert play.do(ok(read, 1)) == [Completed(5, DATA * 2)]
    assert (play.core.counters.quorums, play.core.counters.coordinated) == (1, 1)


def test_a_read_is_left_to_a_node_where_no_majority_is_connected() -> None:
    play = Play(up=(3,))
    rank, command = play.sends(Start(5, 0, 1))
    assert (rank, command.kind) == (3, CommandKind.READ)
    assert play.do(ok(command, 3)) == [Completed(5, DATA)]


def test_a_read_is_left_to_a_node_when_one_of_the_majority_does_not_answer() -> None:
    play = Play()
    (_, first), _ = commands(play.do(Start(5, 0, 1)))
    assert play.do(ok(first, 1), after_s=0.1) == []
    assert play.do(Tick(), after_s=GET_ATTEMPT_S - 0.2) == []
    effects = play.do(Tick(), after_s=0.2)
    assert effects[0] == Withdraw(2, first.request)
    [(rank, read)] = commands(effects)
    assert (rank, read.kind) == (1, CommandKind.READ)
    assert play.do(ok(read, 1)) == [Completed(5, DATA)]
    assert [rank for rank, _ in commands(play.do(Start(6, 0, 1)))] == [1, 3], "2 is avoided"


def test_a_read_is_left_to_a_node_when_one_of_the_majority_goes() -> None:
    for event in (Disconnected(2), Status.STOPPING):
        play = Play()
        _, (_, second) = commands(play.do(Start(5, 0, 1)))
        effects = play.do(event if isinstance(event, Disconnected) else answered(second, 2, event))
        [(rank, read)] = commands(effects)
        assert (rank, read.kind) == (1, CommandKind.READ)


def test_a_write_stores_under_the_tags_that_it_was_named() -> None:
    play = Play()
    rank, tag = play.tag(5, 0, 2)
    assert (rank, tag) == (1, Command(CommandKind.TAG, tag.request, 0, 2, extended=True))
    rank, store = play.sends(ok(tag, 1))
    assert (rank, store) == (1, Command(CommandKind.STORE, store.request, 0, 2, TAGS * 2, DATA * 2, True))
    assert store.request != tag.request
    assert play.do(ok(store, 1)) == [Completed(5)]


def test_the_same_chunk_goes_to_the_same_node() -> None:
    play = Play()
    homes = [play.tag(n, n * 64)[0] for n in range(16)]
    assert homes == [1] * 4 + [2] * 4 + [3] * 4 + [1] * 4
    assert MAX_RUN_SECTORS == 256


# --- fail-over ----------------------------------------------------------------------------------
def test_a_broken_connection_sends_its_commands_to_the_next_node_at_once() -> None:
    play = Play()
    _, command = play.read(5)
    assert play.do(Disconnected(1)) == [Send(2, command)]
    assert play.do(ok(command, 2)) == [Completed(5, DATA)]
    assert (play.core.counters.retries, play.core.counters.failovers) == (1, 1)


def test_a_store_keeps_its_tags_wherever_it_goes() -> None:
    play = Play()
    _, tag = play.tag(5)
    _, store = play.sends(ok(tag, 1))
    assert play.do(Disconnected(1)) == [Send(2, store)]
    assert play.do(Disconnected(2)) == [Send(3, store)]
    assert play.do(Disconnected(3)) == []
    assert play.do(Connected(2)) == [Send(2, store)]
    assert play.do(ok(store, 2)) == [Completed(5)]


def test_a_stopping_node_is_not_asked_again_until_it_is_back() -> None:
    play = Play()
    _, command = play.read(5)
    assert play.do(answered(command, 1, Status.STOPPING)) == [Send(2, command)]
    assert play.read(6)[0] == 2
    play.do(Disconnected(1))
    play.do(Connected(1))
    assert play.read(7)[0] == 1


def test_without_a_node_operations_wait_in_order() -> None:
    play = Play(up=())
    assert play.do(Start(5, 0, 1)) == play.do(Start(6, 1, 1)) == []
    assert play.do(Tick(), after_s=1000) == []
    assert [(rank, command.first) for rank, command in commands(play.do(Connected(3)))] == [(3, 0), (3, 1)]


# --- hedging ------------------------------------------------------------------------------------
def test_a_late_answer_is_asked_for_elsewhere_and_the_first_one_wins() -> None:
    play = Play()
    _, command = play.read(5)
    assert play.do(Tick(), after_s=ATTEMPT_FIRST_S - 0.01) == []
    assert play.do(Tick(), after_s=0.02) == [Send(2, command)]
    assert play.do(ok(command, 1)) == [Withdraw(2, command.request), Completed(5, DATA)]
    assert play.do(ok(command, 2)) == []
    assert play.core.counters.late_answers == 1


def test_the_wait_doubles() -> None:
    play = Play()
    play.read(5)
    assert len(play.do(Tick(), after_s=1)) == 1
    assert play.do(Tick(), after_s=1.9) == []
    assert len(play.do(Tick(), after_s=0.2)) == 1


def test_a_late_tag_is_not_used() -> None:
    play = Play()
    _, tag = play.tag(5)
    assert play.sends(Tick(), after_s=1)[0] == 2
    effects = play.do(ok(tag, 2))
    assert isinstance(effects[1], Send) and effects[1].rank == 2
    assert play.do(ok(tag, 1, pack_tag(9, 1))) == []
    store = effects[1].message
    assert isinstance(store, Command) and store.tags == TAGS
    assert play.do(ok(store, 2)) == [Completed(5)]


def test_a_node_that_did_not_answer_is_tried_last_for_a_while() -> None:
    play = Play()
    _, command = play.read(5)
    play.do(Tick(), after_s=1)
    play.do(ok(command, 2))
    assert play.read(6)[0] == 2
    assert play.tag(7, 0, after_s=AVOID_FIRST_S)[0] == 1


def test_a_node_that_answers_others_is_not_avoided() -> None:
    play = Play()
    play.read(5)
    _, other = play.tag(6, 1, after_s=0.5)
    play.do(ok(other, 1))
    assert play.sends(Tick(), after_s=0.5)[0] == 2
    assert play.read(7, 2)[0] == 1


def test_a_command_lost_on_the_way_is_sent_again() -> None:
    play = Play(1, up=(1,))
    _, lost = play.tag(5)
    _, other = play.tag(6, 1, after_s=0.5)
    play.do(ok(other, 1))
    sent: list[tuple[int, Command]] = []
    while not sent:
        sent = commands(play.do(Tick(), after_s=0.5))
        assert play.now_s < 120
    assert sent == [(1, lost)]


def test_repeats_to_silent_nodes_are_few() -> None:
    play = Play(1, up=(1,))
    play.tag(5)
    repeats = 0
    for _ in range(3600):
        for effect in play.do(Tick(), after_s=1.0):
            assert isinstance(effect, Send)
            if isinstance(effect.message, StatusRequest):
                play.do(Received(1, (StatusReport(effect.message.request, b"{}"),)))
            else:
                repeats += 1
    assert 3 <= repeats <= 8
    assert RESEND_S == 30


# --- silence ------------------------------------------------------------------------------------
def test_a_silent_connection_is_asked_for_its_status_and_then_dropped() -> None:
    play = Play(1, up=(1,))
    play.tag(5)
    play.do(Tick(), after_s=1)
    [probe] = play.do(Tick(), after_s=PROBE_S - 1)
    assert isinstance(probe, Send) and isinstance(probe.message, StatusRequest)
    assert play.do(Tick(), after_s=1) == []
    assert play.do(Tick(), after_s=SILENCE_S - PROBE_S) == [Drop(1)]
    assert play.do(Disconnected(1)) == []
    assert len(play.do(Connected(1))) == 1


def test_bytes_end_the_silence() -> None:
    play = Play(1, up=(1,))
    play.tag(5)
    for _ in range(20):
        play.do(Received(1), after_s=PROBE_S - 0.1)
        effects = play.do(Tick())
        assert len(effects) == len(commands(effects))  # neither a Drop nor a question


def test_a_hung_node_is_dropped_though_others_did_its_work() -> None:
    play = Play()
    _, command = play.read(5)
    play.do(Tick(), after_s=1)
    play.do(ok(command, 2))
    assert play.core.busy
    play.do(Tick(), after_s=PROBE_S)
    assert play.do(Tick(), after_s=SILENCE_S) == [Drop(1)]
    assert not play.core.busy


def test_an_idle_connection_may_be_silent() -> None:
    play = Play()
    assert not play.core.busy
    assert play.do(Tick(), after_s=1000) == []


# --- answers that are none ------------------------------------------------------------------------
@pytest.mark.parametrize(
    "change",
    [
        {"request": 999},
        {"kind": CommandKind.STORE, "data": b""},
        {"data": DATA * 2},
        {"data": b""},
        {"tags": TAGS},  # for an attachment only
        {"extended": False},
    ],
)
def test_an_answer_that_does_not_fit_is_ignored(change: dict[str, object]) -> None:
    play = Play()
    _, command = play.read(5)
    [message] = ok(command, 1).messages
    assert isinstance(message, Response)
    assert play.do(Received(1, (message._replace(**change),))) == []  # type: ignore[arg-type]
    assert play.do(ok(command, 1)) == [Completed(5, DATA)]


def test_an_answer_counts_only_from_a_node_that_was_asked() -> None:
    play = Play()
    _, command = play.read(5)
    assert play.do(ok(command, 2)) == []
