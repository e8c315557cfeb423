"""The cache without its clock: what one run that ends, or one writer that leaves, sets off at once."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dsreg.cache import Limits, WritebackCache
from dsreg.constants import SECTOR_SIZE
from dsreg.errors import (
    AttachRefused,
    ClientClosed,
    DiskFenced,
    DsregError,
    NodesFull,
    OperationTimeout,
    Outcome,
    OutOfRange,
    WritebackFailed,
)
from dsreg.store import Done, Submitted
from dsreg.testing.memory_store import MemoryStore
from dsreg.volume.failures import errno_of

SMALL = Limits(buffered=8 * SECTOR_SIZE, low_water=8 * SECTOR_SIZE, age_s=1000.0, runs=1)
FULL = NodesFull("no room on nodes 1 and 2", Outcome.DID_NOT_HAPPEN)


class Store(MemoryStore):
    """Runs end at the end of the turn. `error`: how those fail that are submitted now, None if they do not."""

    def __init__(self) -> None:
        super().__init__(4096, holds=True)
        self.error: DsregError | None = None
        self.turns = 0

    def submit(self, first: int, count: int, data: bytes | None, done: Done) -> Submitted:
        error = self.error
        if error is None:
            return super().submit(first, count, data, done)
        return super().submit(first, count, None, lambda nothing, other: done(b"", error))

    def end_turn(self) -> None:
        self.turns += 1
        super().end_turn()


class Scene:
    """A cache whose time is `now_s`, and what has ended, by name."""

    def __init__(self, bounds: Limits = SMALL, timeout_s: float | None = None) -> None:
        self.now_s = 0.0
        self.store = Store()
        self.cache = WritebackCache(self.store, timeout_s, bounds, lambda: self.now_s)
        self.told: dict[str, DsregError | None] = {}

    def done(self, name: str) -> Done:
        def tell(data: object, error: DsregError | None) -> None:
            assert name not in self.told
            self.told[name] = error

        return tell

    def write(self, name: str, first: int, sectors: int = 1) -> Submitted:
        return self.cache.submit(first, sectors, bytes(sectors * SECTOR_SIZE), self.done(name))

    def flush(self, name: str = "flush") -> None:
        self.cache.flush(self.done(name))


def test_a_flush_needs_no_tick_however_many_runs_it_takes() -> None:
    scene = Scene()
    for chunk in range(3):  # one run each, of which one is under way at a time
        scene.write(str(chunk), chunk * 256)
    scene.flush()
    assert "flush" not in scene.told
    scene.cache.end_turn()
    assert scene.told["flush"] is None and scene.cache.is_idle


def test_all_writers_come_in_for_whom_there_is_room() -> None:
    scene = Scene()
    scene.write("full", 0, 8)
    for name in ("one", "two", "three"):
        scene.write(name, 256 * 2, 2)
    assert list(scene.told) == ["full"]
    scene.cache.end_turn()
    assert list(scene.told) == ["full", "one", "two", "three"] and not any(scene.told.values())


def test_who_stands_behind_a_writer_that_gives_up_comes_in_at_once() -> None:
    scene = Scene()
    scene.write("half", 0, 4)
    large = scene.write("large", 256, 8)
    scene.write("small", 512)
    assert list(scene.told) == ["half"]
    assert large.abandon() is Outcome.DID_NOT_HAPPEN
    assert list(scene.told) == ["half", "small"]
    assert large.abandon() is Outcome.MAY_HAVE_HAPPENED  # as far as is known of one that does not wait


def test_what_a_tick_lets_go_is_sent_by_it() -> None:
    scene = Scene()
    scene.write("old", 0)
    scene.now_s = 1001.0
    turns = scene.store.turns
    scene.cache.tick()
    assert scene.store.turns > turns and scene.cache.is_idle and scene.store.content[0] == bytes(SECTOR_SIZE)


def test_who_has_waited_too_long_is_told_why_nothing_went_out(allow_logs: Callable[[str], None]) -> None:
    """So that `eio` can answer ENOSPC, which is what has to be mended."""
    allow_logs("writing back sectors .* failed")
    scene = Scene(timeout_s=5.0)
    scene.store.error = FULL
    scene.write("full", 0, 8)
    scene.write("late", 256, 8)
    scene.cache.end_turn()
    scene.now_s = 5.0
    scene.cache.tick()
    late = scene.told["late"]
    assert isinstance(late, OperationTimeout) and late.outcome is Outcome.DID_NOT_HAPPEN
    assert late.__cause__ is FULL and errno_of(late) == errno_of(FULL)


def test_a_failure_is_said_again_after_it_was_over(allow_logs: Callable[[str], None], caplog: pytest.LogCaptureFixture
                                                   ) -> None:
    allow_logs("writing back sectors .* failed")
    allow_logs("writing back works again")
    scene = Scene()
    said = []
    for error in (FULL, FULL, None, None, FULL, None):
        scene.store.error = error
        scene.write("", 0)
        del scene.told[""]
        scene.flush()
        scene.cache.end_turn()
        del scene.told["flush"]
        said.append(len(caplog.messages))
    assert said == [1, 1, 2, 2, 3, 4]


@pytest.mark.parametrize(("kind", "is_final"), [
    (AttachRefused, True), (ClientClosed, True), (DiskFenced, True), (OutOfRange, True),
    (NodesFull, False), (OperationTimeout, False),
])
def test_a_failed_flush_says_whether_another_one_can_help(
    kind: type[AttachRefused], is_final: bool, allow_logs: Callable[[str], None]
) -> None:
    allow_logs("writing back sectors .* failed" if not is_final else "it cannot be tried again")
    scene = Scene()
    scene.store.error = kind("for this reason", Outcome.DID_NOT_HAPPEN)
    scene.write("write", 0)
    scene.flush()
    scene.cache.end_turn()
    failure = scene.told["flush"]
    assert isinstance(failure, WritebackFailed) and failure.is_final is is_final
