"""What the disk's tasks do with commits, loads and checkpoints, in which thread, and what waits for what."""

from __future__ import annotations

import threading

import pytest
import trio
import trio.testing

from dsreg.constants import MIN_JOURNAL_BYTES
from dsreg.node import disk as disk_module
from dsreg.protocol.messages import Status
from dsreg.protocol.tags import pack_tag
from dsreg.storage.layout import JOURNALS, SECTORS
from tests.node.scene import PATIENCE_S, Scene, running, store

pytestmark = [pytest.mark.pure]

JOURNAL = JOURNALS[1]  # that of a new directory's first segment
MAIN = threading.main_thread().name


class Clock:
    """What the disk measures its commits with. Each takes `commit_s`, however loaded the machine is."""

    def __init__(self) -> None:
        self.commit_s = 0.0
        self._now_s = 0.0

    def perf_counter(self) -> float:
        self._now_s += self.commit_s
        return self._now_s


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(disk_module, "time", clock)
    return clock


def is_quick(scene: Scene) -> None:
    """As a disk that has committed quickly some times."""
    scene.disk._commit_s = 0.0


async def test_an_answer_comes_after_the_sync_of_a_commit_at_once() -> None:
    async with running(Scene()) as scene:
        is_quick(scene)
        scene.store(1, 0, 1, 1)
        assert (await scene.client.answer()).status is Status.OK
        syncs = [each for each in scene.files.seen if each[0] == f"synced {JOURNAL}" or each[0] == "answered"]
        assert syncs == [(f"synced {JOURNAL}", MAIN), ("answered", MAIN)]


async def test_an_answer_comes_after_the_sync_of_a_commit_in_the_thread() -> None:
    async with running(Scene()) as scene:
        scene.files.shut("sync", JOURNAL)
        scene.store(1, 0, 1, 1)
        await scene.files.somebody_waits()
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert scene.files.times("answered") == 0
        scene.files.open_gate("sync", JOURNAL)
        assert (await scene.client.answer()).status is Status.OK
        names = [thread for what, thread in scene.files.seen if what == f"synced {JOURNAL}"]
        assert names == ["dsreg-commits"], "the first commit goes to the thread: how long it takes is not known yet"


async def test_a_disk_that_proves_quick_commits_at_once() -> None:
    async with running(Scene()) as scene:
        for ts in range(1, 30):
            scene.store(ts, 0, 1, ts)
            await scene.client.answer()
        threads = [thread for what, thread in scene.files.seen if what == f"synced {JOURNAL}"]
        assert threads[0] == "dsreg-commits" and threads[-1] == MAIN


async def test_what_comes_while_a_commit_is_under_way_is_in_the_next_one() -> None:
    async with running(Scene()) as scene:
        scene.files.shut("sync", JOURNAL)
        scene.store(1, 0, 1, 1)
        await scene.files.somebody_waits()
        for request in range(2, 12):
            scene.store(request, request, 1, 1)
        await trio.testing.wait_all_tasks_blocked(0.01)
        scene.files.open_gate("sync", JOURNAL)
        assert sorted(await scene.client.answers(11)) == list(range(1, 12))
        assert scene.files.times(f"synced {JOURNAL}") == 2
        assert scene.storage.checkpoints == 0, "nobody had to wait for one, which looks for more to do"


async def test_a_disk_that_becomes_slow_in_a_turn_has_the_rest_done_in_the_thread(clock: Clock) -> None:
    """More is stored in a turn than one commit takes, and the first one tells that the disk has become slow."""
    async with running(Scene(journal_bytes=16 * MIN_JOURNAL_BYTES)) as scene:
        is_quick(scene)
        clock.commit_s = 1.0
        scene.ask(*(store(1 + index, 256 * index, 256, 1) for index in range(8)), store(9, 1, 1, 2), store(10, 2, 1, 2))
        assert sorted(await scene.client.answers(10)) == list(range(1, 11))
        threads = [thread for what, thread in scene.files.seen if what == f"synced {JOURNAL}"]
        assert threads[0] == MAIN and set(threads[1:]) == {"dsreg-commits"}


async def test_a_quick_disk_gives_room_back_in_the_thread() -> None:
    async with running(Scene()) as scene:
        is_quick(scene)
        scene.store(1, 0, 256, 1)
        await scene.client.answer()
        ticket = scene.storage.zero(0, 512, pack_tag(2, 1))
        scene.disk._on_work()
        assert ticket.done and ticket.ok and not scene.storage.punching.is_over
        with trio.fail_after(PATIENCE_S):
            while not scene.storage.punching.is_over:  # noqa: ASYNC110
                await trio.sleep(0.01)
        assert {thread for what, thread in scene.files.seen if what == f"punched {SECTORS}"} == {"dsreg-commits"}


async def test_a_checkpoint_wakes_the_commit_that_waits_for_room_in_the_journal() -> None:
    """Both segments are full, nothing else comes, and the checkpoint ends."""
    async with running(Scene()) as scene:
        is_quick(scene)
        scene.store(1, 0, 64, 1)  # what writes over it goes to the journal
        await scene.client.answer()
        scene.files.shut("sync", SECTORS)
        asked = 1
        while not scene.storage._queue:  # until something does not fit any more
            asked += 1
            assert asked < 1000
            scene.store(asked, 0, 64, asked)
        await scene.files.somebody_waits()
        waiting = len(scene.storage._queue)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert len(scene.storage._queue) == waiting > 0, "there is no room before the checkpoint is done"
        scene.files.open_gate("sync", SECTORS)
        assert sorted(await scene.client.answers(asked - 1)) == list(range(2, asked + 1))


