"""One run: a cluster and its clients, from a seed to a verdict.

    safety phase    clients work while the nemesis does its worst; ends with their work or after SAFETY_S
    liveness phase  the faults stop, a majority is up: every operation must finish within LIVENESS_S, and every
                    sector is read once more; then nothing may be left over in any node
    verdict         the checker on the whole history
"""

from __future__ import annotations

import dataclasses
import random
import traceback
from collections import Counter
from collections.abc import Callable

from dsreg.constants import SECTOR_SIZE, TAG_SIZE
from dsreg.protocol.tags import EPOCH_SIZE
from dsreg.register.damage import Damage, Kind
from dsreg.storage import Commit
from tests.simulation.cached_client import CachedClient
from tests.simulation.checker import check
from tests.simulation.clients import ExtensionClient
from tests.simulation.contract_client import ContractClient
from tests.simulation.frontends import Frontend
from tests.simulation.history import History, value_of
from tests.simulation.leftovers import left_in_client, left_in_node
from tests.simulation.limits import use_small_limits
from tests.simulation.loop import Loop
from tests.simulation.nemesis import Nemesis
from tests.simulation.network import CLIENTS, Host, Network
from tests.simulation.node import SimNode
from tests.simulation.options import Options, derive
from tests.simulation.witness import Moment
from tests.simulation.worker import Worker

SAFETY_S = 120.0
# Back-off, hedging and retransmission together stay far below this once nothing is in their way.
LIVENESS_S = 150.0
# Operations of each client in the liveness phase, before the last reading.
LAST_OPERATIONS = 3
# What operations withdrawn by their clients may still need at the nodes.
SETTLE_S = 60.0
# What it may take until the nodes have compared their copies once more, and tried again what had failed.
CONVERGE_S = 90.0


@dataclasses.dataclass(frozen=True)
class Result:
    """`failure`: what is wrong, "" if nothing is. `operations`: checked ones, by sector."""

    seed: int
    options: str
    failure: str
    trace: str
    operations: int
    unknown: int
    simulated_s: float
    events: int
    faults: Counter[str]
    counters: Counter[str]


class Failure(Exception):
    """The run has shown a fault of the product."""


