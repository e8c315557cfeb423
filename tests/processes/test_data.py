"""What is written is read, through every node, in every shape."""

from __future__ import annotations

import random

import pytest

from dsreg.client import Client
from dsreg.errors import Outcome, OutOfRange
from tests.processes.cluster import Cluster
from tests.processes.raw import RawClient

ZEROS = bytes(4096)


async def test_written_through_each_node_and_read_through_all(shared: Cluster, rng: random.Random) -> None:
    for writer in shared.ranks:
        data = rng.randbytes(3 * 4096)
        async with Client(shared.only(writer)) as client:
            await client.write(10, data)
        for reader in shared.ranks:
            async with Client(shared.only(reader)) as client:
                assert await client.read(10, 3) == data


@pytest.mark.parametrize(
    ("first", "count"),
    [(256, 1), (256, 2), (256, 255), (256, 256), (300, 256), (511, 2), (511, 258), (300, 700)],
    ids=lambda number: str(number),
)
async def test_runs_within_and_across_chunks(shared: Cluster, rng: random.Random, first: int, count: int) -> None:
    data = rng.randbytes(count * 4096)
    async with Client(shared.config) as client:
        edges = [await client.read(first - 1), await client.read(first + count)]
        await client.write(first, data)
        assert [await client.read(first - 1), await client.read(first + count)] == edges
    async with Client(shared.only(2)) as client:
        assert await client.read(first, count) == data


async def test_random_runs_agree_with_a_plain_array(shared: Cluster, rng: random.Random) -> None:
    base, size = 1100, 600
    expected = bytearray(size * 4096)
    clients = [Client(shared.only(rank)) for rank in shared.ranks]
    async with clients[0], clients[1], clients[2]:
        for _ in range(40):
            first = rng.randrange(size)
            count = rng.randint(1, min(300, size - first))
            where = slice(first * 4096, (first + count) * 4096)
            if rng.random() < 0.5:
                data = rng.randbytes(count * 4096)
                expected[where] = data
                await rng.choice(clients).write(base + first, data)
            else:
                assert await rng.choice(clients).read(base + first, count) == expected[where]
        assert await clients[0].read(base, size) == expected


async def test_never_written_is_zeros(shared: Cluster) -> None:
    for rank in shared.ranks:
        async with Client(shared.only(rank)) as client:
            assert await client.read(1800, 200) == bytes(200 * 4096)


async def test_the_last_sector_and_what_is_beyond(shared: Cluster, rng: random.Random) -> None:
    end = shared.config.sectors
    data = rng.randbytes(2 * 4096)
    async with Client(shared.config) as client:
        await client.write(end - 2, data)
        assert await client.read(end - 2, 2) == data
        for call in (client.read(end), client.read(end - 1, 2), client.write(end, ZEROS), client.write(end - 1, data)):
            with pytest.raises(OutOfRange) as raised:
                await call
            assert raised.value.outcome is Outcome.DID_NOT_HAPPEN
        assert await client.read(end - 2, 2) == data


async def test_client_and_contract_see_the_same_sectors(shared: Cluster, rng: random.Random) -> None:
    sectors = [20, 21, shared.config.sectors - 1]
    for rank in shared.ranks:
        with RawClient(shared.address(rank), shared.config.client_key) as contract:
            async with Client(shared.config) as client:
                for sector in sectors:
                    data = rng.randbytes(4096)
                    contract.write(sector, data)
                    assert await client.read(sector) == data
                    await client.write(sector, data[::-1])
                    assert contract.read(sector) == data[::-1]
