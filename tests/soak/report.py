"""The summary of a soak: a progress line, text, Markdown, JSON."""

from __future__ import annotations

import json
import platform
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.soak.schedule import Soak
from tests.soak.tally import Tally

# What the table of the summary shows of the counts, and as what. All else is in the JSON.
SHOWN = {
    "seeds": "simulator seeds",
    "operations": "operations checked in the simulator",
    "crash states": "crash states recovered from",
    "fuzz rounds": "rounds of fuzzing",
    "chaos rounds": "chaos rounds with real processes",
    "chaos operations": "operations checked on real processes",
    "commits": "database commits found again",
    "kills": "processes killed",
}


def clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def progress_line(soak: Soak) -> str:
    counts = soak.tally.counts
    parts = [f"{clock(soak.elapsed_s)} of {clock(soak.end_s - soak.started_s)}"]
    parts += [f"{counts[name]:,} {name}" for name in SHOWN if counts[name]]
    parts += [f"{soak.tally.faults.total():,} faults", f"{soak.tally.failed} failed"]
    return ", ".join(parts)


def show_progress() -> Callable[[Soak], None]:
    """Rewrites one line every second where somebody watches, else prints one a minute. Failures come at once."""
    every_s = 1.0 if sys.stderr.isatty() else 60.0
    shown_s, failures = time.monotonic(), 0

    def show(soak: Soak) -> None:
        nonlocal shown_s, failures
        for failure in soak.tally.failures[failures:]:
            print(f"\n{failure.part} FAILED: {failure.what}\n  {failure.replay}\n  {failure.log}", flush=True)
        failures = len(soak.tally.failures)
        if time.monotonic() < shown_s + every_s:
            return
        shown_s = time.monotonic()
        if sys.stderr.isatty():
            print(f"\r\033[K{progress_line(soak)}", end="", file=sys.stderr, flush=True)
        else:
            print(progress_line(soak), file=sys.stderr, flush=True)

    return show


def rows(tally: Tally) -> list[tuple[str, str]]:
    counts = tally.counts
    found = [(text, f"{counts[name]:,}") for name, text in SHOWN.items() if counts[name]]
    if counts["simulated seconds"]:
        found.insert(2, ("cluster-hours simulated", f"{counts['simulated seconds'] / 3600:,.1f}"))
    return [*found, ("faults injected", f"{tally.faults.total():,}"), ("failures", f"{tally.failed:,}")]


def markdown(soak: Soak) -> str:
    lines = [
        f"{clock(soak.elapsed_s)} minutes on {soak.slots} processes, Python {platform.python_version()}, "
        f"seed {soak.seed}{', interrupted' if soak.interrupted else ''}", "",
        "| what | how much |", "|---|---:|",
        *(f"| {name} | {value} |" for name, value in rows(soak.tally)), "",
        "| fault | times |", "|---|---:|",
        *(f"| {name} | {count:,} |" for name, count in ordered(soak.tally.faults)),
    ]
    for failure in soak.tally.failures:
        lines += ["", f"{failure.part} failed; replay: `{failure.replay}`", "", "```", failure.what, "```"]
        lines += [f"log: {failure.log}"] if failure.log else []
    return "\n".join(lines) + "\n"


def ordered(counter: Counter[str]) -> list[tuple[str, int]]:
    return sorted(counter.items(), key=lambda item: (-item[1], item[0]))


def document(soak: Soak) -> dict[str, Any]:
    return {
        "seed": soak.seed, "seconds": round(soak.elapsed_s), "processes": soak.slots, "interrupted": soak.interrupted,
        "total": soak.tally.to_json(), "parts": {name: tally.to_json() for name, tally in soak.by_part.items()},
    }


def text(soak: Soak) -> str:
    lines = [f"{clock(soak.elapsed_s)} minutes, seed {soak.seed}{', interrupted' if soak.interrupted else ''}"]
    lines += [f"{value:>14} {name}" for name, value in rows(soak.tally)]
    lines += ["faults: " + ", ".join(f"{name} {count:,}" for name, count in ordered(soak.tally.faults))]
    lines += [f"{failure.part} failed, replay: {failure.replay}" for failure in soak.tally.failures]
    return "\n".join(lines)


def write(soak: Soak, path: Path) -> None:
    """Markdown, and the same and more as JSON beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".md").write_text(markdown(soak))
    path.with_suffix(".json").write_text(json.dumps(document(soak), indent=1) + "\n")