class Simulation:
    """See the module. `listener` is told what happens, line by line."""

    def __init__(self, options: Options, listener: Callable[[str], None] | None = None) -> None:
        self.options = options
        self.loop = Loop(options.seed, listener)
        self.network = Network(self.loop, options, lambda rank: self.nodes[rank].accept())
        self.history = History(self.loop)
        self.nodes = {rank: SimNode(self, rank) for rank in options.ranks}
        self.counters: Counter[str] = Counter()
        self._foreign = {rank for rank in options.ranks if self.loop.chance(options.contract_nodes)}
        # With numbers of its own, so that runs without seals stay what they were.
        self._ephemeral = random.Random(f"ephemeral keys {options.seed}")
        self._seals: dict[int, bool] = {}
        self._values: dict[tuple[int, bytes], int] = {}  # what each tag of each sector stands for
        self.workers: list[Worker] = []
        self._nemesis: Nemesis | None = None

    # --- what the nodes ask and tell --------------------------------------------------------------
    def is_foreign(self, rank: int) -> bool:
        return rank in self._foreign

    def seals(self, host: int) -> bool:
        """Asked again, as when a client is another one after a crash: the same."""
        if host not in self._seals:
            self._seals[host] = self._ephemeral.random() < self.options.sealed
        return self._seals[host]

    def fresh_key(self) -> bytes:
        return self._ephemeral.randbytes(32)

    def broken(self, rank: int, error: Exception) -> None:
        raise Failure(f"node {rank}: {error!r}")

    def stored(self, rank: int, commit: Commit) -> None:
        """One tag of a sector stands for one value, wherever it is stored."""
        for record in commit.records:
            if record.refused:
                continue
            self.counters["records"] += 1
            for index in range(record.count):
                tag = record.tags[index * TAG_SIZE : (index + 1) * TAG_SIZE]
                value = value_of(memoryview(record.data)[index * SECTOR_SIZE : (index + 1) * SECTOR_SIZE])
                # What names the write: the epoch of a copy may be restamped.
                known = self._values.setdefault((record.first + index, tag[EPOCH_SIZE:]), value)
                if known != value:
                    sector = record.first + index
                    raise Failure(
                        f"node {rank}, sector {sector}: tag {tag.hex()} of value {known} is given to value {value}"
                    )
        if self._nemesis is not None:
            self._nemesis.stored(rank, commit)

    def found(self, rank: int, damage: Damage) -> None:
        """Only what was done to a disk is found there, and no two values ever have one tag."""
        self.loop.fault("found", f"{rank} {damage}")
        if damage.kind is Kind.CONTRADICTION or not self.nodes[rank].excused:
            raise Failure(f"node {rank} reports {damage}")

    def happens(self, what: Moment, rank: int, client: Host) -> None:
        if self._nemesis is not None:
            self._nemesis.happens(what, rank, client)

    # --- the run ----------------------------------------------------------------------------------
    def run(self) -> None:
        """Raises Failure."""
        with use_small_limits(self.options.promise_step):
            for node in self.nodes.values():
                node.start()
            self._make_workers()
            self._nemesis = nemesis = Nemesis(self)
            for worker in self.workers:
                worker.work(self.options.operations)
            self.loop.run(SAFETY_S, self._all_idle)
            nemesis.stop()
            self._heal(nemesis)
            self._work_to_the_end()
            self._settle()
            self._converge()
            self._scrub()
            nemesis.reconfiguring.check()
        self.history.close()
        for strict in (False, True) if self.options.strict else (False,):
            violations = check(self.history.with_deadlines() if strict else self.history.operations, strict=strict)
            if violations:
                how = "not strictly linearizable" if strict else "not linearizable"
                raise Failure(f"{how}:\n" + "\n".join(map(str, violations)))
        for three in self.history.brought_up():
            raise Failure("what was left came up again:\n" + "\n".join(map(str, three)))

    def _make_workers(self) -> None:
        for index in range(self.options.extension_clients):
            self.workers.append(ExtensionClient(self, f"c{index}", CLIENTS + index))
        for index in range(self.options.contract_clients):
            host = self.options.extension_clients + index
            self.workers.append(ContractClient(self, f"k{index}", CLIENTS + host))
        span_s = self.options.fault_interval_s * self.options.max_faults
        for index in range(self.options.frontends):
            after_s = self.loop.between(0, span_s) if index else self.options.attach_after_s
            self.workers.append(Frontend(self, f"f{index}", CLIENTS + len(self.workers), after_s))

        if self.options.cached:
            self.workers.append(CachedClient(self, "b0", CLIENTS + len(self.workers)))

    def _all_idle(self) -> bool:
        return all(worker.idle for worker in self.workers)

    def _heal(self, nemesis: Nemesis) -> None:
        """No more faults. Some nodes may stay away, or be of no use; together they are a minority."""
        network = self.network
        network.meddles = False
        network.slow.clear()
        damaged = [rank for rank in nemesis.victims if self.nodes[rank].excused]
        others = [rank for rank in self.options.ranks if rank not in damaged]
        self.loop.rng.shuffle(others)
        if not all(node.is_whole for node in self.nodes.values()):
            others = []  # who learns needs all the others
        absent = set(others[: max(0, min(self.options.absent_at_end, self.options.minority - len(damaged)))])
        if self.options.strict_start and not all(self.nodes[rank].serves for rank in others):
            absent.clear()  # a first start that is to be strict needs more than a majority
        for node in self.nodes.values():
            node.files.fail_next = None
            node.files.crash_in = 0
            node.files.empty()
            node.resume()
            if node.process is not None:
                node.process.disk.disk_s = self.options.disk_s
            if node.rank in absent:
                node.wanted = False
                node.exit()
            elif node.process is None:
                node.start()
        network.heal()
        if self.options.receipts or self.options.frames:
            # Frames that were lost within a living connection: what has a receipt is not sent again on it.
            for transport in list(network.transports):
                if transport in network.transports:
                    network.cut(transport)
        for worker in self.workers:
            worker.resume()
            if isinstance(worker, ContractClient):
                worker.reset()
        frontends = [worker for worker in self.workers if isinstance(worker, Frontend)]
        self.loop.rng.shuffle(frontends)
        for frontend in frontends[1:]:
            frontend.retire()
        for frontend in frontends[:1]:
            frontend.insist()

    def _work_to_the_end(self) -> None:
        deadline_s = self.loop.now_s + LIVENESS_S
        for worker in self.workers:
            worker.to_do = 0
            worker.work(LAST_OPERATIONS)
        self._run_until_idle(deadline_s)
        readers = [worker for worker in self.workers if not worker.retired]
        reader = self.loop.rng.choice(readers) if self.options.frontends else readers[0]
        reader.plan = [(sector, 1, False) for sector in range(reader.reach)]
        reader.work(0)
        self._run_until_idle(deadline_s)

    def _run_until_idle(self, deadline_s: float) -> None:
        self.loop.run(deadline_s, self._all_idle)
        if not self._all_idle():
            calls = "\n".join(f"    {call}" for call in self.history.open_calls())
            raise Failure(f"not done {LIVENESS_S:.0f} s after the faults stopped:\n{calls}")

    def _settle(self) -> None:
        """Nothing of what was done stays behind, in the nodes or in the clients."""
        self.loop.run(self.loop.now_s + SETTLE_S, lambda: not self._left())
        if left := self._left():
            raise Failure(f"left over {SETTLE_S:.0f} s after the end: {left}")
        for node in self.nodes.values():
            if node.process is not None:
                self.counters.update(node.process.replica.counters)
                self.counters.update(node.process.heal.counters)

    def _converge(self) -> None:
        """In the end all nodes have the same, without anybody reading it."""
        if self.options.heal:
            self.loop.run(self.loop.now_s + CONVERGE_S, lambda: not self._differences())
            if differences := self._differences():
                raise Failure(f"not in sync {CONVERGE_S:.0f} s after the end: {differences}")

    def _scrub(self) -> None:
        """Whatever was damaged is found, and repaired, once all nodes have verified all that they have."""
        if not self.options.scrub_s:
            return
        asked = [
            (node.process.scrubbing, node.process.scrubbing.ask()) for node in self.nodes.values()
            if node.process is not None and node.process.scrubbing is not None and node.process.interpreter.started
        ]

        def is_through() -> bool:
            return all(scrubbing.scrub.done >= number for scrubbing, number in asked)

        self.loop.run(self.loop.now_s + CONVERGE_S, is_through)
        if not is_through():
            raise Failure(f"not verified {CONVERGE_S:.0f} s after it was asked for")
        if len(asked) < self.options.nodes - self.options.minority or self._foreign:
            return  # what is damaged may have to wait for the others
        self.loop.run(self.loop.now_s + CONVERGE_S, lambda: not self._damaged())
        if damaged := self._damaged():
            raise Failure(f"still damaged {CONVERGE_S:.0f} s after all was verified: {damaged}")

    def _damaged(self) -> list[str]:
        """By the checksums of what the nodes that are up have on their disks."""
        found = []
        for node in self.nodes.values():
            if node.process is None or not node.process.interpreter.started:
                continue
            for sector in self.options.looked_at:
                if sector >= node.process.storage.sectors:
                    continue
                job = node.process.storage.load_job(sector, 1)
                job.run()  # and that is all: the node is to find it by itself
                if job.bad or job.absent:
                    found.append(f"sector {sector} at node {node.rank}")
        return found

    def _differences(self) -> list[str]:
        """Of the tags of two nodes that use each other."""
        processes = [
            node.process for node in self.nodes.values()
            if node.process is not None and node.process.interpreter.started and not self.is_foreign(node.rank)
            and node.is_member
        ]
        found = []
        for sector in self.options.looked_at:
            tags = {
                process.replica.rank: process.storage.tags(sector, 1) for process in processes
                if sector < process.storage.sectors and not process.storage.unknown(sector, 1)
            }
            if len(set(tags.values())) > 1:
                found.append(f"sector {sector}: " + ", ".join(f"{rank} {tag.hex()}" for rank, tag in tags.items()))
        return found

    def _left(self) -> dict[str, dict[str, int]]:
        left: dict[str, dict[str, int]] = {}
        for node in self.nodes.values():
            if node.process is not None:
                left[f"node {node.rank}"] = left_in_node(node.process.interpreter, node.process.connections.values())
        for worker in self.workers:
            if isinstance(worker, ExtensionClient) and not worker.out:
                left[f"client {worker.name}"] = left_in_client(worker.engine)
            if isinstance(worker, CachedClient) and not worker.cache.is_idle:
                left[f"cache of {worker.name}"] = {"bytes": worker.cache.buffered_bytes}
        return {where: what for where, what in left.items() if what}


def simulate(seed: int, listener: Callable[[str], None] | None = None) -> Result:
    """Run `seed`. An exception of the product is a failure like any other."""
    options = derive(seed)
    simulation = Simulation(options, listener)
    failure = ""
    try:
        simulation.run()
    except Failure as error:
        failure = str(error)
    except Exception:  # noqa: BLE001  # whatever the product raises is what we are looking for
        failure = traceback.format_exc()
    loop, history = simulation.loop, simulation.history
    return Result(
        seed, str(options), failure, loop.trace, len(history.operations), history.unknown, loop.now_s, loop.events,
        loop.faults, simulation.counters,
    )


__all__ = ["Failure", "Result", "Simulation", "simulate"]
