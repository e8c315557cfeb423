"""Sets of sectors as runs."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dsreg.runs import Runs


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 12))), st.integers(0, 50), st.integers(0, 20))
def test_runs_are_sets_of_numbers(added: list[tuple[int, int]], start: int, length: int) -> None:
    runs, model = Runs(), set()
    for first, count in added:
        runs.add(first, first + count)
        model |= set(range(first, first + count))
    assert runs.total == len(model)
    assert {each for one in zip(runs.starts, runs.stops, strict=True) for each in range(*one)} == model
    assert all(stop < start for stop, start in zip(runs.stops, runs.starts[1:], strict=False))  # none touch
    assert [number for number in range(60) if number in runs] == sorted(model)
    gaps = list(runs.gaps(start, start + length))
    assert [each for gap in gaps for each in range(*gap)] == sorted(set(range(start, start + length)) - model)
    assert all(stop < start for (_, stop), (start, _) in zip(gaps, gaps[1:], strict=False))
    runs.remove(start, start + length)
    model -= set(range(start, start + length))
    assert runs.total == len(model) and [number for number in range(60) if number in runs] == sorted(model)
    assert all(begin < end for begin, end in zip(runs.starts, runs.stops, strict=True))
    assert [runs.pop() for _ in range(runs.total)] == sorted(model) and not runs.starts
