"""A client for test_upgrade.py, a program of its own: it runs with the dsreg that is first in PYTHONPATH.

    upgrade_client.py CONFIG STOP SEED FIRST COUNT plain|attached

Writes stamps to the sectors FIRST..FIRST+COUNT-1, reads some back, and with the disk attached trims many MiB of it, one
after the other, until the file STOP is there. Each request that is acknowledged is a line: first sector, how many,
which value (0: zeros). It ends with an error as soon as one fails, or reads what it did not write.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

import trio

from dsreg.block_device import BlockDevice
from dsreg.client import Attach, Client
from dsreg.config import load_config
from dsreg.store import Request, Trim
from dsreg.waiting import Waiter

# For one request.
LIMIT_S = 60.0
# One in so many is a trim.
TRIMS = 6
# Between two requests: nodes that heal give way to clients, and the processes of the test share two cores.
PACE_S = 0.01
CHUNK = 256


class Contents:
    """What the sectors have by what was acknowledged. `value`: of a sector, 0 if it was never written."""

    def __init__(self) -> None:
        self.value: dict[int, int] = {}

    def acknowledge(self, first: int, count: int, value: int) -> None:
        self.value.update(dict.fromkeys(range(first, first + count), value))
        print(first, count, value, flush=True)


async def carry_out(device: BlockDevice, request: Request) -> None:
    waiter = Waiter()
    device.submit(request, waiter.done)
    device.end_turn()
    await waiter.wait()


async def run(config: Path, stop: Path, rng: random.Random, sectors: range, attach: Attach | None) -> None:
    has = Contents()
    async with Client(load_config(config), LIMIT_S, attach=attach, force=attach is None) as client:
        device = BlockDevice(client)
        number = 0
        while not await trio.Path(stop).exists():
            number += 1
            if attach is not None and number % TRIMS == 0:
                chunks = range(-(-sectors.start // CHUNK), sectors.stop // CHUNK)
                count = rng.randint(2, len(chunks))
                first = rng.randint(chunks.start, chunks.stop - count)
                await carry_out(device, Trim(first * CHUNK * 4096, count * CHUNK * 4096))
                has.acknowledge(first * CHUNK, count * CHUNK, 0)
            else:
                count = rng.choice((1, 3, 40))
                first = rng.randrange(sectors.start, sectors.stop - count)
                await client.write(first, number.to_bytes(8) * 512 * count)
                has.acknowledge(first, count, number)
            sector = rng.choice(list(has.value))
            found = await client.read(sector)
            assert found == has.value[sector].to_bytes(8) * 512, (sector, has.value[sector], found[:16])
            await trio.sleep(PACE_S)


if __name__ == "__main__":
    config, stop, seed, first, count, kind = sys.argv[1:]
    trio.run(run, Path(config), Path(stop), random.Random(seed), range(int(first), int(first) + int(count)),
             Attach(name="test") if kind == "attached" else None)
