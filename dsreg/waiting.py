"""Waiter: lets a task wait for a callback, at the cost of one task switch."""

from __future__ import annotations

from collections.abc import Callable

import trio

from dsreg.errors import DsregError
from dsreg.store import Buffer


class Waiter:
    """Give `done` away, then `wait`."""

    __slots__ = ("_data", "_error", "_is_over", "_task")

    def __init__(self) -> None:
        self._data: Buffer = b""
        self._error: DsregError | None = None
        self._is_over = False
        self._task: trio.lowlevel.Task | None = None

    def done(self, data: Buffer, error: DsregError | None) -> None:
        self._data, self._error, self._is_over = data, error, True
        if self._task is not None:
            trio.lowlevel.reschedule(self._task)
            self._task = None

    async def wait(self, give_up: Callable[[], object] = lambda: None) -> Buffer:
        """What `done` was told; raises the error. `give_up` is called if the wait is cancelled."""

        def abort(_: object) -> trio.lowlevel.Abort:
            self._task = None
            give_up()
            return trio.lowlevel.Abort.SUCCEEDED

        if not self._is_over:
            self._task = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(abort)
        if self._error is not None:
            raise self._error
        return self._data
