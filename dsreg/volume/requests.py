"""Volume: a disk whose requests are watched, and whose failures have an errno and a log line."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from typing import Protocol

from dsreg.errors import DsregError
from dsreg.store import Buffer, Done, Flush, Request
from dsreg.volume.failures import ErrorLog, errno_of
from dsreg.volume.metering import EdgeMeter
from dsreg.volume.slow import SlowRequests
from dsreg.volume.stall import StallWatch
from dsreg.waiting import Waiter

log = logging.getLogger(__name__)

# What was read, or b"", and 0; or b"" and the errno of the failure.
Answer = Callable[[Buffer, int], None]


class Disk(Protocol):
    """What is needed of a block device: dsreg.block_device.BlockDevice has it."""

    @property
    def size(self) -> int: ...

    @property
    def is_cached(self) -> bool: ...

    @property
    def obstacle(self) -> str: ...

    def submit(self, request: Request, done: Done) -> None: ...

    def end_turn(self) -> None: ...


class Volume:
    """`disk` for an edge. `stall_watch.watch` is a task for whoever runs the volume. `meter`: told of each request that
    has ended. `slow`: of each that took its `limit_s` or longer."""

    def __init__(self, disk: Disk, meter: EdgeMeter | None = None, slow: SlowRequests | None = None) -> None:
        self.on_resized: Callable[[], None] = lambda: None  # `size` is another one
        self.end_turn = disk.end_turn  # what has been submitted in a turn of the event loop is sent
        self.stall_watch = StallWatch(why=lambda: disk.obstacle)
        if meter is not None:
            self.stall_watch.on_stall = meter.stalled
        self._meter = meter
        self._slow = slow
        self._disk = disk
        self._error_log = ErrorLog()
        self._last_request = 0

    @property
    def size(self) -> int:
        """In bytes; it may grow."""
        return self._disk.size

    @property
    def is_cached(self) -> bool:
        """Whether a write that has ended is durable only after the next flush."""
        return self._disk.is_cached

    def submit(self, request: Request, answer: Answer) -> None:
        """Carry out `request` (dsreg.store); `answer` is called once, at once or later."""
        number = self._last_request = self._last_request + 1
        started = self.stall_watch.started
        started[number] = (self.stall_watch.clock(), request)
        meter, slow = self._meter, self._slow

        def done(data: Buffer, error: DsregError | None) -> None:
            begun = started.pop(number, None)
            if begun is None:
                return
            if meter is not None:
                meter.ended(request, self.stall_watch.clock() - begun[0], failed=error is not None)
            answer(data, 0 if error is None else self.failure(type(request).__name__.lower(), error))
            if slow is not None and (took_s := self.stall_watch.clock() - begun[0]) >= slow.limit_s:
                slow.ended(request, took_s, is_cached=self._disk.is_cached)

        try:
            self._disk.submit(request, done)
        except BaseException:
            started.pop(number, None)
            raise

    def abandon(self) -> None:
        """Nobody waits for what is under way any more: it is neither answered nor, if it fails, logged."""
        self.stall_watch.started.clear()

    async def flush(self) -> None:
        """Returned: what was written before is durable. Raises DsregError."""
        waiter = Waiter()
        self._disk.submit(Flush(), waiter.done)
        self.end_turn()
        await waiter.wait()

    def failure(self, operation: str, error: Exception) -> int:
        """The errno that stands for `error`, with which a request has ended: what the disk says is a log line, a bug is
        EIO and a traceback. One process gets an error for one request; everybody else's requests go on."""
        if isinstance(error, DsregError):
            code = errno_of(error)
            self._error_log.error(operation, error, code)
            return code
        log.error("%s: a bug in this program; the request is answered with EIO", operation, exc_info=error,
                  extra={"operation": operation, "error": type(error).__name__})
        return errno.EIO
