"""The checker: against brute force, on histories known from the literature, and its speed."""

from __future__ import annotations

import os
import random
import time

import pytest

from tests.simulation.brute_force import is_linearizable, random_history
from tests.simulation.checker import INITIAL, OPEN, ZEROED, Fault, Operation, check

# How many random histories to compare on. 100000 take some ten seconds.
HISTORIES_VARIABLE = "DSREG_CHECKER_HISTORIES"


def write(value: int, start: float, end: float = OPEN, crashed: float = OPEN) -> Operation:
    return Operation(7, True, value, start, end, crashed)


def read(value: int, start: float, end: float) -> Operation:
    return Operation(7, False, value, start, end)


def test_agrees_with_brute_force(rng: random.Random) -> None:
    number = int(os.environ.get(HISTORIES_VARIABLE, "20000"))
    good = {False: 0, True: 0}
    for index in range(number):
        history = random_history(rng)
        strict = index % 2 == 1
        expected = is_linearizable(history, strict=strict)
        found = check(history, strict=strict)
        assert expected == (not found), "\n".join(map(str, [f"strict={strict}", *history, *found]))
        good[strict] += expected
    # The test says little if nearly all histories are of one kind.
    for count in good.values():
        assert 0.25 < count / (number / 2) < 0.75, good


def with_zeros(history: list[Operation], rng: random.Random) -> list[Operation]:
    """The same, with some of the writes as ones of zeros."""
    zeroed = {operation.value for operation in history if operation.is_write and rng.random() < 0.4}

    def changed(operation: Operation) -> Operation:
        if operation.value not in zeroed:
            return operation
        return operation._replace(value=ZEROED + operation.value if operation.is_write else INITIAL)

    return [changed(operation) for operation in history]


def test_zeros_are_never_found_wrong_that_are_not(rng: random.Random) -> None:
    wrong = found = 0
    for index in range(int(os.environ.get(HISTORIES_VARIABLE, "20000"))):
        history, strict = with_zeros(random_history(rng), rng), index % 2 == 1
        is_wrong, violations = not is_linearizable(history, strict=strict), check(history, strict=strict)
        assert is_wrong or not violations, "\n".join(map(str, [f"strict={strict}", *history, *violations]))
        wrong += is_wrong
        found += bool(violations)
    assert found > 0.9 * wrong > 0, "and most of those that are"


@pytest.mark.parametrize(
    ("history", "fault"),
    [
        ([write(1, 0, 1), write(ZEROED, 2, 3), read(0, 4, 5)], None),
        ([write(1, 0, 1), write(ZEROED, 2, 3), read(1, 4, 5)], Fault.OVERWRITTEN),
        ([write(ZEROED, 0, 1), write(1, 2, 3), read(0, 4, 5)], Fault.OVERWRITTEN),
        ([write(1, 0, 1), write(ZEROED, 2), read(0, 4, 5), read(1, 6, 7)], Fault.OVERWRITTEN),
        ([write(1, 0, 1), write(ZEROED, 2), read(1, 4, 5), read(0, 6, 7)], None),
        ([write(1, 0, 1), write(ZEROED, 2, 3), write(ZEROED + 1, 2, 9), read(1, 4, 5)], Fault.OVERWRITTEN),
        ([write(1, 0, 1), read(0, 2, 3)], Fault.OVERWRITTEN),
        ([write(1, 0, 1), write(ZEROED, 4, 5), read(0, 2, 3)], Fault.OVERWRITTEN),
        ([write(1, 0, 1), write(ZEROED, 2, 3), write(2, 4, 5), write(ZEROED + 1, 6, 7), read(0, 8, 9)], None),
        ([write(1, 0, 1), write(ZEROED, 2, 3), write(2, 4, 5), write(ZEROED + 1, 6), read(0, 8, 9), read(2, 10, 11)],
         Fault.OVERWRITTEN),
    ],
)
def test_zeros(history: list[Operation], fault: Fault | None) -> None:
    assert is_linearizable(history) == (fault is None)
    assert [violation.fault for violation in check(history)] == ([fault] if fault else [])


@pytest.mark.parametrize(
    ("history", "fault"),
    [
        ([write(1, 0, 1), read(1, 2, 3)], None),
        ([write(1, 0, 1), read(0, 2, 3)], Fault.OVERWRITTEN),
        ([write(1, 0, 1), read(2, 2, 3)], Fault.NEVER_WRITTEN),
        ([write(1, 2, 3), read(1, 0, 1)], Fault.FROM_THE_FUTURE),
        ([write(1, 0, 9), write(1, 2, 3)], Fault.WRITTEN_TWICE),
        ([write(0, 0, 1)], Fault.WRITTEN_TWICE),
        # New, then old, while the write is under way: the anomaly that the write-back is there for.
        ([write(1, 0, 9), read(1, 1, 2), read(0, 3, 4)], Fault.OVERWRITTEN),
        ([write(1, 0, 9), read(0, 1, 2), read(1, 3, 4)], None),
        # The value of a write that was overwritten comes back.
        ([write(1, 0, 1), write(2, 2, 3), read(1, 4, 5)], Fault.OVERWRITTEN),
        ([write(1, 0, 1), write(2, 2), read(1, 4, 5)], None),
        ([write(1, 0, 1), write(2, 2), read(2, 4, 5), read(1, 6, 7)], Fault.OVERWRITTEN),
        # Two held values that cross.
        ([write(1, 0, 10), write(2, 0, 10), read(1, 11, 12), read(2, 13, 14), read(1, 15, 16)], Fault.OVERLAP),
        # Touching in one moment is overlapping in time, so either order will do.
        ([write(1, 0, 1), write(2, 1, 2), read(1, 2, 3)], None),
        # What was never finished and never read may never have been.
        ([write(1, 0, 1), write(2, 2), read(1, 100, 101)], None),
    ],
)
def test_known_histories(history: list[Operation], fault: Fault | None) -> None:
    assert [violation.fault for violation in check(history)] == ([] if fault is None else [fault])


def test_strict_closes_a_write_when_its_client_crashes() -> None:
    late = [write(1, 0, 1), write(2, 2, OPEN, 3), read(1, 4, 5), read(2, 6, 7)]
    assert not check(late)
    assert [violation.fault for violation in check(late, strict=True)] == [Fault.OVERLAP]
    assert not check([*late[:3], read(1, 6, 7)], strict=True)


def test_sectors_are_independent() -> None:
    bad = [write(1, 0, 1), read(0, 2, 3)]
    elsewhere = [operation._replace(sector=8) for operation in bad]
    good = [write(1, 0, 1)._replace(sector=9)]
    assert [violation.sector for violation in check([*bad, *good, *elsewhere])] == [7, 8]


def test_speed(rng: random.Random) -> None:
    """200,000 operations on 2,000 registers in about a second; the bound leaves room for a busy machine."""
    history = []
    current = [0] * 2000
    for moment in range(200_000):
        sector = rng.randrange(2000)
        if rng.random() < 0.5:
            current[sector] = moment + 1
        is_write = current[sector] == moment + 1
        history.append(Operation(sector, is_write, current[sector], moment, moment + 0.5))
    started = time.perf_counter()
    assert not check(history)
    elapsed_s = time.perf_counter() - started
    print(f"{elapsed_s:.2f} s")
    assert elapsed_s < 5
