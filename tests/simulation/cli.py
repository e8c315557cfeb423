"""The command line of the simulator: one seed in full, or many with a summary."""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING

from tests.simulation.mutants import install

if TYPE_CHECKING:  # at run time only after a mutant is in
    from tests.simulation.simulation import Result


def parse_seeds(text: str) -> range:
    """"A..B", both included, or one number."""
    first, _, last = text.partition("..")
    return range(int(first), int(last or first) + 1)


def simulate_without_gc(seed: int) -> Result:
    """Most of a run's garbage dies with it; looking for it meanwhile costs a tenth of the time."""
    from tests.simulation.simulation import simulate

    gc.disable()
    try:
        return simulate(seed)
    finally:
        gc.enable()


def changing_members(seeds: Sequence[int]) -> list[int]:
    """Those of the seeds whose runs change members."""
    from tests.simulation.options import derive

    return [seed for seed in seeds if derive(seed).reconfigures]


def run_seeds(seeds: Sequence[int], processes: int) -> Iterator[Result]:
    """In the order of the seeds, so that the first failure is the same whatever the machine."""
    if processes == 1:
        yield from map(simulate_without_gc, seeds)
        return
    # Not multiprocessing.Pool: when it is left early it ends its processes by a signal, and one that holds the lock of
    # their queue just then stops all others, and this one, for ever.
    with ProcessPoolExecutor(processes, multiprocessing.get_context("fork")) as pool:
        try:
            yield from pool.map(simulate_without_gc, seeds, chunksize=2)
        finally:
            pool.shutdown(cancel_futures=True)


def summary(results: list[Result], elapsed_s: float) -> str:
    faults: Counter[str] = Counter()
    for result in results:
        faults += result.faults
    hours = sum(result.simulated_s for result in results) / 3600
    operations = sum(result.operations for result in results)
    unknown = sum(result.unknown for result in results)
    lines = [
        f"{len(results)} seeds in {elapsed_s:.1f} s ({len(results) / elapsed_s:.1f} a second), "
        f"{hours:.1f} cluster-hours simulated",
        f"{operations} operations checked, {unknown} of them of unknown outcome",
        f"{sum(faults.values())} faults: " + ", ".join(f"{name} {count}" for name, count in sorted(faults.items())),
    ]
    return "\n".join(lines)


def run_many(seeds: Sequence[int], processes: int, stop_at_first: bool) -> int:
    """Progress on stderr, failures and the summary on stdout; the exit status."""
    started_s = shown_s = time.monotonic()
    results: list[Result] = []
    failed: list[Result] = []
    for result in run_seeds(seeds, processes):
        results.append(result)
        if result.failure:
            failed.append(result)
            print(f"seed {result.seed} FAILED: {result.failure}")
            print(f"  {result.options}\n  {replay(result.seed)}", flush=True)
            if stop_at_first:
                break
        if time.monotonic() - shown_s > 1:
            shown_s = time.monotonic()
            print(f"\r{len(results)}/{len(seeds)} seeds, {len(failed)} failed", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    print(summary(results, time.monotonic() - started_s))
    if failed:
        print("failed: " + " ".join(str(result.seed) for result in failed))
    return 1 if failed else 0


def replay(seed: int) -> str:
    return f"python -m tests.simulation --seed {seed} --verbose"


def run_one(seed: int, verbose: bool) -> int:
    from tests.simulation.options import derive
    from tests.simulation.simulation import simulate

    print(derive(seed))
    result = simulate(seed, print if verbose else None)
    print(f"trace {result.trace}")
    print(f"{result.operations} operations, {result.unknown} of unknown outcome, {result.simulated_s:.1f} s simulated")
    print(f"faults {dict(result.faults)}\nnodes {dict(result.counters)}")
    print(f"FAILED: {result.failure}" if result.failure else "good")
    return 1 if result.failure else 0


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--seed", type=int, help="run this seed and print what it stands for")
    what.add_argument("--seeds", type=parse_seeds, metavar="A..B", help="run these seeds and print a summary")
    parser.add_argument("--members", action="store_true", help="with --seeds: only those that change members")
    parser.add_argument("--verbose", action="store_true", help="with --seed: print all that happens")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="with --seeds (%(default)s)")
    parser.add_argument("--stop", action="store_true", help="with --seeds: stop at the first failure")
    parser.add_argument("--mutant", metavar="NAME", help="with this bug put in: see tests/simulation/mutant_table.py")
    arguments = parser.parse_args()
    if arguments.mutant is not None:
        install(arguments.mutant)
    if arguments.seed is not None:
        sys.exit(run_one(arguments.seed, arguments.verbose))
    seeds = changing_members(arguments.seeds) if arguments.members else arguments.seeds
    sys.exit(run_many(seeds, arguments.processes, arguments.stop))
