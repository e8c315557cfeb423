"""One run as plain data: what was measured, on what, with which command."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.shell import BenchFailed


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement. `part`: fio, files, stall, tcp, tcp-stall, memory, calibration; `figures` by name and unit."""

    part: str
    system: str
    job: str
    round: int
    figures: dict[str, float]


@dataclass(frozen=True, slots=True)
class Setup:
    """A system as the report names it. `fault` says why it is not, or not wholly, measured; empty if it is."""

    key: str
    label: str
    durable: str
    version: str = ""
    fault: str = ""


@dataclass(slots=True)
class Run:
    """Everything of one run; `settings` are those of `bench.settings`, `notes` what a reader must know, `against` the
    revision that was measured beside this one, if any."""

    command: str
    date: str
    machine: dict[str, str]
    settings: dict[str, Any]
    setups: list[Setup] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    minutes: float = 0.0
    against: str = ""

    def add(self, part: str, system: str, job: str, number: int, figures: dict[str, float]) -> None:
        self.samples.append(Sample(part, system, job, number, {name: round(x, 4) for name, x in figures.items()}))


def save(run: Run, path: Path) -> None:
    """A sample a line, so that two runs can be compared with diff."""
    data = asdict(run)
    samples = data.pop("samples")
    head = json.dumps(data, indent=1)[: -len("\n}")]
    lines = ",\n".join(f"  {json.dumps(sample)}" for sample in samples)
    path.write_text(f'{head},\n "samples": [\n{lines}\n ]\n}}\n')


def load(path: Path) -> Run:
    """The opposite of `save`. BenchFailed for a file that is none."""
    try:
        data = json.loads(path.read_text())
        data["settings"] = {name: tuple(value) if isinstance(value, list) else value
                            for name, value in data["settings"].items()}
        return Run(**{**data, "setups": [Setup(**setup) for setup in data["setups"]],
                      "samples": [Sample(**sample) for sample in data["samples"]]})
    except (ValueError, TypeError, LookupError) as error:
        raise BenchFailed(f"{path} is no record of a run ({error!r})") from None
