"""docs/metrics.md as a reference: the metrics that it names, and those that there are."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from prometheus_client.parser import text_string_to_metric_families as parse_text

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs" / "metrics.md"
_ROW = re.compile(r"^\| `(?P<name>dsreg_\w+)` \| (?P<kind>\w+) \| (?P<labels>[^|]*) \| (?P<about>.*) \|$", re.MULTILINE)
_ENDS = {"histogram": ("_bucket", "_sum", "_count")}


class Described(NamedTuple):
    """A metric as Prometheus has it: a counter with `_total`, an info with `_info`. `labels`: without `le`."""

    name: str
    kind: str
    labels: tuple[str, ...]
    about: str

    @property
    def row(self) -> str:
        """Of the table."""
        labels = ", ".join(f"`{label}`" for label in self.labels)
        return f"| `{self.name}` | {self.kind} | {labels} | {self.about} |"

    @property
    def series(self) -> tuple[str, ...]:
        """The names of its samples."""
        return tuple(self.name + end for end in _ENDS.get(self.kind, ("",)))


def documented() -> list[Described]:
    """By the tables."""
    return [Described(row["name"], row["kind"], tuple(re.findall(r"`(\w+)`", row["labels"])), row["about"])
            for row in _ROW.finditer(DOCUMENT.read_text())]


def served(text: str) -> Iterable[Described]:
    """By what a process has answered, in its order, without what every process has."""
    for family in parse_text(text):
        if not family.name.startswith("dsreg_"):
            continue
        labels: dict[str, None] = {}
        for sample in family.samples:
            labels.update(dict.fromkeys(name for name in sample.labels if name != "le"))
        name = f"{family.name}_total" if family.type == "counter" else family.name
        kind = "info" if name.endswith("_info") else family.type
        yield Described(name, kind, tuple(labels), family.documentation)
