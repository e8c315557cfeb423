"""What the demonstration says: steps as they happen, progress bars, a table at the end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table


class DemoFailed(Exception):
    """The demonstration did not go as it should; the text says what was seen instead."""


class Step:
    """One row of the table. `seen` is what came of it, in a few words."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.seen = ""
        self.elapsed_s = 0.0
        self.done = False


class Report:
    def __init__(self) -> None:
        self.console = Console(highlight=False)
        self.steps: list[Step] = []

    def say(self, text: str) -> None:
        self.console.print(text, markup=False)

    @contextmanager
    def step(self, title: str) -> Iterator[Step]:
        """Announces the step, measures it and, when it ends well, adds it to the table."""
        step = Step(title)
        self.steps.append(step)
        self.say(f"- {title}")
        started = time.monotonic()
        try:
            yield step
            step.done = True
        finally:
            step.elapsed_s = time.monotonic() - started

    @contextmanager
    def progress(self, title: str, total: int) -> Iterator[Progress]:
        """A bar of `total` pieces; advance its only task, number 0. Without a terminal it is drawn once, at the end."""
        columns = (TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self.console) as progress:
            progress.add_task(title, total=total)
            yield progress

    def table(self) -> None:
        """Prints the steps, how long each took and what was seen."""
        table = Table(title="What was seen", title_justify="left")
        table.add_column("step")
        table.add_column("seconds", justify="right")
        table.add_column("seen")
        for step in self.steps:
            table.add_row(step.title, f"{step.elapsed_s:.1f}", step.seen if step.done else "FAILED")
        self.console.print(table)
