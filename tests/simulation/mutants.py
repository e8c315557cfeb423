"""Seeded bugs: lines of the product, each replaced by a wrong one, that the simulator has to catch.

    python -m tests.simulation.mutants [NAME ...]     run each until caught, at most 1000 seeds, and say by which

A mutant is put in while its module is imported, so it lives in a process of its own
(python -m tests.simulation --mutant NAME). One whose text is not in the module any more, exactly once, is an error.
"""

from __future__ import annotations

import argparse
import importlib.abc
import importlib.machinery
import importlib.util
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from tests.simulation.mutant_table import MUTANTS as TABLE
from tests.simulation.mutant_table import Mutant
from tests.simulation.mutants_of_addresses import ADDRESSES
from tests.simulation.mutants_of_claims import CLAIMS
from tests.simulation.mutants_of_configurations import CONFIGURATIONS
from tests.simulation.mutants_of_growth import GROWTH
from tests.simulation.mutants_of_heal import HEAL
from tests.simulation.mutants_of_holes import HOLES
from tests.simulation.mutants_of_keys import KEYS
from tests.simulation.mutants_of_learning import LEARNING
from tests.simulation.mutants_of_links import LINKS
from tests.simulation.mutants_of_lives import LIVES
from tests.simulation.mutants_of_long_zeros import LONG_ZEROS
from tests.simulation.mutants_of_looking import LOOKING
from tests.simulation.mutants_of_maps import MAPS
from tests.simulation.mutants_of_marks import MARKS
from tests.simulation.mutants_of_members import MEMBERS
from tests.simulation.mutants_of_names import NAMES
from tests.simulation.mutants_of_nbd import NBD
from tests.simulation.mutants_of_ordered import ORDERED
from tests.simulation.mutants_of_recovery import RECOVERY
from tests.simulation.mutants_of_scrub import SCRUB
from tests.simulation.mutants_of_turns import TURNS
from tests.simulation.mutants_of_zeros import ZEROS

ROOT = Path(__file__).resolve().parent.parent.parent
SEEDS = 1000
MUTANTS = (
    TABLE + LIVES + ADDRESSES + LINKS + TURNS + HEAL + LEARNING + CLAIMS + CONFIGURATIONS + MEMBERS + RECOVERY + SCRUB
    + MARKS + ZEROS + LONG_ZEROS + ORDERED + NBD + HOLES + MAPS + GROWTH + LOOKING
    + KEYS + NAMES
)
# Tests of a part take seconds: one that takes so long waits for what the bug has forgotten.
HANGS_S = 120.0
_CAUGHT = re.compile(r"^seed (\d+) FAILED: (.*)$", re.MULTILINE)
_FAILED = re.compile(r"^\d+ (failed|errors?)\b|\b\d+ errors? in ", re.MULTILINE)


class MutantError(Exception):
    """The mutant cannot be put in."""


def source_of(mutant: Mutant) -> Path:
    return ROOT / (mutant.module.replace(".", "/") + ".py")


def mutated(mutant: Mutant, source: str) -> str:
    """The module with the bug. Raises MutantError if the text to replace is not there exactly once."""
    found = source.count(mutant.old)
    if found != 1:
        raise MutantError(f"{mutant.name}: {found} places in {mutant.module} have the text that it replaces")
    return source.replace(mutant.old, mutant.new)


class _Loader(importlib.machinery.SourceFileLoader):
    def __init__(self, mutant: Mutant) -> None:
        super().__init__(mutant.module, str(source_of(mutant)))
        self._mutant = mutant

    def get_code(self, fullname: str) -> Any:
        """Never from the cache of compiled modules."""
        path = self.get_filename(fullname)
        return self.source_to_code(mutated(self._mutant, Path(path).read_text()).encode(), path)


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, mutant: Mutant) -> None:
        self._mutant = mutant

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self._mutant.module:
            return None
        return importlib.util.spec_from_file_location(fullname, source_of(self._mutant), loader=_Loader(self._mutant))


def install(name: str) -> None:
    """Put the mutant of this name in. Its module must not have been imported yet."""
    mutant = by_name(name)
    if mutant.module in sys.modules:
        raise MutantError(f"{name}: {mutant.module} is imported already")
    mutated(mutant, source_of(mutant).read_text())
    sys.meta_path.insert(0, _Finder(mutant))


def by_name(name: str) -> Mutant:
    for mutant in MUTANTS:
        if mutant.name == name:
            return mutant
    raise MutantError(f"no mutant is called {name}")


def hunt(mutant: Mutant, seeds: int, processes: int) -> tuple[int, str]:
    """The first seed that catches it and how, or 0 if none of 1..`seeds` does; -1 if its test does."""
    mutated(mutant, source_of(mutant).read_text())
    if mutant.test:
        return _by_test(mutant)
    command = [
        sys.executable, "-m", "tests.simulation", "--mutant", mutant.name, "--seeds", f"1..{seeds}", "--stop",
        "--processes", str(processes),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    caught = _CAUGHT.search(done.stdout)
    if caught is None and done.returncode != 0:
        raise MutantError(f"{mutant.name}: {done.stderr[-2000:]}")
    return (int(caught[1]), _last_line(done.stdout, caught)) if caught else (0, "")


def _by_test(mutant: Mutant) -> tuple[int, str]:
    program = (
        f"import sys, pytest; from tests.simulation.mutants import install; install({mutant.name!r}); "
        f"sys.exit(pytest.main(['-q', '-x', '-p', 'no:cacheprovider', {mutant.test!r}]))"
    )
    try:
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False, timeout=HANGS_S
        )
    except subprocess.TimeoutExpired:
        return -1, f"{mutant.test}, which hangs"
    # Passed, or a test failed; else it could not be run.
    if done.returncode and (done.returncode != 1 or not _FAILED.search(done.stdout)):
        raise MutantError(f"{mutant.name}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return (-1, mutant.test) if done.returncode else (0, "")


def _last_line(output: str, caught: re.Match[str]) -> str:
    """What went wrong, in one line; of a traceback the last one."""
    if not caught[2].startswith("Traceback"):
        return caught[2]
    lines = output[caught.end() :].splitlines()
    errors = [line for line in lines if line and not line[0].isspace()]
    return errors[0] if errors else caught[2]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.mutants", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="at most so many for each (%(default)s)")
    parser.add_argument("--processes", type=int, default=2, help="(%(default)s)")
    arguments = parser.parse_args()
    mutants = [by_name(name) for name in arguments.names] or list(MUTANTS)
    survivors: list[str] = []
    for mutant in mutants:
        started_s = time.monotonic()
        seed, how = hunt(mutant, arguments.seeds, arguments.processes)
        elapsed_s = time.monotonic() - started_s
        verdict = f"caught by seed {seed}: {how[:110]}" if seed > 0 else f"caught by {how}" if seed else "SURVIVED"
        print(f"{mutant.name:34} {verdict} ({elapsed_s:.0f} s)", flush=True)
        if not seed:
            survivors.append(mutant.name)
    print(f"{len(mutants) - len(survivors)} of {len(mutants)} mutants caught")
    if survivors:
        print("survived: " + " ".join(survivors))
    sys.exit(1 if survivors else 0)


if __name__ == "__main__":
    main()
