"""`python -m tests.fuzz.run NAME --minutes 10 --seed N`: one kind of fuzzing with fresh seeds for as long as asked.

A failure prints the command that replays it and ends the run.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from dsreg.protocol.codec import Side
from tests.fuzz import damage, streams
from tests.fuzz.test_decoder import check
from tests.fuzz.test_hostile_core import Attack

Round = Callable[[random.Random], None]


def decoder(rng: random.Random) -> None:
    """One stream of damaged and hostile frames and garbage, to either side."""
    side = rng.choice((Side.NODE, Side.CLIENT))
    check(side, streams.stream(rng, side), rng)


def core(rng: random.Random) -> None:
    """One cluster under attack."""
    attack = Attack(rng, rng.choice((2, 3, 5)))
    for _ in range(rng.choice((50, 400, 2000))):
        attack.step()
    attack.assert_usable()
    attack.assert_bounded()


def directory(rng: random.Random) -> None:
    """One directory, one to three kinds of damage, opened twice."""
    root = Path(tempfile.mkdtemp(prefix="dsreg-fuzz-"))
    try:
        victim = damage.Victim.make(root / "victim", 1, rng, rng.random() < 0.5, rng.choice((1, 2)))
        for number in range(5):
            copy = victim.copy(root / str(number))
            names = rng.sample(damage.FILES, rng.choice((1, 1, 2, 3)))
            lost = [damage.DAMAGES[rng.choice(list(damage.DAMAGES))](copy, rng, name) for name in names]
            for _ in range(2):
                copy.check(next((at for at in lost if at is not None), None))
    finally:
        shutil.rmtree(root)


ROUNDS: dict[str, Round] = {"decoder": decoder, "core": core, "directory": directory}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.run", description=__doc__)
    parser.add_argument("name", choices=ROUNDS)
    parser.add_argument("--minutes", type=float, default=1.0, help="default: %(default)s")
    parser.add_argument("--seed", type=int, help="of the first round (default: a fresh one, printed)")
    parser.add_argument("--once", action="store_true", help="only the round of this seed")
    arguments = parser.parse_args()
    first = random.SystemRandom().getrandbits(31) if arguments.seed is None else arguments.seed
    print(f"{arguments.name}, seeds from {first}", flush=True)
    begun = shown = time.monotonic()
    seed = first
    while seed == first or not arguments.once and time.monotonic() < begun + 60 * arguments.minutes:
        try:
            ROUNDS[arguments.name](random.Random(f"{arguments.name} {seed}"))
        except Exception as error:
            print(f"{type(error).__name__}: {error}. Replay:\n"
                  f"  python -m tests.fuzz.run {arguments.name} --once --seed {seed}", file=sys.stderr)
            raise
        seed += 1
        if time.monotonic() > shown + 10:
            shown = time.monotonic()
            print(f"{seed - first} rounds in {shown - begun:.0f} s", file=sys.stderr, flush=True)
    print(f"{arguments.name}: {seed - first} rounds, seeds {first} to {seed - 1}, nothing found")
    return 0


if __name__ == "__main__":
    sys.exit(main())
