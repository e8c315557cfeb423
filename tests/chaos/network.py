"""Three hosts with addresses of their own, and the clients on a fourth: links are cut and healed."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from dsreg.config import load_config
from tests.chaos.namespaces import Network
from tests.chaos.scenario import KINDS, ChaosCluster, Scenario
from tests.chaos.workers import Workers

CLIENTS = "clients"
PORT = 7000


class NetworkCluster(ChaosCluster):
    """Node R on host "nodeR"."""

    def __init__(self, directory: Path, network: Network, *, nodes: int, sectors: int) -> None:
        super().__init__(directory, nodes=nodes, sectors=sectors)
        self._network = network
        text = self.path.read_text()
        for node in self.config.nodes:
            text = text.replace(f'"{node.host}:{node.port}"', f'"{network.addresses[host_of(node.rank)]}:{PORT}"')
        self.path.write_text(text)
        self.config = load_config(self.path)

    def spawn(self, rank: int, *more: Any, **named: Any) -> subprocess.Popen[bytes]:
        with self._network.inside(host_of(rank)):
            return super().spawn(rank, *more, **named)

    def wait(self, rank: int) -> None:
        # From its own host: it answers there whatever is cut.
        with self._network.inside(host_of(rank)):
            super().wait(rank)


def host_of(rank: int) -> str:
    return f"node{rank}"


class NetworkScenario(Scenario):
    """Cuts at any of the hosts, the clients' too, on top of what happens to the processes."""

    name = "network"
    mends = (*Scenario.mends, "heal")

    def make_cluster(self) -> ChaosCluster:
        nodes = self.rng.choice((3, 3, 5))
        self.network = Network([*map(host_of, range(1, nodes + 1)), CLIENTS])
        self.stack.enter_context(self.network)
        return NetworkCluster(self.directory / "cluster", self.network, nodes=nodes, sectors=self.sectors)

    def make_workers(self) -> Workers:
        return Workers(self.cluster.path, self.directory, self.rng, KINDS, self.sectors, self.place)

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        with self.network.inside(CLIENTS):
            yield

    def actions(self) -> dict[str, tuple[int, Callable[[], bool]]]:
        return {
            **super().actions(),
            "link down": (3, self.link_down),
            "cut": (4, self.cut),
            "one-way cut": (5, self.cut_one_way),
            "partition": (3, self.partition),
            # Too short to be noticed by some, long enough to break what others have under way.
            "flap": (2, self.flap),
            "heal": (9, self.heal_network),
        }

    def heal(self) -> None:
        self.network.heal()
        super().heal()

    def link_down(self) -> bool:
        self.network.down(self.rng.choice(list(self.network.addresses)))
        return True

    def cut(self) -> bool:
        self.network.cut_pair(*self.rng.sample(list(self.network.addresses), 2))
        return True

    def cut_one_way(self) -> bool:
        self.network.cut_one_way(*self.rng.sample(list(self.network.addresses), 2))
        return True

    def partition(self) -> bool:
        """Two groups that do not reach each other; the clients are in one of them, or see both."""
        hosts = [host for host in self.network.addresses if host != CLIENTS or self.rng.random() < 0.7]
        self.rng.shuffle(hosts)
        at = self.rng.randint(1, len(hosts) - 1)
        for one in hosts[:at]:
            for other in hosts[at:]:
                self.network.cut_pair(one, other)
        return True

    def flap(self) -> bool:
        if not self.network.is_whole:
            return False
        self.link_down()
        self.network.heal()
        return True

    def heal_network(self) -> bool:
        if self.network.is_whole:
            return False
        self.network.heal()
        return True
