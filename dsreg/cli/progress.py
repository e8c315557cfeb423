"""A progress bar on stderr for what takes longer than a second, where there is a person to see it."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from dsreg.cli.console import new_console
from dsreg.units import rate_text

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn, TaskID

APPEARS_AFTER_S = 1.0


class Advance:
    """Called with the amount done since the last call: bytes, or seconds for a run of fixed length. Shows nothing where
    there is no bar."""

    def __init__(self, bar: Progress | None = None, task: TaskID | None = None) -> None:
        self._bar = bar
        self._task = task

    def __call__(self, amount: float) -> None:
        if self._bar is not None and self._task is not None:
            self._bar.advance(self._task, amount)

    def total(self, total: float) -> None:
        """It has become known, or has changed: all that there is to do, what is done included."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, total=total)


@asynccontextmanager
async def progress_bar(title: str, total: float | None, *, show_bytes: bool = True) -> AsyncIterator[Advance]:
    """The bar of `total` (None: unknown). It shows up after a second and only on a terminal."""
    if not sys.stderr.isatty():
        yield Advance()
        return
    # Imported here: it takes longer than most commands, and only a terminal needs it.
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = [DownloadColumn(binary_units=True), _rate_column()] if show_bytes else []
    bar = Progress(TextColumn(title), BarColumn(), *columns, TimeRemainingColumn(), console=new_console(stderr=True),
                   transient=total is None)
    advance = Advance(bar, bar.add_task(title, total=total))

    async def appear() -> None:
        await trio.sleep(APPEARS_AFTER_S)
        bar.start()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(appear)
        try:
            yield advance
        finally:
            bar.stop()
            nursery.cancel_scope.cancel()


def _rate_column() -> ProgressColumn:
    """As rich's own, but in the units of all other figures."""
    from rich.progress import ProgressColumn, Task
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text("?" if speed is None else rate_text(speed), style="progress.data.speed")

    return Rate()
