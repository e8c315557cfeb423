"""The bar on the terminal: how many of the measurements are done, and which one is running."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class Bar:
    """Use it as a context; nothing is drawn where standard error is no terminal."""

    def __init__(self, total: int) -> None:
        console = Console(stderr=True, highlight=False)
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            TimeRemainingColumn(), console=console, disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("setting up", total=total)

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
                 ) -> None:
        self._progress.stop()

    def say(self, what: str) -> None:
        self._progress.update(self._task, description=what)

    def step(self, amount: int = 1) -> None:
        self._progress.advance(self._task, amount)
