"""The command line: `python -m tests.soak --minutes 60 [--seed N] [--only PART] [--report FILE]`."""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
from pathlib import Path

from tests.soak import report
from tests.soak.parts import PARTS
from tests.soak.schedule import Soak


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0, help="how long (default: %(default)g)")
    parser.add_argument("--seed", type=int, help="what everything starts from (default: a fresh one, printed)")
    parser.add_argument("--only", action="append", choices=[part.name for part in PARTS], help="this part, not all")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="(default: %(default)s)")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write the summary to FILE.md and FILE.json")
    parser.add_argument("--logs", type=Path, help="where logs go (default: a new directory for temporary files)")
    arguments = parser.parse_args()
    seed = random.SystemRandom().getrandbits(31) if arguments.seed is None else arguments.seed
    logs = arguments.logs or Path(tempfile.mkdtemp(prefix="dsreg-soak-"))
    parts = [part for part in PARTS if arguments.only is None or part.name in arguments.only]
    soak = Soak(parts, arguments.processes, arguments.minutes, seed, logs)
    # Whoever stops it gets the summary of what was done until then.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: soak.stop())
    print(f"seed {seed}, logs in {logs}", flush=True)
    soak.run(report.show_progress())
    print(file=sys.stderr)
    print(report.text(soak))
    if arguments.report is not None:
        report.write(soak, arguments.report)
    return 1 if soak.tally.failed else 0


if __name__ == "__main__":
    sys.exit(main())
