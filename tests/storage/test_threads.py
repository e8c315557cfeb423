"""Commits, checkpoints and loads in threads of their own, on a real file system."""

from __future__ import annotations

import random
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from dsreg.constants import SECTOR_SIZE
from dsreg.storage import Checkpoint, Commit, LoadJob, OsFiles
from tests.storage.support import contents, open_storage, store, ts_of, value

SECTORS = 96
STORES = 2500


def test_loads_beside_stores_find_no_damage(tmp_path: Path, rng: random.Random) -> None:
    """Loads race with stores to the same sectors: each gives one durable state, and none cries damage."""
    storage = open_storage(OsFiles(tmp_path))
    loaded = retried = ts = 0
    with ThreadPoolExecutor(4) as pool:
        commit: tuple[Commit, Future[None]] | None = None
        checkpoint: tuple[Checkpoint, Future[None]] | None = None
        loads: list[tuple[LoadJob, Future[None]]] = []
        while ts < STORES:
            for _ in range(rng.randrange(8)):
                ts += 1
                first = rng.randrange(SECTORS)
                store(storage, first, rng.randrange(1, SECTORS - first + 1), ts)
            if commit is None and (fresh := storage.next_commit()) is not None:
                commit = fresh, pool.submit(fresh.run)
            if checkpoint is None and (due := storage.next_checkpoint()) is not None:
                checkpoint = due, pool.submit(due.run)
            while len(loads) < 3:
                first = rng.randrange(SECTORS)
                job = storage.load_job(first, rng.randrange(1, SECTORS - first + 1))
                loads.append((job, pool.submit(job.run)))
            job, future = loads.pop(0)
            future.result()
            result = storage.finish_load(job)
            if result is None:
                retried += 1
            else:
                loaded += 1
                assert result.missing == ()
                for index, found in enumerate(ts_of(result.tags)):
                    expected = value(job.first + index, found) if found else bytes(SECTOR_SIZE)
                    assert result.data[index * SECTOR_SIZE:(index + 1) * SECTOR_SIZE] == expected
            if commit is not None and commit[1].done():
                commit[1].result()
                storage.finish_commit(commit[0])
                commit = None
            if checkpoint is not None and checkpoint[1].done():
                checkpoint[1].result()
                storage.finish_checkpoint(checkpoint[0])
                checkpoint = None
        if commit is not None:
            commit[1].result()
            storage.finish_commit(commit[0])
        if checkpoint is not None:
            checkpoint[1].result()
            storage.finish_checkpoint(checkpoint[0])
    assert loaded > 50 and storage.checkpoints > 2 and storage.damaged == 0
    latest = contents(storage, 0, SECTORS), storage.latest_tags(0, SECTORS)
    storage.close()
    storage = open_storage(OsFiles(tmp_path))
    assert contents(storage, 0, SECTORS) == ts_of(latest[1])
    storage.close()
