"""Bad lines between nodes, and between clients and nodes: everything completes and is right."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

import pytest
import trio

from dsreg.client import Client
from tests.processes.cluster import TIMEOUT_S, Cluster
from tests.processes.history import INITIAL, History, now, stamp, value_of
from tests.processes.proxy import Faults, Link, Network
from tests.processes.raw import RawClient

BAD = {
    "losing": Faults(lose=0.03),
    "corrupting": Faults(corrupt=0.03),
    "repeating": Faults(repeat=0.1),
    "slow": Faults(delay_s=0.02, bytes_per_s=4e6),
    "everything": Faults(lose=0.01, corrupt=0.01, repeat=0.02, delay_s=0.004),
}


class Lines:
    """A cluster of three whose nodes reach each other through links, one for each direction of dialing."""

    def __init__(self, cluster: Cluster, network: Network) -> None:
        self.cluster = cluster
        self.network = network
        self.links: dict[tuple[int, int], Link] = {}
        for near in cluster.ranks:
            for far in cluster.ranks:
                if near != far:
                    self.links[near, far] = network.link(cluster.address(far))
            cluster.views[near] = {far: self.links[near, far].address for far in cluster.ranks if far != near}
        self.doors = {rank: network.link(cluster.address(rank)) for rank in cluster.ranks}
        cluster.start()

    def client_config(self) -> object:
        """For a client that comes through the doors."""
        return self.cluster.seen_at({rank: door.address for rank, door in self.doors.items()})

    def perfect(self) -> None:
        for link in [*self.links.values(), *self.doors.values()]:
            link.faults = Faults()

    def cut_off(self, rank: int) -> None:
        for ends, link in self.links.items():
            if rank in ends:
                link.cut()

    def mend(self) -> None:
        for link in self.links.values():
            link.mend()


@pytest.fixture
def lines(make_cluster: Callable[..., Cluster], seed: int) -> Iterator[Lines]:
    with Network(seed) as network:
        yield Lines(make_cluster(), network)


async def write_and_read(
    client: Client, rng: random.Random, start: int, *, workers: int, rounds: int, sectors: int
) -> None:
    """Each worker on a part of its own, from sector `start` on; runs up to `sectors`."""

    async def work(base: int) -> None:
        expected = bytearray(await client.read(base, sectors))
        for _ in range(rounds):
            first = rng.randrange(sectors)
            count = rng.randint(1, sectors - first)
            data = rng.randbytes(count * 4096)
            await client.write(base + first, data)
            expected[first * 4096:(first + count) * 4096] = data
            assert await client.read(base, sectors) == expected

    with trio.fail_after(TIMEOUT_S):
        async with trio.open_nursery() as nursery:
            for worker in range(workers):
                nursery.start_soon(work, start + worker * sectors)


def all_happened(links: Iterable[Link], faults: Faults) -> bool:
    """Each of these faults has struck at least once."""
    counts = Counter[str]()
    for link in links:
        counts.update(link.counts)
    wanted = {"lost": faults.lose, "corrupted": faults.corrupt, "repeated": faults.repeat}
    return all(counts[fate] for fate, probability in wanted.items() if probability)


async def test_between_nodes(lines: Lines, rng: random.Random) -> None:
    links = lines.links.values()
    async with Client(lines.cluster.config) as client:
        for kind, faults in BAD.items():
            for link in links:
                link.faults = faults
            await write_and_read(client, rng, 0, workers=8, rounds=5, sectors=12)
            while not all_happened(links, faults):
                await write_and_read(client, rng, 0, workers=8, rounds=1, sectors=12)
            print(f"{kind}: done")


# What is believed when it comes twice in a row does so by chance, too, on lines that are that bad.
@pytest.mark.allow_logs("has another client key", "does not speak the extension", "handshake failed: data corrupted")
async def test_between_client_and_nodes(lines: Lines, rng: random.Random) -> None:
    doors = lines.doors.values()
    async with Client(lines.client_config()) as client:  # type: ignore[arg-type]
        await client.write(500, stamp(1))
        for kind, faults in BAD.items():
            for door in doors:
                door.faults = faults
            await write_and_read(client, rng, 0, workers=6, rounds=4, sectors=8)
            while not all_happened(doors, faults):
                await write_and_read(client, rng, 0, workers=6, rounds=1, sectors=8)
            print(f"{kind}: done, {client.counters}")


async def test_links_that_break_and_come_back(lines: Lines, rng: random.Random) -> None:
    """One node after the other is cut off from the rest, but not from its clients; at last all from each other."""
    config = lines.cluster.config
    async with Client(config) as client, trio.open_nursery() as nursery:
        done = trio.Event()

        async def load() -> None:
            await write_and_read(client, rng, 0, workers=4, rounds=30, sectors=8)
            done.set()

        nursery.start_soon(load)
        for rank in config.nodes:
            lines.cut_off(rank.rank)
            await client.write(200, stamp(rank.rank))
            lines.mend()
        for rank in config.nodes:
            lines.cut_off(rank.rank)
        with trio.move_on_after(0.3) as limit:
            await client.write(201, stamp(9))
        assert limit.cancelled_caught, "nodes that do not reach each other have no majority"
        lines.mend()
        await done.wait()
    for rank in lines.cluster.ranks:
        async with Client(lines.cluster.only(rank)) as client:
            assert value_of(await client.read(200)) == 3


async def test_a_client_whose_node_is_cut_off_asks_another(lines: Lines) -> None:
    async with Client(lines.client_config()) as client:  # type: ignore[arg-type]
        for value, door in enumerate(lines.doors.values(), 1):
            door.cut()
            await client.write(5, stamp(value))
            assert value_of(await client.read(5)) == value
            door.mend()


async def test_clients_of_both_kinds_on_the_same_sectors(lines: Lines, rng: random.Random) -> None:
    """Contract clients at each node, through good doors, and two Clients; bad links between the nodes."""
    for link in lines.links.values():
        link.faults = BAD["everything"]
    history = History()
    cluster = lines.cluster

    async def use_client(label: str) -> None:
        async with Client(cluster.config) as client:
            for _ in range(40):
                sector, value, start = rng.randrange(3), history.new_value(), now()
                if rng.random() < 0.5:
                    await client.write(sector, stamp(value))
                    history.wrote(sector, value, start, now(), label)
                else:
                    history.read(sector, value_of(await client.read(sector)), start, now(), label)

    def use_contract(rank: int, own: random.Random) -> None:
        with RawClient(cluster.address(rank), cluster.config.client_key) as raw:
            for _ in range(40):
                sector, value, start = own.randrange(3), history.new_value(), now()
                if own.random() < 0.5:
                    raw.write(sector, stamp(value))
                    history.wrote(sector, value, start, now(), f"contract at {rank}")
                else:
                    history.read(sector, value_of(raw.read(sector)), start, now(), f"contract at {rank}")

    with trio.fail_after(TIMEOUT_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(use_client, "client 1")
            nursery.start_soon(use_client, "client 2")
            for rank in cluster.ranks:
                nursery.start_soon(trio.to_thread.run_sync, use_contract, rank, random.Random(rng.getrandbits(64)))
    assert len(history.operations) == 200
    assert any(not operation.is_write and operation.value != INITIAL for operation in history.operations)
    history.check()
