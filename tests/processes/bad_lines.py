"""Five nodes all of whose links change or lose 15 % of the chunks of 1 KiB: how long ten writes and ten reads take.

    python -m tests.processes.bad_lines [ROUNDS]      prints it for each kind of line and of node
"""

from __future__ import annotations

import enum
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import trio

from dsreg.client import Client
from dsreg.config import ClusterConfig, load_config
from tests.processes.cluster import Cluster
from tests.processes.proxy import Faults, Link, Network
from tests.processes.raw import OK, RawClient

NODES = 5
OPERATIONS = 10
SHARE = 0.15
KINDS: dict[str, Callable[[], Faults]] = {
    "corrupt": lambda: Faults(corrupt=SHARE, chunk_bytes=1024),
    "lose": lambda: Faults(lose=SHARE, chunk_bytes=1024),
}


class Speech(enum.Enum):
    """What the nodes speak with each other."""

    OURS = "sealed connections, or the contract"
    SEALED = "sealed connections only (require_sealed)"
    CONTRACT = "the contract only"


class BadLines:
    """A cluster whose nodes reach each other through bad links. Clients reach a node itself, or through its door."""

    def __init__(self, cluster: Cluster, network: Network, kind: str, speech: Speech = Speech.OURS) -> None:
        self.cluster = cluster
        self.links: dict[tuple[int, int], Link] = {}
        if speech is Speech.SEALED:
            text = cluster.path.read_text()
            cluster.path.write_text(text.replace("[cluster]\n", "[cluster]\nrequire_sealed = true\n"))
            cluster.config = load_config(cluster.path)
        for near in cluster.ranks:
            for far in cluster.ranks:
                if near != far:
                    link = self.links[near, far] = network.link(cluster.address(far), KINDS[kind]())
                    link.contract_only = speech is Speech.CONTRACT
            cluster.views[near] = {far: self.links[near, far].address for far in cluster.ranks if far != near}
        self.doors = {rank: network.link(cluster.address(rank)) for rank in cluster.ranks}
        # By the contract alone no node can tell another that it has never heard of its rank.
        cluster.start(options=["--new"] if speech is Speech.CONTRACT else [])

    @property
    def client_config(self) -> ClusterConfig:
        """For a client that comes through the doors."""
        return self.cluster.seen_at({rank: door.address for rank, door in self.doors.items()})

    @property
    def connections(self) -> int:
        """Made by nodes to nodes."""
        return sum(link.connections for link in self.links.values())

    def struck(self) -> bool:
        """Whether chunks have been changed or lost."""
        links = [*self.links.values(), *self.doors.values()]
        return any(link.counts["corrupted"] or link.counts["lost"] for link in links)


def use_contract(lines: BadLines, limit_s: float) -> float:
    """Ten writes and then ten reads of a contract client at node 1, each pipelined: how long they take, in seconds.
    TimeoutError if either takes longer than `limit_s`."""
    began_s = time.monotonic()
    values = [os.urandom(4096) for _ in range(OPERATIONS)]
    with RawClient(lines.cluster.address(1), lines.cluster.config.client_key) as client:
        client.sock.settimeout(limit_s)
        client.send(*(client.write_frame(sector, sector, value) for sector, value in enumerate(values)))
        assert all(response.status == OK for response in client.responses(OPERATIONS).values())
        client.send(*(client.read_frame(sector, sector) for sector in range(OPERATIONS)))
        assert {n: response.content for n, response in client.responses(OPERATIONS).items()} == dict(enumerate(values))
    return time.monotonic() - began_s


async def use_client(config: ClusterConfig, limit_s: float) -> float:
    """The same by a client of ours: each operation is a task of its own."""
    began_s = trio.current_time()
    values = [os.urandom(4096) for _ in range(OPERATIONS)]

    async def read(sector: int) -> None:
        assert await client.read(sector) == values[sector]

    with trio.fail_after(limit_s):
        async with Client(config) as client:
            async with trio.open_nursery() as nursery:
                for sector, value in enumerate(values):
                    nursery.start_soon(client.write, sector, value)
            async with trio.open_nursery() as nursery:
                for sector in range(OPERATIONS):
                    nursery.start_soon(read, sector)
    return trio.current_time() - began_s


def measure(kind: str, speech: Speech, seed: int, limit_s: float) -> str:
    with tempfile.TemporaryDirectory() as directory, Network(seed) as network:
        cluster = Cluster(Path(directory) / "cluster", nodes=NODES)
        try:
            lines = BadLines(cluster, network, kind, speech)
            try:
                if speech is Speech.SEALED:
                    return f"{trio.run(use_client, cluster.only(1), limit_s):.1f}"
                return f"{use_contract(lines, limit_s):.1f}"
            except (TimeoutError, trio.TooSlowError):
                return f"more than {limit_s:.0f}"
        finally:
            if cluster.processes:
                cluster.kill()


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    for kind in KINDS:
        for speech in Speech:
            taken = [measure(kind, speech, seed, 120.0) for seed in range(1, rounds + 1)]
            print(f"{kind}, {speech.value}: {', '.join(taken)} s", flush=True)


if __name__ == "__main__":
    main()
