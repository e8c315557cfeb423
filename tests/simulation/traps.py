"""Faults that wait for their moment: they happen once a node does what makes them dangerous."""

from __future__ import annotations

from typing import Protocol

from tests.simulation.clients import Worker
from tests.simulation.frontends import Frontend
from tests.simulation.loop import Loop
from tests.simulation.network import CLIENTS, Host, Network
from tests.simulation.node import SimNode
from tests.simulation.options import Options


class World(Protocol):
    loop: Loop
    network: Network
    options: Options
    nodes: dict[int, SimNode]
    workers: list[Worker]


class Traps:
    """The part of the nemesis that is told what the nodes do."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._loop = world.loop
        self._left = world.options.max_faults
        self._namers = 0  # how many nodes are to die once they have named tags
        self._holds_first = False  # as soon as a node has to promise tags
        self._claimer: Worker | None = None  # one whose claim is to be late at all nodes but one

    def _namer(self, node: SimNode) -> None:
        self._namers = 1

    def named(self, rank: int, client: Host) -> None:
        """The node has named tags for the client."""
        if self._namers and self._left:
            self._namers = 0
            self._loop.after(self._world.options.latency_s * self._loop.between(1.5, 2.5), self._unname, rank, client)

    def _unname(self, rank: int, client: Host) -> None:
        """The node forgets what it has named. The client stores under that when the others, which are connected to the
        node again by then, ask it for tags."""
        self._loop.fault("namer", f"{rank}, named for {client}")
        node = self._world.nodes[rank]
        node.exit()
        node.start_after(self._world.options.disk_s)
        for worker in self._world.workers:
            late_s = 0.1 if isinstance(worker, Frontend) else 0.0
            if worker is self._world.workers[client - CLIENTS]:
                worker.pause()
                late_s = self._world.options.latency_s * self._loop.between(0, 4)
                self._loop.after(2.0 + late_s, worker.resume)
            else:
                worker.rest(2.0 + late_s)

    def _first_hold(self, node: SimNode) -> None:
        self._holds_first = True

    def promises(self, rank: int) -> None:
        """The node is to promise tags."""
        process = self._world.nodes[rank].process
        if self._holds_first and process is not None and process.disk.busy:
            self._holds_first = False
            for worker in self._world.workers:
                if isinstance(worker, Frontend) and worker.out:
                    self._loop.fault("first_hold", worker.name)
                    self._loop.after(0, worker.insist)

    def _late_hold(self, node: SimNode) -> None:
        """A frontend comes anew, while others write: its claim is accepted here at once, and elsewhere late."""
        self._loop.fault("late_hold")
        frontends = [worker for worker in self._world.workers if isinstance(worker, Frontend)]
        self._claimer = self._loop.rng.choice(frontends)
        self._claimer.crash()
        self._claimer.work(4)

    def accepted(self, rank: int, client: Host) -> None:
        """The node has accepted the client's claim to the disk."""
        if self._left and self._claimer is self._world.workers[client - CLIENTS]:
            self._claimer = None
            others = [each for each in self._world.options.ranks if each != rank]
            pairs = {pair for other in others for pair in ((other, client), (client, other))}
            self._world.network.blocked |= pairs
            self._loop.after(self._loop.between(0.02, 0.1), self._world.network.unblock, pairs)
            for worker in self._world.workers:
                if not isinstance(worker, Frontend):
                    worker.work(50)
