"""Stores and block devices for tasks that wait, and stores that are made of tasks."""

from __future__ import annotations

from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, Protocol

import trio

from dsreg.block_device import BlockDevice
from dsreg.constants import MAX_RUN_SECTORS, SECTOR_SIZE
from dsreg.errors import DsregError, Outcome
from dsreg.protocol.zeros import is_zeros
from dsreg.store import Buffer, Done, Flush, Read, Request, Runs, SectorStore, Submitted, Write, out_of_range
from dsreg.waiting import Waiter


class Tasks:
    """Any SectorStore, with calls that wait."""

    def __init__(self, store: SectorStore) -> None:
        self.store = store
        self.sectors = store.sectors

    async def read(self, sector: int, count: int = 1) -> bytes:
        return bytes(await self._run(sector, count, None))

    async def write(self, sector: int, data: Buffer) -> None:
        await self._run(sector, len(data) // SECTOR_SIZE, bytes(data))

    async def flush(self) -> None:
        waiter = Waiter()
        self.store.flush(waiter.done)
        self.store.end_turn()
        await waiter.wait()

    async def _run(self, sector: int, count: int, data: bytes | None) -> Buffer:
        if sector < 0 or sector + count > self.sectors:
            raise out_of_range(sector, count, self.sectors)
        waiter = Waiter()
        runs = Runs(self.store, sector, count, data, waiter.done, 4)
        self.store.end_turn()
        await trio.lowlevel.checkpoint()
        self.store.end_turn()
        return await waiter.wait(runs.abandon)


class Bytes:
    """A block device, with calls that wait."""

    def __init__(self, device: BlockDevice) -> None:
        self.device = device
        self.size = device.size

    async def read(self, offset: int, length: int) -> bytes:
        return bytes(await self.call(Read(offset, length)))

    async def write(self, offset: int, data: Buffer, fua: bool = False) -> None:
        await self.call(Write(offset, data, fua))

    async def flush(self) -> None:
        await self.call(Flush())

    async def call(self, request: Request) -> Buffer:
        waiter = Waiter()
        self.device.submit(request, waiter.done)
        self.device.end_turn()
        await trio.lowlevel.checkpoint()
        return await waiter.wait()


class Slow(Protocol):
    """A store whose runs take their time, each in a task of its own."""

    @property
    def sectors(self) -> int: ...

    async def read(self, sector: int, count: int = 1) -> bytes: ...

    async def write(self, sector: int, data: bytes) -> None: ...


@dataclass(eq=False)
class _Task:
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)

    def abandon(self) -> Outcome:
        self.scope.cancel()
        return Outcome.MAY_HAVE_HAPPENED


class OfTasks:
    """A SectorStore made of one whose runs take their time."""

    is_cached = False
    obstacle = ""

    def __init__(self, store: Slow) -> None:
        self.store = store
        self.sectors = store.sectors
        self._tasks: set[_Task] = set()

    def submit(self, first: int, count: int, data: bytes | None, done: Done) -> Submitted:
        return self._begin(done, self.store.read(first, count) if data is None else self.store.write(first, data))

    def zero(self, first: int, count: int, done: Done) -> Submitted:
        return self._begin(done, self._write_zeros(first, count))

    def map(self, first: int, count: int, done: Done) -> Submitted:
        return self._begin(done, self._holes(first, count))

    async def _holes(self, first: int, count: int) -> bytes:
        """By reading all."""
        chunks = range(first, first + count, MAX_RUN_SECTORS)
        return bytes([is_zeros(await self.store.read(chunk, MAX_RUN_SECTORS)) for chunk in chunks])

    async def _write_zeros(self, first: int, count: int) -> None:
        for sector in range(first, first + count, MAX_RUN_SECTORS):
            await self.store.write(sector, bytes(min(MAX_RUN_SECTORS, first + count - sector) * SECTOR_SIZE))

    def _begin(self, done: Done, work: Coroutine[Any, Any, bytes | None]) -> Submitted:
        task = _Task()
        self._tasks.add(task)
        trio.lowlevel.spawn_system_task(self._run, task, work, done)
        return task

    async def _run(self, task: _Task, work: Coroutine[Any, Any, bytes | None], done: Done) -> None:
        content, error = None, None
        with task.scope:
            try:
                content = await work
            except DsregError as caught:
                error = caught
        self._tasks.discard(task)
        if not task.scope.cancelled_caught:
            done(content or b"", error)

    async def crash(self) -> None:
        """What is under way ends somewhere in the middle, and nobody is told."""
        for task in self._tasks:
            task.scope.cancel()
        with trio.CancelScope(shield=True):
            while self._tasks:
                await trio.lowlevel.checkpoint()

    def flush(self, done: Done) -> None:
        done(b"", None)

    def end_turn(self) -> None:
        pass
