"""Linearizability by definition, for histories of a few operations: tries every order. The checker is tested
against it; it shares no idea with it."""

from __future__ import annotations

import random
from collections.abc import Sequence

from tests.simulation.checker import INITIAL, OPEN, ZEROED, Operation


def is_linearizable(history: Sequence[Operation], *, strict: bool = False) -> bool:
    """Whether the operations on one register can be put in an order that keeps real time, and in which every
    read gives the last value written. Exponential: for up to about ten operations."""
    ends = [
        operation.crashed if strict and operation.end == OPEN else operation.end
        for operation in history
    ]
    everything = (1 << len(history)) - 1
    # For each operation, those that were over before it began: they have to come first.
    before = [
        sum(1 << j for j, end in enumerate(ends) if end < operation.start)
        for operation in history
    ]
    failed: set[tuple[int, int]] = set()

    def search(done: int, value: int) -> bool:
        if done == everything:
            return True
        if (done, value) in failed:
            return False
        for index, operation in enumerate(history):
            this = 1 << index
            if done & this or before[index] & ~done:
                continue
            if operation.is_write:
                if search(done | this, operation.value):
                    return True
                if operation.end == OPEN and search(done | this, value):  # it never happened
                    return True
            elif operation.value == _read_as(value) and search(done | this, value):
                return True
        failed.add((done, value))
        return False

    return search(0, INITIAL)


def _read_as(value: int) -> int:
    return INITIAL if value >= ZEROED else value


def random_history(rng: random.Random) -> list[Operation]:
    """Up to eight operations of one register, about half of such histories linearizable: most reads give
    what a register might give, ends and starts coincide at times, some writes have no known outcome."""
    size = rng.randint(3, 8)
    moments = rng.choice((6, 12, 40))
    history: list[Operation] = []
    values = [INITIAL]
    for _ in range(size):
        start = rng.randrange(moments)
        end: float = start + rng.randrange(1 + moments // rng.choice((1, 2, 4)))
        if rng.random() < 0.5:
            values.append(len(values))
            crashed = OPEN
            if rng.random() < 0.25:
                end, crashed = OPEN, rng.choice((OPEN, end))
            history.append(Operation(0, True, values[-1], start, end, crashed))
        else:
            history.append(Operation(0, False, -1, start, end))
    for index, operation in enumerate(history):
        if not operation.is_write:
            history[index] = operation._replace(value=_plausible(rng, history, values, operation))
    return history


def _plausible(rng: random.Random, history: Sequence[Operation], values: Sequence[int], read: Operation) -> int:
    """Mostly a value written by an operation that had begun when `read` ended, late ones rather than early."""
    if rng.random() < 0.1:
        return rng.choice([*values, len(values)])
    writes = [operation for operation in history if operation.is_write and operation.start <= read.end]
    if not writes:
        return INITIAL
    writes.sort(key=lambda write: (write.start, write.value))
    late = writes[-3:]
    return rng.choice(late).value if rng.random() < 0.8 else INITIAL
