"""The parts of a soak: what each is, its share of the time, and one job of it.

A job runs in a process of its own (tests.soak.job), follows from its seed, and ends by itself after about the
seconds it is given. Before each piece of work it says, by `at`, which command would do that piece again, so that
whoever finds it hung or dead knows.
"""

from __future__ import annotations

import dataclasses
import json
import random
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from tests.soak.tally import Failure, Tally

Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Part:
    """`share`: of the time of all cores, relative to the other parts; 0: one job after the other beside them, for what
    mostly waits. `job_s`: what a job is given. `step`: how many seeds a job may use up."""

    name: str
    share: float
    job_s: float
    step: int
    run: Callable[[int, float, Path, Say], Tally]


def simulate(seed: int, seconds: float, directory: Path, at: Say) -> Tally:
    """Seeds of the simulator, one after the other."""
    from tests.simulation.cli import replay, simulate_without_gc

    tally = Tally()
    end_s = time.monotonic() + seconds
    for number in range(seed, seed + SIMULATOR_STEP):
        if time.monotonic() > end_s:
            break
        at(replay(number))
        result = simulate_without_gc(number)
        tally.counts.update({
            "seeds": 1, "operations": result.operations, "unknown": result.unknown, "events": result.events,
            "simulated seconds": round(result.simulated_s),
        })
        tally.faults.update({f"simulated {name}": count for name, count in result.faults.items()})
        if result.failure:
            tally.fail(Failure("simulation", result.failure, replay(number)))
    return tally


class _Enough(Exception):
    """The time of the job is up."""


def crash_states(seed: int, seconds: float, directory: Path, at: Say) -> Tally:
    """States that a power cut may leave of a storage directory, and the recovery from each."""
    from tests.crash_states.explore import Failed, Summary, explore

    tally = Tally()
    end_s = time.monotonic() + seconds
    last = Summary(seed)

    def progress(summary: Summary) -> None:
        nonlocal last
        last = summary
        if time.monotonic() > end_s:
            raise _Enough

    at(f"python -m tests.crash_states --workload {seed}")
    try:
        explore(seed, sys.maxsize, progress=progress)
    except _Enough:
        pass
    except Failed as failed:
        traceback.print_exception(failed, file=sys.stdout)
        tally.fail(Failure("crash states", str(failed), str(failed).splitlines()[-1].strip()))
    tally.counts.update({"crash states": last.states, "crash states checked": last.checked,
                         "storage workloads": last.workloads + 1})
    tally.counts.update({f"crash states: {name}": count for name, count in last.counts.items()})
    return tally


def fuzz(seed: int, seconds: float, directory: Path, at: Say) -> Tally:
    """Hostile bytes, messages and files, a round of each in turn. Ends at the first failure of a kind."""
    from tests.fuzz.run import ROUNDS

    tally = Tally()
    end_s = time.monotonic() + seconds
    names = list(ROUNDS)
    for number in range(seed, seed + FUZZ_STEP):
        for name in list(names):
            if time.monotonic() > end_s:
                return tally
            replay = f"python -m tests.fuzz.run {name} --once --seed {number}"
            at(replay)
            try:
                ROUNDS[name](random.Random(f"{name} {number}"))
            except Exception as error:  # noqa: BLE001 - whatever it is, it is what we are looking for
                traceback.print_exc(file=sys.stdout)
                tally.fail(Failure(f"fuzz {name}", f"{type(error).__name__}: {error}", replay))
                names.remove(name)
            tally.counts.update({"fuzz rounds": 1, f"fuzz rounds: {name}": 1})
    return tally


def chaos(seed: int, seconds: float, directory: Path, at: Say) -> Tally:
    """One round with real processes. Which one, follows from the seed."""
    result = directory / "chaos.json"
    command = ["-m", "tests.chaos", "--seed", str(seed), "--rounds", "1", "--json", str(result)]
    at(" ".join(["python", *command[:-2]]))
    # Its progress is for the log of this job; its exit code says only what the document says as well.
    subprocess.run([sys.executable, *command], check=False, stdin=subprocess.DEVNULL)
    return Tally.from_json(json.loads(result.read_text()))


SIMULATOR_STEP = 1000
FUZZ_STEP = 10_000
# The simulator finds most and covers most, so it has most of the time. Chaos waits for timers, processes and disks
# half of its time, and is at its best where the machine is busy otherwise.
PARTS = (
    Part("simulation", 80, 20, SIMULATOR_STEP, simulate),
    Part("crash states", 12, 20, 1000, crash_states),
    Part("fuzz", 8, 20, FUZZ_STEP, fuzz),
    Part("chaos", 0, 75, 1, chaos),
)
