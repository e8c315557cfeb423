"""What commands have in common that stay until they are ended: a configuration that may change, and the end."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable

import trio

from dsreg.config import ClusterConfig, load_config
from dsreg.errors import ConfigError
from dsreg.volume.signals import signals_to_answer

EXIT_TERMINATED = 128 + signal.SIGTERM


async def until_signal(what: Callable[[], Awaitable[None]]) -> int:
    """Do it until it is done, or SIGINT or SIGTERM ends it; the exit code."""
    code = 0

    async def end_on_signal(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
        nonlocal code
        async for number in signals:
            code = EXIT_TERMINATED if number == signal.SIGTERM else 0
            scope.cancel()
            return

    with signals_to_answer() as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(end_on_signal, signals, nursery.cancel_scope)
            await what()
            nursery.cancel_scope.cancel()
    return code


class Followed:
    """A configuration whose file may be changed."""

    def __init__(self, config: ClusterConfig) -> None:
        self.config = config
        self.fault = ""
        self._signature = self._look()

    def _look(self) -> tuple[int, int, int] | None:
        try:
            found = os.stat(self.config.path)
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino

    def changed(self) -> bool:
        """Whether there is another one now, in `config`. One that cannot be used leaves the one before."""
        signature = self._look()
        if signature == self._signature and not self.fault:
            return False
        self._signature = signature
        try:
            config = load_config(self.config.path, need_system_key=False)
        except ConfigError as error:
            self.fault = "; ".join(error.faults)
            return False
        self.fault = ""
        changed, self.config = config != self.config, config
        return changed
