"""The command line: `python -m tests.chaos --minutes 10 --seed 1 [--only NAME]`."""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
import time
from pathlib import Path

from tests.chaos.catalogue import SCENARIOS, why_not
from tests.chaos.rounds import run_round
from tests.soak.tally import Tally


def summary(tally: Tally) -> str:
    counts = ", ".join(f"{count:,} {name}" for name, count in sorted(tally.counts.items()) if ":" not in name)
    faults = ", ".join(f"{name} {count}" for name, count in sorted(tally.faults.items()))
    return f"{counts}, {tally.failed} failed\nfaults: {faults or 'none'}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="how long (default: %(default)g)")
    parser.add_argument("--rounds", type=int, default=sys.maxsize, help="stop after so many rounds")
    parser.add_argument("--seconds", type=float, help="how long the faults of a round go on (default: by scenario)")
    parser.add_argument("--seed", type=int, help="of the first round (default: a fresh one, printed)")
    parser.add_argument("--only", choices=list(SCENARIOS), help="this scenario; otherwise the seed of a round decides")
    parser.add_argument("--json", type=Path, help="write the tally to this file")
    arguments = parser.parse_args()
    # An end from outside takes the round down in order.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    seed = random.SystemRandom().getrandbits(31) if arguments.seed is None else arguments.seed
    end_s = time.monotonic() + arguments.minutes * 60
    names = [arguments.only] if arguments.only else [name for name in SCENARIOS if why_not(name) is None]
    for name in SCENARIOS:
        if (reason := why_not(name)) is not None:
            print(f"not {name}: {reason}", flush=True)
    tally = Tally()
    for number in range(seed, seed + arguments.rounds):
        if time.monotonic() >= end_s:
            break
        scenario = SCENARIOS[names[number % len(names)]]
        result = run_round(scenario.name, scenario.run, number, arguments.seconds or scenario.seconds)
        tally.add(result)
        for failure in result.failures:
            print(f"FAILED: {failure.what}\nreplay: {failure.replay}\nlogs in {failure.log}", flush=True)
        print(f"seed {number}, {scenario.name}: {summary(tally).splitlines()[0]}", flush=True)
    print(summary(tally))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(tally.to_json()))
    return 1 if tally.failed else 0


if __name__ == "__main__":
    sys.exit(main())