async def test_a_full_journal_alone_sets_a_checkpoint_off() -> None:
    """Long before the disk is idle: more is stored than both segments hold."""
    async with running(Scene()) as scene:
        for ts in range(1, 80):
            scene.store(ts, 0, 64, ts)
            await scene.client.answer()
        assert scene.storage.checkpoints >= 3


async def test_an_idle_disk_empties_its_journal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk_module, "IDLE_CHECKPOINT_S", 0.05)
    async with running(Scene()) as scene:
        is_quick(scene)
        scene.store(1, 0, 1, 1)
        await scene.client.answer()
        while not scene.storage.checkpoints:
            await trio.lowlevel.checkpoint()
        await trio.sleep(10 * disk_module.IDLE_CHECKPOINT_S)
        assert scene.storage.checkpoints == 1, "there is nothing to be emptied any more"


async def test_a_load_of_what_a_commit_stores_over_is_answered_after_the_commit() -> None:
    """What it reads meanwhile is half of the old value and half of the new one."""
    async with running(Scene()) as scene:
        scene.store(1, 0, 1, 1, fill=1)
        await scene.client.answer()
        scene.disk._commit_s = 1.0  # in the thread, so that a load can come meanwhile
        scene.files.shut("write", SECTORS)
        scene.store(2, 0, 1, 2, fill=2)
        await scene.files.somebody_waits()
        for request in (3, 4, 5):
            scene.get(request, 0, 1)
        while len(scene.disk._after_commit) < 3:
            await trio.lowlevel.checkpoint()
        assert scene.files.times("answered") == 1
        scene.files.open_gate("write", SECTORS)
        answers = await scene.client.answers(4)
        assert [set(bytes(answers[request].data)) for request in (3, 4, 5)] == [{2}, {2}, {2}]


async def test_a_load_whose_commit_is_over_when_it_ends_is_tried_again() -> None:
    """It has read half of a value, and the commit that stored over it has finished before the load has."""
    async with running(Scene()) as scene:
        scene.store(1, 0, 1, 1, fill=1)
        await scene.client.answer()
        scene.files.torn[SECTORS] = bytes([1]) * 2048 + bytes([2]) * 2048
        scene.files.cold = True
        scene.files.shut("read", SECTORS)
        scene.get(2, 0, 1)
        await scene.files.somebody_waits()
        is_quick(scene)
        scene.store(3, 0, 1, 2, fill=2)
        assert (await scene.client.answer()).request == 3
        scene.files.open_gate("read", SECTORS)
        answer = await scene.client.answer()
        assert (answer.request, answer.status, set(bytes(answer.data))) == (2, Status.OK, {2})


async def test_many_loads_from_a_cold_disk_wait_for_it_at_a_time() -> None:
    async with running(Scene()) as scene:
        for request in range(1, 7):
            scene.store(request, request, 1, 1, fill=request)
        await scene.client.answers(6)
        scene.files.cold = True
        scene.files.shut("read", SECTORS)
        for request in range(1, 7):
            scene.get(10 + request, request, 1)
        for _ in range(6):
            await scene.files.somebody_waits()
        scene.files.open_gate("read", SECTORS)
        answers = await scene.client.answers(6)
        assert {request: set(bytes(answer.data)) for request, answer in answers.items()} == {
            10 + request: {request} for request in range(1, 7)
        }


async def test_stopping_waits_for_what_was_begun() -> None:
    """A commit and a checkpoint that are under way end before the storage is closed, and what was answered is there."""
    scene = Scene()
    ended = trio.Event()

    async def run() -> None:
        async with running(scene):
            scene.files.shut("sync", JOURNAL)
            scene.store(1, 0, 1, 1, fill=7)
            await scene.files.somebody_waits()
        ended.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert not ended.is_set(), "the commit is under way"
        scene.files.open_gate("sync", JOURNAL)
        await ended.wait()
    again = Scene(scene.files)
    loaded = again.storage.load(0, 1, wait=True)
    assert loaded is not None and set(bytes(loaded.data)) == {7}


@pytest.mark.allow_logs("no space in the storage directory", "there is space again")
async def test_a_full_disk_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    async with running(Scene()) as scene:
        scene.store(1, 0, 1, 1)
        await scene.client.answer()
        scene.files.capacity = scene.files.used()
        for request in range(2, 6):
            scene.store(request, request, 1, 1)
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert [record.message for record in caplog.records if "no space" in record.message] != []
        assert sum("no space" in record.message for record in caplog.records) == 1
        scene.files.capacity = None
        scene.interpreter.clock = lambda: trio.current_time() + 3600.0
        scene.interpreter.tick()
        assert sorted(await scene.client.answers(4)) == [2, 3, 4, 5]


def test_a_signal_that_is_set_twice_wakes_once() -> None:
    async def main() -> None:
        signal = disk_module.Signal()
        signal.set()
        signal.set()
        await signal.wait()
        with trio.move_on_after(0) as scope:
            await signal.wait()
        assert scope.cancelled_caught
        signal.set()
        await signal.wait()

    trio.run(main)
