"""What a soak counts, within a job and over all of them."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any

# Of failures, so that a bug that every seed finds does not fill the disk.
MAX_FAILURES = 200


@dataclasses.dataclass(frozen=True)
class Failure:
    """`replay`: the one command that shows it again. `log`: where more is written, "" if nowhere."""

    part: str
    what: str
    replay: str
    log: str = ""


@dataclasses.dataclass
class Tally:
    """`counts`: how much was done, by what. `faults`: injected ones, by kind. `failures`: at most MAX_FAILURES are
    kept, all are counted."""

    counts: Counter[str] = dataclasses.field(default_factory=Counter)
    faults: Counter[str] = dataclasses.field(default_factory=Counter)
    failures: list[Failure] = dataclasses.field(default_factory=list)
    failed: int = 0

    def fail(self, failure: Failure) -> None:
        self.failed += 1
        if len(self.failures) < MAX_FAILURES:
            self.failures.append(failure)

    def add(self, other: Tally) -> None:
        self.counts.update(other.counts)
        self.faults.update(other.faults)
        for failure in other.failures:
            self.fail(failure)
        self.failed += other.failed - len(other.failures)

    def to_json(self) -> dict[str, Any]:
        failures = [dataclasses.asdict(failure) for failure in self.failures]
        return {"counts": self.counts, "faults": self.faults, "failures": failures, "failed": self.failed}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Tally:
        failures = [Failure(**failure) for failure in document["failures"]]
        return cls(Counter(document["counts"]), Counter(document["faults"]), failures, document["failed"])
