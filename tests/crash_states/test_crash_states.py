"""Recovery from thousands of crash states, and that the checks would notice."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest

from dsreg.errors import DamagedStorage
from dsreg.testing.memory_files import Kind, Operation
from tests.crash_states.check import Checker, Violation
from tests.crash_states.demands import Demands, Grown
from tests.crash_states.explore import explore, small_journals, workload_of
from tests.crash_states.image import Fingerprints, Image
from tests.crash_states.workload import SHORT, Life, Workload, identity

STATES = 5000
# Of one workload at most about so many, so that there are some dozen workloads in a run.
PER_WORKLOAD = 250


def test_every_crash_state_is_recovered_from(seed: int) -> None:
    summary = explore(seed, STATES, PER_WORKLOAD)
    print(summary)
    assert summary.states >= STATES and summary.counts["recoveries cut"] > STATES // 10


def test_a_seed_gives_the_same_workload_and_states() -> None:
    logs = []
    with small_journals():
        for _ in range(2):
            logs.append([life.log for life in workload_of(3).lives])
    assert logs[0] == logs[1]


def test_workloads_have_everything_in_them(seed: int) -> None:
    """Segments switch, checkpoints run, the disk fills and grows: or the states prove nothing about it."""
    kinds: Counter[str] = Counter()
    with small_journals():
        for number in range(4):
            workload = Workload(seed + number, SHORT)
            workload.run()
            kinds["lives"] += len(workload.lives)
            kinds["growth"] += any(isinstance(event, Grown) for life in workload.lives for _, event in life.events)
            for life in workload.lives:
                for operation in life.log:
                    kinds[f"{operation.kind.value} {operation.name}"] += 1
    assert kinds["lives"] == 12
    for what in ("sync journal.0", "sync journal.1", "sync sectors", "sync tags", "sync state", "write sectors"):
        assert kinds[what] > 10, kinds
    assert kinds["rename identity.toml.tmp"] >= 4  # at creation; more where the disk grew


# --- what an image leaves -------------------------------------------------------------------------
def log_of_two_writes() -> list[Operation]:
    return [
        Operation(Kind.CREATE, "a"),
        Operation(Kind.WRITE, "a", 0, b"x" * 512),
        Operation(Kind.SYNC, "a"),
        Operation(Kind.SYNC_DIR),
        Operation(Kind.WRITE, "a", 0, b"y" * 1024),
    ]


def image_of(log: list[Operation]) -> Image:
    image = Image({})
    for operation in log:
        image.do(operation)
    return image


def test_all_subsets_of_a_torn_write(rng: random.Random) -> None:
    image = image_of(log_of_two_writes())
    left = {image.choose(choice)["a"].read(2000, 0) for choice in image.choices(rng, 64)}
    old, new, none = b"x" * 512, b"y" * 512, bytes(512)
    assert left == {old, new, old + none, old + new, new + none, new + new}


def test_names_survive_each_for_itself(rng: random.Random) -> None:
    image = image_of([Operation(Kind.CREATE, "a"), Operation(Kind.CREATE, "b"), Operation(Kind.RENAME, "a", new="c")])
    left = {tuple(sorted(image.choose(choice))) for choice in image.choices(rng, 64)}
    assert left == {(), ("a",), ("b",), ("c",), ("a", "b"), ("b", "c")}


def test_what_is_synced_stays(rng: random.Random) -> None:
    image = image_of([*log_of_two_writes(), Operation(Kind.SYNC, "a")])
    assert [image.choose(choice)["a"].read(2000, 0) for choice in image.choices(rng, 64)] == [b"y" * 1024]


def test_fingerprints_tell_states_apart(rng: random.Random) -> None:
    image, fingerprints = image_of(log_of_two_writes()), Fingerprints()
    states = [image.choose(choice) for choice in image.choices(rng, 64)]
    assert len({fingerprints.of(state) for state in states}) == len({state["a"].read(2000, 0) for state in states})


# --- a storage, or a disk, that breaks the rules is found ----------------------------------------------
def check_all(life: Life, log: list[Operation], positions: list[int], rng: random.Random) -> None:
    """Check some states of `log`, of which `positions` gives how much stands for each prefix of the real one."""
    checker = Checker(SHORT, Counter())
    for upto in rng.sample(range(len(life.log) + 1), len(life.log) + 1):
        image = replace(life, log=log).image(positions[upto])
        for choice in image.choices(rng, 4):
            checker.check(image.choose(choice), life.demands(upto), rng)


@pytest.mark.parametrize("name", ["journal.", "tags", "sectors", "state"])
def test_a_sync_that_does_nothing_is_found(name: str, rng: random.Random) -> None:
    with small_journals(), pytest.raises((Violation, DamagedStorage)):
        for number in range(20):
            workload = Workload(rng.getrandbits(32) + number, SHORT)
            workload.run(lives=1)
            (life,) = workload.lives
            kept = [op.kind is not Kind.SYNC or not op.name.startswith(name) for op in life.log]
            positions = [sum(kept[:upto]) for upto in range(len(kept) + 1)]
            check_all(life, [op for op, keep in zip(life.log, kept, strict=True) if keep], positions, rng)


def test_an_old_value_is_found(rng: random.Random) -> None:
    """A demand that the state does not meet, and a value that nobody gave."""
    life = a_life_with_a_value(rng)
    demands = life.demands(len(life.log))
    state = life.image(len(life.log)).choose(next(life.image(len(life.log)).choices(rng, 1)))
    checker = Checker(SHORT, Counter())
    sector = next(sector for sector, tag in demands.low.items() if any(tag))
    for wrong in (too_low(demands, sector), never_given(demands, sector)):
        with small_journals(), pytest.raises(Violation, match=f"sector {sector} "):
            checker.check(state, wrong, rng)


def a_life_with_a_value(rng: random.Random) -> Life:
    """Some end, on a full disk, without one that was acknowledged."""
    while True:
        with small_journals():
            workload = Workload(rng.getrandbits(32), SHORT)
            workload.run(lives=1)
        (life,) = workload.lives
        if any(any(tag) for tag in life.demands(len(life.log)).low.values()):
            return life


def too_low(demands: Demands, sector: int) -> Demands:
    wrong = demands.copy()
    wrong.low[sector] = b"\xff" * 16
    return wrong


def never_given(demands: Demands, sector: int) -> Demands:
    wrong = demands.copy()
    wrong.given[sector] = {tag: number + 1 for tag, number in wrong.given[sector].items()}
    return wrong


def test_the_disk_of_a_workload_is_not_smaller_than_its_windows() -> None:
    assert identity(SHORT.sectors).sectors >= max(SHORT.places) + SHORT.window
