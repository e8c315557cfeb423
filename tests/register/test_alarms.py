"""Alarms, against a dict that is searched."""

from __future__ import annotations

import random

from dsreg.register.alarms import Alarms


def test_the_earliest_is_next() -> None:
    alarms = Alarms()
    assert alarms.next_due() is None and alarms.take(9.0) is None
    alarms.set(1, 5.0)
    alarms.set(2, 3.0)
    assert alarms.next_due() == 3.0 and alarms[1] == 5.0
    assert alarms.take(2.9) is None
    assert [alarms.take(5.0), alarms.take(5.0), alarms.take(5.0)] == [2, 1, None]


def test_what_is_set_again_is_due_once_whether_earlier_or_later() -> None:
    for times in ([3.0, 5.0], [5.0, 3.0], [3.0, 5.0, 4.0], [3.0, 3.0]):
        alarms = Alarms()
        for due_s in times:
            alarms.set(1, due_s)
        assert alarms.next_due() == times[-1]
        assert [alarms.take(9.0), alarms.take(9.0)] == [1, None]


def test_what_is_dropped_leaves_nothing_behind() -> None:
    alarms = Alarms()
    alarms.set(1, 3.0)
    alarms.drop(1)
    alarms.drop(2)
    assert alarms.next_due() is None and len(alarms) == 0


def test_random_sequences(rng: random.Random) -> None:
    alarms, times, now = Alarms(), dict[int, float](), 0.0
    for _ in range(20_000):
        key, due_s = rng.randrange(8), now + rng.randrange(20)
        match rng.randrange(4):
            case 0 | 1:
                alarms.set(key, due_s)
                times[key] = due_s
            case 2:
                alarms.drop(key)
                times.pop(key, None)
            case _:
                now += rng.randrange(4)
                while (taken := alarms.take(now)) is not None:
                    due_s = times.pop(taken)
                    assert due_s <= now and all(due_s <= later for later in times.values())
                assert not any(due <= now for due in times.values())
        assert alarms.next_due() == min(times.values(), default=None)
    for key in list(times):
        alarms.drop(key)
    assert alarms.next_due() is None and len(alarms) == 0
