"""A progress bar on stderr for what takes longer than a second, where there is a person to see it."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

import trio

from dsreg.cli.console import new_console

APPEARS_AFTER_S = 1.0


class Advance(Protocol):
    """Called with the amount done since the last call: bytes, or seconds for a run of fixed length."""

    def __call__(self, amount: float) -> None: ...


@asynccontextmanager
async def progress_bar(title: str, total: float | None, *, show_bytes: bool = True) -> AsyncIterator[Advance]:
    """The bar of `total` (None: unknown). It shows up after a second and only on a terminal."""
    if not sys.stderr.isatty():
        yield lambda amount: None
        return
    # Imported here: it takes longer than most commands, and only a terminal needs it.
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = [DownloadColumn(binary_units=True), TransferSpeedColumn()] if show_bytes else []
    bar = Progress(TextColumn(title), BarColumn(), *columns, TimeRemainingColumn(), console=new_console(stderr=True),
                   transient=total is None)
    task = bar.add_task(title, total=total)

    async def appear() -> None:
        await trio.sleep(APPEARS_AFTER_S)
        bar.start()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(appear)
        try:
            yield lambda amount: bar.advance(task, amount)
        finally:
            bar.stop()
            nursery.cancel_scope.cancel()
