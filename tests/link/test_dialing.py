"""When a peer is connected to again, and when it is greeted again."""

from __future__ import annotations

from dsreg.link.dialing import (
    GREET_AGAIN_S,
    GREET_GAP_S,
    GREETING_FIRST_S,
    GREETING_S,
    RECONNECT_FIRST_S,
    RECONNECT_MAX_S,
    GreetingTimes,
    Patience,
    Pauses,
)


def test_attempts_that_fail_come_at_growing_intervals() -> None:
    pauses = Pauses()
    taken = [pauses.failed() for _ in range(8)]
    assert taken == [0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0]


def test_a_connection_that_lasted_is_made_anew_at_once() -> None:
    pauses = Pauses()
    for _ in range(5):
        pauses.failed()
    assert pauses.ended(RECONNECT_MAX_S, was_of_use=False) == 0.0
    assert pauses.failed() == RECONNECT_FIRST_S


def test_a_connection_that_ends_at_once_and_brought_nothing_is_as_one_that_failed() -> None:
    pauses = Pauses()
    taken = [pauses.ended(0.001, was_of_use=False) for _ in range(6)]
    assert taken == [0.05, 0.1, 0.2, 0.4, 0.8, 1.0]


def test_connections_that_break_soon_but_bring_something_are_made_anew_soon() -> None:
    pauses = Pauses()
    assert [pauses.ended(0.01, was_of_use=True) for _ in range(10)] == [RECONNECT_FIRST_S] * 10


def test_who_speaks_the_contract_is_greeted_again_after_long_whatever_its_connections_do() -> None:
    times = GreetingTimes()
    times.unanswered(100.0, speaks_contract=True)
    assert times.next_s(relinked=False) == times.next_s(relinked=True) == 100.0 + GREET_AGAIN_S


def test_who_said_nothing_is_greeted_on_its_next_connection_but_less_and_less_often() -> None:
    times = GreetingTimes()
    now, gaps = 0.0, []
    for _ in range(9):
        times.unanswered(now, speaks_contract=False)
        assert times.next_s(relinked=False) == now + GREET_AGAIN_S
        gaps.append(times.next_s(relinked=True) - now)
        now = times.next_s(relinked=True)
    assert gaps == [GREET_GAP_S, 1.0, 2.0, 4.0, 8.0, 16.0, GREET_AGAIN_S, GREET_AGAIN_S, GREET_AGAIN_S]


def test_a_greeting_that_was_damaged_or_cut_off_is_tried_again_soon() -> None:
    times = GreetingTimes()
    for now, gap_s in ((10.0, GREET_GAP_S), (20.0, 1.0), (30.0, 2.0)):
        times.failed(now)
        assert times.next_s(relinked=False) == times.next_s(relinked=True) == now + gap_s


def test_patience_grows_with_silence_and_ends_with_an_answer() -> None:
    patience = Patience()
    taken = []
    for _ in range(5):
        taken.append(patience.seconds)
        patience.silent()
    assert taken == [GREETING_FIRST_S, 0.5, 1.0, GREETING_S, GREETING_S]
    patience.answered()
    assert patience.seconds == GREETING_FIRST_S
