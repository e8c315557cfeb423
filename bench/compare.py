"""Two versions of this project on one machine, by turns: `python -m bench.compare BEFORE AFTER`.

BEFORE and AFTER are working trees after `make setup`; each runs its own `python -m bench` and `python -m scripts.hops`.
A figure is the ratio of AFTER to BEFORE within one pair of runs, where the hour does the same to both: the median of
the pairs, with the lowest and the highest. Rates above 1 and times below 1 are for AFTER.
"""

from __future__ import annotations

import re
import statistics
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import click

from bench import record
from bench.record import Run
from bench.shell import BenchFailed, call
from bench.summary import Figure
from bench.tables import cell, table

SYSTEMS = "ours,ours-cache"
# Figures of a sample that are compared; the others say the same in another unit, or are extremes.
FIGURES = ("per_s", "cpu_us", "client_cpu_us", "seconds", "gap_ms", "mean_MB")
RUN_S = 7200.0
# More than so much worse is marked.
TOLERANCE = 0.03
HOP = re.compile("^\u2502 (\\S.*?) +\u2502 +([\\d.]+) +\u2502")  # rich draws tables with this bar
Costs = dict[str, float]


@click.command(help=__doc__, context_settings={"ignore_unknown_options": True})
@click.argument("before", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("after", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--pairs", type=click.IntRange(1, 99), default=3, show_default=True, help="How often each is run.")
@click.option("--systems", default=SYSTEMS, show_default=True, help="Keys of bench.systems that both have.")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def main(before: Path, after: Path, pairs: int, systems: str, arguments: tuple[str, ...]) -> None:
    trees = (before.resolve(), after.resolve())
    costs: tuple[list[Costs], list[Costs]] = ([], [])
    try:
        for number in range(pairs):
            for index in (0, 1) if number % 2 == 0 else (1, 0):
                click.echo(f"pair {number + 1} of {pairs}: {trees[index]}", err=True)
                costs[index].append(measure(trees[index], arguments, systems.split(",")))
    except BenchFailed as error:
        click.echo(f"bench: {error}", err=True)
        sys.exit(1)
    click.echo(report(*costs), nl=False)


def measure(tree: Path, arguments: Iterable[str], systems: Iterable[str]) -> Costs:
    """One run of everything in `tree`. Raises BenchFailed."""
    python = tree / ".venv/bin/python"
    with tempfile.TemporaryDirectory() as output:
        call("env", "-C", tree, python, "-m", "bench", "--rounds", "1", "--output", output, *arguments, timeout_s=RUN_S)
        found = figures_of(record.load(Path(output) / "benchmarks.json"), systems)
    return found | hops_of(call("env", "-C", tree, "COLUMNS=200", python, "-m", "scripts.hops", timeout_s=RUN_S))


def figures_of(run: Run, systems: Iterable[str]) -> Costs:
    """What was measured of `systems` and over TCP, by a name that says which way is better."""
    labels = set(systems)
    return {
        f"{sample.system}, {sample.part}, {sample.job}: {name}": value
        for sample in run.samples if sample.system in labels or sample.system.startswith("tcp-")
        for name, value in sample.figures.items() if name in FIGURES
    }


def hops_of(printed: str) -> Costs:
    """The table of scripts.hops, in CPU microseconds."""
    found = {f"hops, {match[1]}: us": float(match[2]) for line in printed.splitlines() if (match := HOP.match(line))}
    if not found:
        raise BenchFailed("scripts.hops has printed no table")
    return found


def report(before: list[Costs], after: list[Costs]) -> str:
    """A table of what both have; "worse" where the median is by more than TOLERANCE."""
    rows = []
    for name in before[0]:
        if not all(name in run for run in (*before, *after)):
            continue
        ratios = [new[name] / old[name] for old, new in zip(before, after, strict=True) if old[name]]
        if ratios:
            figure = Figure(statistics.median(ratios), min(ratios), max(ratios))
            loss = 1 - figure.median if name.endswith("per_s") else figure.median - 1
            rows.append((name, cell(figure), "worse" if loss > TOLERANCE else ""))
    return table(("figure", "after / before", ""), rows)


if __name__ == "__main__":
    main()
