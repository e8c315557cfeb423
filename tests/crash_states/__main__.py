"""The command line: `python -m tests.crash_states --states 100000 --seed 1`."""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable

from tests.crash_states.explore import Failed, Summary, explore, replay


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.crash_states", description=__doc__)
    parser.add_argument("--states", type=int, default=100_000, help="how many distinct states (default: %(default)s)")
    parser.add_argument("--seed", type=int, help="of the first workload (default: a fresh one, printed)")
    parser.add_argument("--workload", type=int, help="replay: the seed of a workload; all its states, or one of them")
    parser.add_argument("--state", type=int, help="replay: the number of the state in it")
    arguments = parser.parse_args()
    if arguments.workload is None and arguments.state is not None:
        parser.error("--state is of a --workload")
    try:
        if arguments.workload is not None:
            print(replay(arguments.workload, arguments.state))
        else:
            seed = random.SystemRandom().getrandbits(31) if arguments.seed is None else arguments.seed
            print(f"seed {seed}", flush=True)
            print(explore(seed, arguments.states, progress=progress_line(arguments.states)))
    except Failed as failed:
        print(f"\n{failed}", file=sys.stderr)
        if failed.__cause__ is not None:
            sys.excepthook(type(failed.__cause__), failed.__cause__, failed.__cause__.__traceback__)
        return 1
    return 0


def progress_line(wanted: int) -> Callable[[Summary], None]:
    """A callback that prints where things stand, every second; on one line where somebody watches."""
    begun = shown = time.monotonic()

    def show(summary: Summary) -> None:
        nonlocal shown
        now = time.monotonic()
        if now < shown + (1 if sys.stderr.isatty() else 30):
            return
        shown = now
        left_s = (wanted - summary.states) * (now - begun) / max(1, summary.states)
        line = f"{summary.states} of {wanted} states, {summary.workloads} workloads, {left_s:.0f} s to go"
        print(line, end="\r" if sys.stderr.isatty() else "\n", file=sys.stderr, flush=True)

    return show


sys.exit(main())
