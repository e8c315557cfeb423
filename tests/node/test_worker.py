"""A thread for blocking calls: what a call gives, its errors, and that it is never cut off half way."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import pytest
import trio
import trio.testing

from dsreg.node.worker import Worker

PATIENCE_S = 20.0


@pytest.fixture
async def worker() -> Iterator[Worker]:
    with contextlib.closing(Worker("the-thread")) as made:
        yield made


async def test_a_call_is_made_in_the_thread_and_gives_what_it_returns(worker: Worker) -> None:
    assert await worker.run(lambda: threading.current_thread().name) == "the-thread"
    assert [await worker.run(lambda number=number: number) for number in range(5)] == list(range(5))


async def test_an_error_of_the_call_is_raised_where_it_was_made(worker: Worker) -> None:
    with pytest.raises(ZeroDivisionError):
        await worker.run(lambda: 1 // 0)
    assert await worker.run(lambda: 7) == 7, "the thread goes on"


async def test_a_call_that_was_begun_is_finished_before_the_task_is_cancelled(worker: Worker) -> None:
    gate = threading.Event()
    result: list[bool] = []

    async def call() -> None:
        result.append(await worker.run(lambda: gate.wait(PATIENCE_S)))

    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                await trio.testing.wait_all_tasks_blocked(0.01)
                gate.set()
    assert result == [True], "the task goes on with what the call has given, and is cancelled after that"


async def test_the_thread_ends_with_the_worker() -> None:
    worker = Worker("a-thread-that-ends")
    assert await worker.run(lambda: 1) == 1
    [thread] = [each for each in threading.enumerate() if each.name == "a-thread-that-ends"]
    worker.close()
    await trio.to_thread.run_sync(thread.join, 5.0)
    assert not thread.is_alive()
