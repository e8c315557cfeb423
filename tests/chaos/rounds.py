"""One round of a scenario: faults under load, an end to the faults, a verdict."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

from tests.chaos import sweep
from tests.chaos.scenario import Scenario
from tests.simulation.checker import check
from tests.soak.tally import Failure, Tally

# Registers read at the end through every node; more would only take longer.
LAST_READS = 200

Run = Callable[[int, float, Path], Tally]


def run_registers(kind: type[Scenario], seed: int, seconds: float, directory: Path) -> Tally:
    """A round whose clients read and write registers. Raises AssertionError."""
    tally = Tally()
    with contextlib.ExitStack() as stack:
        scenario = kind(seed, directory, stack)
        scenario.run(seconds)
        scenario.heal()
        scenario.workers.finish()
        history = scenario.workers.history()
        touched = sorted({operation.sector for operation in history})
        history += scenario.last_reads(set(scenario.rng.sample(touched, min(LAST_READS, len(touched)))))
        violations = check(history)
        assert not violations, "not linearizable:\n" + "\n".join(map(str, violations))
        tally.counts.update({"chaos rounds": 1, "chaos operations": len(history), **scenario.counts})
        tally.faults.update(scenario.faults)
    return tally


def replay(name: str, seed: int, seconds: float) -> str:
    return f"python -m tests.chaos --only {name} --seed {seed} --rounds 1 --seconds {seconds:g}"


def run_round(name: str, run: Run, seed: int, seconds: float) -> Tally:
    """Never raises for what the round finds: that is in the tally, and its files are kept."""
    sweep.sweep()
    directory = Path(tempfile.mkdtemp(prefix=sweep.prefix()))
    try:
        tally = run(seed, seconds, directory)
    except (KeyboardInterrupt, SystemExit):
        sweep.unmount_below(directory)
        shutil.rmtree(directory, ignore_errors=True)
        raise
    except Exception as error:  # noqa: BLE001 - whatever it is, the way to see it again must not get lost
        (directory / "failure.txt").write_text(traceback.format_exc())
        tally = Tally()
        tally.counts["chaos rounds"] = 1
        what = f"{type(error).__name__}: {error}"
        tally.fail(Failure(f"chaos {name}", what, replay(name, seed, seconds), str(directory)))
        return tally
    finally:
        sweep.unmount_below(directory)
    shutil.rmtree(directory)
    tally.counts[f"chaos rounds: {name}"] = 1
    return tally
