"""Faults that wait for their moment: they happen once a node does what makes them dangerous."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from dsreg.constants import TAG_SIZE
from dsreg.protocol.tags import ATTACHED, rank_of
from dsreg.storage import Commit
from tests.simulation.contract_client import ContractClient
from tests.simulation.frontends import Frontend
from tests.simulation.loop import Loop
from tests.simulation.network import CLIENTS, Host, Network
from tests.simulation.node import SimNode
from tests.simulation.options import Options
from tests.simulation.witness import Moment
from tests.simulation.worker import Worker


class World(Protocol):
    loop: Loop
    network: Network
    options: Options
    nodes: dict[int, SimNode]
    workers: list[Worker]

    def broken(self, rank: int, error: Exception) -> None:
        """Something is wrong that must not be."""


class Traps:
    """The part of the nemesis that is told what the nodes do."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._loop = world.loop
        self._left = world.options.max_faults
        self._namers = 0  # how many nodes are to die once they have named tags
        self._holds_first = False  # as soon as a node has to promise tags
        self._claimer: Worker | None = None  # one whose claim is to be late at all nodes but one
        self._leaves_one = False  # the next attachment that has stored at one node dies
        self._decides = False  # and its successor has not decided yet what to raise
        self._moments: dict[Moment, Callable[[int, Host], None]] = {
            Moment.NAMED: self._named,
            Moment.ACCEPTED: self._accepted,
            Moment.DECIDED: self._decided,
            Moment.PROMISES: self._promises,
        }

    def happens(self, what: Moment, rank: int, client: Host) -> None:
        if self._left:
            self._moments[what](rank, client)

    # --- names that are forgotten ---------------------------------------------------------------
    def _tags_named(self, node: SimNode) -> None:
        self._namers = 1

    def _named(self, rank: int, client: Host) -> None:
        if self._namers:
            self._namers = 0
            self._loop.after(self._world.options.latency_s * self._loop.between(1.5, 2.5), self._unname, rank, client)

    def _unname(self, rank: int, client: Host) -> None:
        """The node forgets what it has named. The client stores under that when the others, which are connected to the
        node again by then, ask it for tags."""
        self._loop.fault("tags_named", f"{rank}, named for {client}")
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

    # --- claims to the disk ---------------------------------------------------------------------
    def _first_hold(self, node: SimNode) -> None:
        self._holds_first = True

    def _promises(self, rank: int, client: Host) -> None:
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

    def _accepted(self, rank: int, client: Host) -> None:
        if self._claimer is self._world.workers[client - CLIENTS]:
            self._claimer = None
            others = [each for each in self._world.options.ranks if each != rank]
            pairs = {pair for other in others for pair in ((other, client), (client, other))}
            self._world.network.blocked |= pairs
            self._loop.after(self._loop.between(0.02, 0.1), self._world.network.unblock, pairs)
            for worker in self._world.workers:
                if not isinstance(worker, Frontend):
                    worker.work(50)

    # --- what is left over ----------------------------------------------------------------------
    def _leftover(self, node: SimNode) -> None:
        self._leaves_one = True

    def _stored_by_one(self, rank: int, commit: Commit) -> None:
        """An attachment has stored something at one node, and dies. The others write again once its successor has
        decided what to restamp."""
        if not self._leaves_one or not any(_is_new(record.tags[:TAG_SIZE]) for record in commit.records):
            return
        self._leaves_one, self._decides = False, True
        frontend = next(worker for worker in self._world.workers if isinstance(worker, Frontend))
        self._loop.fault("leftover", f"{frontend.name} at {rank}")
        frontend.plan = [(commit.records[0].first, 1, False)] * 6
        for worker in self._world.workers:
            if worker is not frontend:
                worker.rest(3.0)
        self._loop.after(0, frontend.succeed)

    def _decided(self, rank: int, client: Host) -> None:
        if self._decides:
            self._decides = False
            for worker in self._world.workers:
                if not isinstance(worker, Frontend):
                    worker.plan = [(0, 1, True)]
                    worker.work(0)

    # --- writes of one sector at a time ---------------------------------------------------------
    def _columns(self, node: SimNode) -> None:
        """All who know only the contract write one sector, and the others read it with the next one."""
        sector = self._loop.rng.randrange(self._world.options.sectors)
        self._loop.fault("columns", str(sector))
        for worker in self._world.workers:
            if isinstance(worker, ContractClient):
                worker.plan = [(sector, 1, True)]
            else:
                worker.plan = [(0, self._world.options.sectors, False)] * 4
            worker.work(0)


def _is_new(tag: bytes) -> bool:
    """Whether an attachment has chosen the tag in the epoch of this copy: it is no copy that was restamped."""
    epoch, written, _ = rank_of(tag)
    return tag[-1] == ATTACHED and epoch == written
