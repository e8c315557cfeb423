"""A node that stands still for a while is not sent all that a majority writes. It has it soon after, with no client
that reads, and nobody has to wait for the next comparison."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable

import pytest
import trio

from dsreg.client import Attach, Client
from dsreg.constants import MAX_RUN_BYTES, MAX_RUN_SECTORS
from tests.processes.cluster import TIMEOUT_S, Cluster
from tests.processes.test_heal import in_sync, report

# More than a client keeps for a node that is behind, and than the buffers between them hold.
RUNS = 40
# A comparison that is due anyway, as a client has just attached, is over after the first time.
TIMES = 2
SECTORS = TIMES * RUNS * MAX_RUN_SECTORS


@pytest.mark.parametrize("attach", [Attach(name="test"), None], ids=["attached", "by another node"])
async def test_what_it_was_spared(
    make_cluster: Callable[..., Cluster], rng: random.Random, attach: Attach | None
) -> None:
    cluster = make_cluster(sectors=SECTORS)
    cluster.start()
    expected = rng.randbytes(TIMES * RUNS * MAX_RUN_BYTES)
    async with Client(cluster.config, attach=attach) as client:
        await client.write(0, expected[:4096])
        await in_sync(cluster, *cluster.ranks)
        for time in range(TIMES):
            cluster.pause(3)
            for run in range(time * RUNS, (time + 1) * RUNS):
                await client.write(run * MAX_RUN_SECTORS, expected[run * MAX_RUN_BYTES : (run + 1) * MAX_RUN_BYTES])
            os.kill(cluster.pid(3), signal.SIGCONT)
            with trio.fail_after(TIMEOUT_S):
                while True:
                    if (await report(cluster, 3))["sectors_written"] == (time + 1) * RUNS * MAX_RUN_SECTORS:
                        break
                    await trio.sleep(0.05)
    assert cluster.terminate(3) == 0
    assert (cluster.storage(3) / "sectors").read_bytes() == expected
