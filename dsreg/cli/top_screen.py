"""The terminal of `dsreg top`: drawn over what was there, with keys, and left as it was found."""

from __future__ import annotations

import os
import signal
import sys
import termios
import tty
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import trio
from rich.live import Live

from dsreg.cli.console import new_console
from dsreg.cli.top_round import Round
from dsreg.cli.top_view import view

_QUIT, _PAUSE = b"qQ", b"pP "


class Screen:
    """Between `__enter__` and `__exit__` the terminal shows another screen, and gives keys at once and without an echo,
    where stdin is one as well."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._has_keys = sys.stdin.isatty()
        self._is_paused = False
        self._seen: Round | None = None
        self._before: list[Any] = []
        self._live = Live(console=new_console(), screen=True, auto_refresh=False, redirect_stdout=False,
                          redirect_stderr=False)

    def __enter__(self) -> Self:
        if self._has_keys:
            self._before = termios.tcgetattr(sys.stdin)
        self._take_over()
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()
        if self._has_keys:
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, self._before)

    def _take_over(self) -> None:
        if self._has_keys:
            tty.setcbreak(sys.stdin, termios.TCSADRAIN)  # Ctrl-C stays a signal

    def show(self, seen: Round) -> None:
        """As soon as it is not paused."""
        if not self._is_paused:
            self._seen = seen
            self._draw()

    def _draw(self) -> None:
        if self._seen is None:
            return
        console = self._live.console  # its size is that of the terminal at this moment
        keys = f"every {self._interval_s:g} s; "
        keys += "q: quit  p: pause" if self._has_keys else "Ctrl-C: quit"
        if self._is_paused:
            keys = "PAUSED; q: quit  p: go on"
        self._live.update(view(self._seen, console.width, console.height, keys), refresh=True)

    async def keys(self, end: Callable[[], None]) -> None:
        """Until one of them means the end, or there are none to come."""
        while self._has_keys:
            await trio.lowlevel.wait_readable(sys.stdin)
            pressed = os.read(sys.stdin.fileno(), 64)
            if not pressed:
                return
            if any(key in _QUIT for key in pressed):
                end()
            elif any(key in _PAUSE for key in pressed):
                self._is_paused = not self._is_paused
                self._draw()

    async def resizes(self) -> None:
        """Draw anew for each size of the terminal, and when the process goes on after it was stopped: a shell has used
        the terminal meanwhile."""
        with trio.open_signal_receiver(signal.SIGWINCH, signal.SIGCONT) as signals:
            async for number in signals:
                if number == signal.SIGCONT:
                    self._take_over()
                    self._live.console.set_alt_screen(True)
                self._draw()
