"""Which of pyfuse3's tasks reads the next request: as many in one pass of trio's scheduler as there are requests.

By itself pyfuse3 hands a lock from task to task, and whoever has it waits in epoll: two passes of the scheduler and a
change of the epoll set for each request; and as each pass brings one request alone, each goes to the nodes in a message
of its own. pyfuse3 takes all that it needs of trio from its module variable `trio`, by which `pyfuse3.asyncio` puts
another library beneath it. Here it gets trio, but for the lock and for the waiting. What that saves:
docs/performance.md, "Through FUSE".
"""

from __future__ import annotations

import contextlib
import select
import signal
from collections.abc import Iterator
from types import SimpleNamespace

import pyfuse3
import trio

# Requests that are read before the other tasks have a turn.
MAX_PER_PASS = 64
# pyfuse3 reads by a blocking call, in the thread that everything else needs. If the process that made the request is
# killed after the call that says that there is one, the kernel takes it back, and the read waits for the next one. A
# signal ends it, and pyfuse3 then waits as it should. Two signals a second cost nothing measurable.
WAKE_UP_S = 0.5


class Readers:
    """The tasks that wait for a request on `fd`, of /dev/fuse. Who returns from `wait_readable` reads one at once.

    One task waits in trio, and the others for a call. Who finds a request calls some of those, unless that has been
    done: so there is always one that waits or is on its way, if there is one that is idle.
    """

    def __init__(self) -> None:
        self._fd = -1
        self._poll = select.poll()
        self._idle: list[trio.lowlevel.Task] = []  # the last one first: its receive buffer is in the CPU's cache
        self._is_one_waiting = False
        self._called = 0  # tasks that have not run yet
        self._found = 0  # requests since there was none
        self._expected = 1  # requests that will be found: as many as before that

    async def wait_readable(self, fd: int) -> None:
        """Return when `fd` has a request, to the task that reads it."""
        if fd != self._fd:
            self._fd = fd
            self._poll.register(fd, select.POLLIN)
        if self._found % MAX_PER_PASS == MAX_PER_PASS - 1:
            await trio.lowlevel.checkpoint()
        while not self._poll.poll(0):
            if self._is_one_waiting or self._called:
                await self._wait_for_a_call()
            else:
                await self._wait_for_a_request()
        self._found += 1
        if not self._is_one_waiting and not self._called:
            self._call(max(self._found, self._expected - self._found))

    async def _wait_for_a_request(self) -> None:
        self._expected, self._found = self._found, 0
        self._is_one_waiting = True
        try:
            await trio.lowlevel.wait_readable(self._fd)
        finally:
            self._is_one_waiting = False

    async def _wait_for_a_call(self) -> None:
        task = trio.lowlevel.current_task()

        def abort(_: object) -> trio.lowlevel.Abort:
            self._idle.remove(task)
            return trio.lowlevel.Abort.SUCCEEDED

        self._idle.append(task)
        await trio.lowlevel.wait_task_rescheduled(abort)
        self._called -= 1

    def _call(self, count: int) -> None:
        for _ in range(min(count, len(self._idle))):
            self._called += 1
            trio.lowlevel.reschedule(self._idle.pop())


@contextlib.contextmanager
def serving() -> Iterator[None]:
    """For the session that pyfuse3 serves meanwhile, one in a process. To be entered in the main thread."""
    lowlevel = SimpleNamespace(**{**vars(trio.lowlevel), "wait_readable": Readers().wait_readable})
    given = SimpleNamespace(**{**vars(trio), "lowlevel": lowlevel, "Lock": contextlib.nullcontext})
    pyfuse3.trio = given  # type: ignore[attr-defined]
    # A handler, other than none at all, lets the signal interrupt what it finds.
    previous = signal.signal(signal.SIGALRM, lambda number, frame: None)
    signal.setitimer(signal.ITIMER_REAL, WAKE_UP_S, WAKE_UP_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, previous)
        pyfuse3.trio = trio  # type: ignore[attr-defined]
