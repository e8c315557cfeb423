"""Linearizability of one register by trying every order: for a handful of operations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Op(NamedTuple):
    """One operation. `returned` is None for an outcome that was never learnt: it may take effect at any later
    time, or never. `value`: what a write wrote, or a read returned (None for one that did not return)."""

    write: bool
    value: int | None
    invoked: int
    returned: int | None


def linearizable(history: Sequence[Op], initial: int) -> bool:
    """Whether some order that respects real time explains every read. `history`: of one register."""
    ops = [op for op in history if op.write or op.returned is not None]
    must = sum(1 << index for index, op in enumerate(ops) if op.returned is not None)
    tried: set[tuple[int, int | None]] = set()
    pending: list[tuple[int, int | None]] = [(0, initial)]
    while pending:
        state = pending.pop()
        if state in tried:
            continue
        tried.add(state)
        done, value = state
        if done & must == must:
            return True
        rest = [(index, op) for index, op in enumerate(ops) if not done >> index & 1]
        horizon = min(op.returned for _, op in rest if op.returned is not None)
        for index, op in rest:
            # Nothing may go before an operation that returned before it was invoked.
            if op.invoked < horizon and (op.write or op.value == value):
                pending.append((done | 1 << index, op.value if op.write else value))
    return False
