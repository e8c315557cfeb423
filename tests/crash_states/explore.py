"""States of workloads, checked one after the other until there are enough."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from dsreg.constants import SECTOR_SIZE
from dsreg.storage import identity as identity_file
from dsreg.storage import index_file, ordered
from dsreg.testing.memory_files import Operation
from tests.crash_states.check import Checker
from tests.crash_states.demands import Demands
from tests.crash_states.image import Choice, Fingerprints, Image, State
from tests.crash_states.workload import LONG, SHORT, SMALL_JOURNAL_BYTES, Life, Profile, Workload

# At one point of a log, of what no full enumeration is made.
STATES_PER_POINT = 12
# Every so many workloads one has long runs. Its states are so much larger.
LONG_EVERY = 16
LONG_COST = 20
SMALL_TAIL_SLOTS = 3
# From how many sectors on a record may be ordered, and a commit must have in such ones.
SMALL_ORDERED_SECTORS = 2


@dataclass
class Summary:
    seed: int
    states: int = 0  # distinct ones
    checked: int = 0  # states together with what was acknowledged by then
    points: int = 0
    workloads: int = 0
    counts: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        more = "".join(f", {number} {what}" for what, number in sorted(self.counts.items()))
        return (
            f"{self.states} distinct crash states ({self.checked} checked) at {self.points} points "
            f"of {self.workloads} workloads, seeds from {self.seed}{more}"
        )


@dataclass(frozen=True)
class Found:
    """A state of a workload. `index` numbers all that the workload has, for the replay. `image` and `demands` are
    those of this point until the next one is asked for."""

    index: int
    life: int
    upto: int
    choice: Choice
    image: Image
    demands: Demands

    def state(self) -> State:
        return self.image.choose(self.choice)


class Failed(AssertionError):
    """A check failed. Says how to see it again."""


@contextmanager
def small_journals() -> Iterator[None]:
    """Segments smaller than the product allows, so that short workloads switch them and checkpoint often; an index
    of the tags from a few slots on; and ordered records of short runs."""
    small = (
        (identity_file, "MIN_JOURNAL_BYTES", SMALL_JOURNAL_BYTES), (index_file, "MIN_TAIL_SLOTS", SMALL_TAIL_SLOTS),
        (ordered, "MIN_SECTORS", SMALL_ORDERED_SECTORS), (ordered, "MIN_BYTES", SMALL_ORDERED_SECTORS * SECTOR_SIZE),
    )
    before = [getattr(module, name) for module, name, _ in small]
    try:
        for module, name, value in small:
            setattr(module, name, value)
        yield
    finally:
        for (module, name, _), value in zip(small, before, strict=True):
            setattr(module, name, value)


def profile_of(seed: int) -> Profile:
    return LONG if seed % LONG_EVERY == LONG_EVERY - 1 else SHORT


def workload_of(seed: int) -> Workload:
    """Raises Failed, with the command that replays it, where the storage raises what it must not."""
    workload = Workload(seed, profile_of(seed))
    try:
        workload.run()
    except Exception as error:
        raise _failed(error, f"in the workload itself, life {len(workload.lives) - 1}", f"--workload {seed}") from error
    return workload


def _failed(error: Exception, where: str, options: str) -> Failed:
    return Failed(f"{type(error).__name__}: {error}\n{where}. Replay:\n  python -m tests.crash_states {options}")


def states_of(lives: list[Life], seed: int, per_point: int = STATES_PER_POINT) -> Iterator[Found]:
    """All states that are to be checked, point by point."""
    rng = random.Random(f"states {seed}")
    index = 0
    for number, life in enumerate(lives):
        image, demands = life.image(0), life.before.copy()
        events = iter(life.events)
        event = next(events, None)
        for upto in range(len(life.log) + 1):
            if upto:
                image.do(life.log[upto - 1])
            while event is not None and event[0] <= upto:
                demands.take(event[1])
                event = next(events, None)
            for choice in image.choices(rng, per_point):
                yield Found(index, number, upto, choice, image, demands)
                index += 1


def check_one(found: Found, workload: Workload, seed: int, counts: Counter[str]) -> None:
    """Raises Failed with the command that replays it."""
    checker = Checker(workload.profile, counts, workload.all_unknown)
    try:
        rng = random.Random(f"check {seed} {found.index}")
        checker.check(found.state(), found.demands, rng, damage=found.image.damage(rng))
    except Exception as error:
        # Whatever it is, from whichever depth: the one thing that must not get lost is how to see it again.
        where = f"life {found.life}, after {found.upto} operations"
        raise _failed(error, where, f"--workload {seed} --state {found.index}") from error


def explore(
    seed: int, states: int, per_workload: int | None = None, progress: Callable[[Summary], None] = lambda summary: None
) -> Summary:
    """Check until there are so many distinct states, of each workload about `per_workload` (a sample)."""
    summary = Summary(seed)
    seen: set[int] = set()
    fingerprints = Fingerprints()
    with small_journals():
        while len(seen) < states:
            number = seed + summary.workloads
            workload = workload_of(number)
            every = 1
            if per_workload is not None:
                wanted = per_workload // (LONG_COST if workload.profile is LONG else 1)
                every = max(1, sum(len(life.log) for life in workload.lives) * 10 // wanted)
            skip = random.Random(f"skip {number}")
            last: tuple[int, int] = (-1, -1)
            checked: set[tuple[int, int, int]] = set()
            for found in states_of(workload.lives, number):
                summary.points += last != (found.life, found.upto)
                last = (found.life, found.upto)
                if skip.randrange(every):
                    continue
                mark = fingerprints.of(found.state())
                # The same state with the same demands is the same check.
                demanded = sum(position <= found.upto for position, _ in workload.lives[found.life].events)
                if (mark, found.life, demanded) in checked:
                    continue
                checked.add((mark, found.life, demanded))
                seen.add(mark)
                check_one(found, workload, number, summary.counts)
                summary.checked += 1
                summary.states = len(seen)
                progress(summary)
                if len(seen) >= states:
                    break
            summary.workloads += 1
    return summary


def replay(seed: int, index: int | None) -> str:
    """Check one state of one workload again, or (None) all of them. Returns what there is to see."""
    with small_journals():
        workload = workload_of(seed)
        number = 0
        for found in states_of(workload.lives, seed):
            if index is None or found.index == index:
                check_one(found, workload, seed, Counter())
                number += 1
                if index is not None:
                    break
    if index is None:
        return f"{number} states hold"
    log = workload.lives[found.life].log[:found.upto]
    return "\n".join([f"holds: life {found.life}, parts kept: {found.choice}, after", *describe(log, 12)])


def describe(log: list[Operation], last: int) -> list[str]:
    """The last operations of a log, one line each."""
    return [
        f"{operation.kind.value} {operation.name} {operation.new or operation.offset} {len(operation.data)} bytes"
        for operation in log[-last:]
    ]
