"""Worker: one thread for one kind of blocking call, one call at a time.

A commit is short and on the path of every write, and trio.to_thread costs it more than twice the CPU
that handing it to a thread that waits for it does (docs/performance.md).
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import outcome
import trio

T = TypeVar("T")


class Worker:
    """Made in a trio run; the thread ends with `close`."""

    def __init__(self, name: str) -> None:
        self._calls: queue.SimpleQueue[tuple[Callable[[], Any], trio.lowlevel.Task] | None] = queue.SimpleQueue()
        self._token = trio.lowlevel.current_trio_token()
        threading.Thread(target=self._serve, name=name, daemon=True).start()

    async def run(self, call: Callable[[], T]) -> T:
        """`call()` in the thread. Not cancelled half way: what was begun is finished."""
        self._calls.put((call, trio.lowlevel.current_task()))

        def refuse_to_abort(_: object) -> trio.lowlevel.Abort:
            return trio.lowlevel.Abort.FAILED

        result: T = await trio.lowlevel.wait_task_rescheduled(refuse_to_abort)
        return result

    def close(self) -> None:
        self._calls.put(None)

    def _serve(self) -> None:
        while (job := self._calls.get()) is not None:
            call, task = job
            result = outcome.capture(call)
            self._token.run_sync_soon(trio.lowlevel.reschedule, task, result)
