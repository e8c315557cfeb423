"""The medians of a run, with the lowest and highest of its rounds."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from bench.record import Run, Setup


@dataclass(frozen=True, slots=True)
class Figure:
    median: float
    low: float
    high: float


class Summary:
    """Figures by (part, system, job) and name; None where nothing was measured."""

    def __init__(self, run: Run) -> None:
        self._values: dict[tuple[str, str, str, str], list[float]] = {}
        for sample in run.samples:
            for name, value in sample.figures.items():
                self._values.setdefault((sample.part, sample.system, sample.job, name), []).append(value)

    def figure(self, part: str, system: str, job: str, name: str) -> Figure | None:
        values = self._values.get((part, system, job, name))
        return Figure(statistics.median(values), min(values), max(values)) if values else None

    def rounds(self, part: str, system: str, job: str, name: str) -> int:
        """How often that was measured."""
        return len(self._values.get((part, system, job, name), []))

    def ratio(self, part: str, systems: tuple[str, str], job: str, name: str) -> Figure | None:
        """Of the second system's figure to the first's, round by round; None unless both have all rounds."""
        below, above = (self._values.get((part, system, job, name), []) for system in systems)
        if not below or len(below) != len(above):
            return None
        ratios = [over / under for under, over in zip(below, above, strict=True)]
        return Figure(statistics.median(ratios), min(ratios), max(ratios))

    def jobs(self, part: str, system: str) -> list[str]:
        """The jobs of a part that were measured on a system, in the order of the run."""
        return list(dict.fromkeys(key[2] for key in self._values if key[:2] == (part, system)))

    def systems(self, part: str) -> list[str]:
        return list(dict.fromkeys(key[1] for key in self._values if key[0] == part))


def measured(run: Run) -> list[Setup]:
    """The setups of which there is any figure of fio, in the order of the run."""
    systems = Summary(run).systems("fio")
    return [setup for setup in run.setups if setup.key in systems]
