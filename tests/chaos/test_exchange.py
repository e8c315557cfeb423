"""A machine is exchanged for another one: hosts of their own; nothing answers at the old address any more."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from dsreg.client import Attach, Client
from dsreg.config import load_config
from dsreg.protocol.address import Place
from tests.chaos.namespaces import Network, why_no_namespaces
from tests.processes.cluster import TIMEOUT_S, Cluster, dsreg, until
from tests.processes.test_addresses import SECTORS, Load, in_thread

HOSTS = ("one", "two", "three", "four", "client")
PORT = 7001

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(why_no_namespaces() is not None, reason=str(why_no_namespaces())),
]


class Hosts(Cluster):
    """Each node on a host of its own, by `host_of`."""

    def __init__(self, directory: Path, network: Network) -> None:
        super().__init__(directory)
        self.network = network
        self.host_of = {1: "one", 2: "two", 3: "three"}
        text = self.path.read_text()
        for node in self.config.nodes:
            text = text.replace(node.address, f"{network.addresses[self.host_of[node.rank]]}:{PORT}")
        self.path.write_text(text)
        self.config = load_config(self.path)

    def spawn(self, rank: int, *more: Any, **named: Any) -> subprocess.Popen[bytes]:
        with self.network.inside(self.host_of[rank]):
            return super().spawn(rank, *more, **named)

    def wait(self, rank: int) -> None:
        with self.network.inside(self.host_of[rank]):
            super().wait(rank)

    def on_client(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        with self.network.inside("client"):
            return dsreg(*arguments)

    def goes_to(self, rank: int, host: str) -> None:
        """By `dsreg replace`, whose file the new host alone gets; then the old host is switched off."""
        assert self.terminate(rank) == 0
        self.network.down(self.host_of[rank])
        file = self.files[rank] = self.directory / "new.toml"
        file.write_text(self.path.read_text())
        address = f"{self.network.addresses[host]}:{PORT}"
        done = self.on_client("replace", str(file), "--rank", str(rank), "--address", address,
                              "--timeout", str(TIMEOUT_S))
        assert done.returncode == 0, done.stderr + self.on_client("status", "--json", str(file)).stdout
        self.config = load_config(file)
        self.host_of[rank] = host
        self.start(rank)
        healed = self.on_client("wait", str(file), "--healed", "--timeout", str(TIMEOUT_S))
        assert healed.returncode == 0, healed.stderr


async def _scene(cluster: Hosts) -> None:
    """As a client's host sees it."""
    old, new = load_config(cluster.path), Place(cluster.network.addresses["four"], PORT)

    def is_there(client: Client) -> Callable[[], bool]:
        return lambda: client.place(2) == new and 2 in client.connected_ranks

    async with Client(old, attach=Attach()) as client, trio.open_nursery() as nursery:
        load = Load(client)
        nursery.start_soon(load.run)
        await load.goes_on()
        calm_s, load.longest_s = load.longest_s, 0.0
        await in_thread(cluster.goes_to, 2, "four")
        await in_thread(until, is_there(client), "the client has followed")
        await load.goes_on()
        print(f"longest write and read: {1000 * calm_s:.1f} ms before, {1000 * load.longest_s:.1f} ms meanwhile")
        cluster.kill(3)
        cluster.network.down("three")
        await load.goes_on()
        nursery.cancel_scope.cancel()
    began = time.monotonic()
    async with Client(load_config(cluster.path), timeout_s=TIMEOUT_S) as late:  # with the file of the old days
        await late.read(0, SECTORS)
        print(f"a client with the old file, one more host being down, has read after {time.monotonic() - began:.2f} s")
        await in_thread(until, is_there(late), "the late client has found node 2 as well")


def test_a_host_is_exchanged_under_load(tmp_path: Path) -> None:
    with Network(HOSTS) as network:
        cluster = Hosts(tmp_path / "cluster", network)
        try:
            cluster.start()
            with network.inside("client"):
                trio.run(_scene, cluster)
        finally:
            cluster.close()
