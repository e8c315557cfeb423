"""Injects the faults that a run knows, one after the other, at random times, and takes each back after a while."""

from __future__ import annotations

from collections.abc import Callable

from dsreg.constants import SECTOR_SIZE
from dsreg.storage import Commit
from dsreg.storage.layout import COPY_DISTANCE, JOURNALS, SECTORS, SLOT_SIZE, STATE, TAGS
from dsreg.testing.memory_files import Kind
from tests.simulation.network import CLIENTS, Host
from tests.simulation.node import SimNode
from tests.simulation.options import DAMAGING
from tests.simulation.reconfiguring import Reconfiguring
from tests.simulation.traps import Traps, World

# How long a fault that has an end lasts, in seconds: much shorter and much longer than the timeouts around it.
LASTS_S = (0.02, 0.3, 3.0, 12.0)
# How often a replay repeats what it has.
REPLAYS = 10
# What may happen when one majority takes over from another.
AT_CHANGES = frozenset({"kill", "power", "power_at_step", "blackout", "damage_sector", "damage_tags", "sync_error"})


class Nemesis(Traps):
    """Runs until `stop`. What it damages for good stays within one minority of the nodes."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._names = [name for name in world.options.faults if name not in DAMAGING or world.options.minority]
        ranks = list(world.options.ranks)
        self._loop.rng.shuffle(ranks)
        is_whole = world.options.rejoins or world.options.reconfigures
        # Where nodes rejoin it may be any of them that loses its directory: no disk is damaged otherwise.
        self._victims = ranks[: world.options.minority] if not is_whole else []
        self._rejoins = 0  # the rank of the node that loses its directory at its next store
        self.reconfiguring = Reconfiguring(world)
        self._trap = 0  # the rank of the next coordinator to die
        self._trapped = 0  # how often it has to die yet
        self._loses = False  # and its own copy with it
        self._acts: dict[str, Callable[[SimNode], None]] = {
            name: getattr(self, f"_{name}") for name in self._names
        }
        if self._names:
            self._wait()

    @property
    def victims(self) -> list[int]:
        """The nodes whose disks may have been damaged."""
        return self._victims

    def stop(self) -> None:
        self._left = 0
        self.reconfiguring.stop()

    def _wait(self) -> None:
        self._loop.after(self._world.options.fault_interval_s * self._loop.between(0, 2), self._act)

    def _act(self) -> None:
        if not self._left:
            return
        self._left -= 1
        name = self._loop.rng.choice(self._names)
        ranks = self._victims if name in DAMAGING else self._world.options.ranks
        node = self._world.nodes[self._loop.rng.choice(ranks)]
        self._acts[name](node)
        self._wait()

    def _later(self, undo: Callable[..., None], *args: object) -> None:
        self._loop.after(self._loop.rng.choice(LASTS_S) * self._loop.between(0.5, 1.5), undo, *args)

    # --- processes and machines -----------------------------------------------------------------
    def _kill(self, node: SimNode) -> None:
        if node.process is not None:
            self._loop.fault("kill", str(node.rank))
            node.exit()

    def _power(self, node: SimNode) -> None:
        self._loop.fault("power", str(node.rank))
        node.lose_power()

    def _power_at_step(self, node: SimNode) -> None:
        if not node.files.crash_in:
            self._loop.fault("power_at_step", str(node.rank))
            node.files.crash_in = self._loop.rng.choice((1, 2, 3, 4, 6, 8, 12, 20, 40))

    def _wipe(self, node: SimNode) -> None:
        # What is counted on is that somebody who is asked has heard of it: nodes of the contract cannot say.
        if node.known_to_all and not self._world.options.contract_nodes:
            self._loop.fault("wipe", str(node.rank))
            node.wipe()

    def _rejoin(self, node: SimNode) -> None:
        """At once, or as soon as it has stored something and has had time to say so, while the others are slow."""
        if self._loop.chance(0.3):
            self._lose(node)
            return
        rng, network = self._loop.rng, self._world.network
        self._rejoins = node.rank
        others = [other for other in self._world.nodes.values() if other is not node]
        rng.shuffle(others)
        for other in others:
            if other.rank not in network.slow:
                network.slow[other.rank] = rng.choice((0.02, 0.1, 0.5)) * rng.random()
                self._later(self._usual_speed, other)
        for other in others[: rng.randint(0, self._world.options.minority)]:
            self._block("isolate", self._around({other.rank}))

    def _older(self, node: SimNode) -> None:
        """Its directory is copied, or the copy of another one that there is is put back in its place."""
        copied = next((each for each in self._world.nodes.values() if each.has_copy), None)
        if copied is None:
            if node.serves and node.is_whole:
                self._loop.fault("copy", str(node.rank))
                node.copy()
        elif self._left and copied.may_be_put_back:
            self._loop.fault("older", str(copied.rank))
            copied.put_back()

    def _lose(self, node: SimNode) -> None:
        if self._left and node.may_be_lost and self.reconfiguring.may_lose(node.rank):
            self._loop.fault("rejoin", str(node.rank))
            node.rejoin()

    def _reconfigure(self, node: SimNode) -> None:
        self.reconfiguring.begin(node)

    def _blackout(self, node: SimNode) -> None:
        self._loop.fault("blackout")
        for each in self._world.nodes.values():
            each.lose_power()

    def _coordinator(self, node: SimNode) -> None:
        rng = self._loop.rng
        self._trap = rng.choice(self._victims) if self._victims and self._loop.chance(0.5) else node.rank
        self._trapped = rng.choice((1, 2, 4))

    def _coordinator_lost(self, node: SimNode) -> None:
        self._trapped, self._loses = 1, True

    def stored(self, rank: int, commit: Commit) -> None:
        """The commit has become durable at the node."""
        if self._left:
            self._stored_by_one(rank, commit)
        if rank == self._rejoins and any(not record.refused and not record.dataless for record in commit.records):
            self._rejoins = 0
            said_s = 2 * self._world.options.latency_s * self._loop.between(0.2, 4)
            self._loop.after(said_s, self._lose, self._world.nodes[rank])
        if not self._trapped or not self._left:
            return
        for record in commit.records:
            coordinator = record.tags[-1]
            loses = self._loses and coordinator in self._victims and coordinator != rank
            if not record.refused and (loses or not self._loses and coordinator == self._trap):
                self._trapped -= 1
                self._loop.after(0, self._spring, self._world.nodes[coordinator], self._world.nodes[rank])
                return

    def _spring(self, node: SimNode, holder: SimNode) -> None:
        """Nobody but `holder` has what `node` has just given a tag: it is not seen for a while, or never again."""
        self._loop.fault("coordinator", f"{node.rank}, stored at {holder.rank}")
        if self._loop.chance(0.5):
            node.exit()
        else:
            node.lose_power()
        if holder is not node:
            self._block("isolate", self._around({holder.rank}))
            if self._loses:
                self._loop.fault("coordinator_lost", str(node.rank))
                self._damage_tags(node)
                node.start_after(self._world.options.disk_s)
        elif node.rank in self._victims and self._loop.chance(0.7):
            self._damage_tags(node)

    def _stop(self, node: SimNode) -> None:
        if node.process is not None:
            self._loop.fault("stop", str(node.rank))
            node.stop()

    def _pause(self, node: SimNode) -> None:
        if node.process is not None and not node.paused:
            self._loop.fault("pause", str(node.rank))
            node.pause()
            self._later(node.resume)

    def _swizzle(self, node: SimNode) -> None:
        """Stop nodes one by one and revive them in another order."""
        nodes = [each for each in self._world.nodes.values() if self._loop.chance(0.7)]
        self._loop.fault("swizzle", " ".join(str(each.rank) for each in nodes))
        step_s = self._loop.rng.choice(LASTS_S) / 4
        for index, each in enumerate(nodes):
            self._loop.after(step_s * index, each.pause)
        last_s = step_s * len(nodes)
        self._loop.rng.shuffle(nodes)
        for index, each in enumerate(nodes):
            self._loop.after(last_s + step_s * index, each.resume)

    def _clock_jump(self, node: SimNode) -> None:
        self._loop.fault("clock_jump", str(node.rank))
        node.jump(self._loop.rng.choice((0.1, 2.0, 100.0)) * self._loop.rng.random())

    def _slow_node(self, node: SimNode) -> None:
        self._loop.fault("slow_node", str(node.rank))
        self._world.network.slow[node.rank] = self._loop.rng.choice((0.05, 0.5, 2.0)) * self._loop.rng.random()
        self._later(self._usual_speed, node)

    def _usual_speed(self, node: SimNode) -> None:
        self._world.network.slow.pop(node.rank, None)

    def _client_crash(self, node: SimNode) -> None:
        worker = self._loop.rng.choice(self._world.workers)
        self._loop.fault("client_crash", worker.name)
        worker.crash()

    def _client_pause(self, node: SimNode) -> None:
        worker = self._loop.rng.choice(self._world.workers)
        if not worker.paused:
            self._loop.fault("client_pause", worker.name)
            worker.pause()
            self._later(worker.resume)

    def _client_put_back(self, node: SimNode) -> None:
        worker = self._loop.rng.choice(self._world.workers)
        if worker.put_back():
            self._loop.fault("client_put_back", worker.name)

    # --- disks ----------------------------------------------------------------------------------
    def _sync_error(self, node: SimNode) -> None:
        self._loop.fault("sync_error", str(node.rank))
        node.files.fail_next = Kind.SYNC

    def _write_error(self, node: SimNode) -> None:
        self._loop.fault("write_error", str(node.rank))
        node.files.fail_next = Kind.WRITE

    def _slow_disk(self, node: SimNode) -> None:
        if node.process is not None:
            self._loop.fault("slow_disk", str(node.rank))
            disk, usual_s = node.process.disk, node.disk_s
            disk.disk_s = usual_s * self._loop.rng.choice((5, 50, 500))
            self._later(setattr, disk, "disk_s", usual_s)

    def _disk_full(self, node: SimNode) -> None:
        if node.files.capacity is None:
            self._loop.fault("disk_full", str(node.rank))
            node.files.fill()
            self._later(lambda: node.files.empty())

    def _read_error(self, node: SimNode) -> None:
        self._loop.fault("read_error", str(node.rank))
        node.excused = True
        node.files.unreadable(SECTORS, self._loop.rng.randrange(self._world.options.sectors))

    def _damage_sector(self, node: SimNode) -> None:
        sector = self._loop.rng.randrange(self._world.options.sectors)
        at = sector * SECTOR_SIZE + self._loop.rng.randrange(SECTOR_SIZE - 64)
        self._damage("damage_sector", node, SECTORS, at, self._loop.rng.randint(1, 64))

    def _damage_tags(self, node: SimNode) -> None:
        """Of a node that does not run, and has no journal to know better from: else it would not be seen."""
        node.exit()
        node.start()
        node.exit()
        slots = -(-self._world.options.sectors // 16)
        at = self._loop.rng.randrange(slots) * SLOT_SIZE + self._loop.rng.randrange(SLOT_SIZE - 8)
        self._damage("damage_tags", node, TAGS, at, self._loop.rng.randint(1, 8))

    def _damage_copy(self, node: SimNode) -> None:
        name = self._loop.rng.choice((STATE, *JOURNALS))
        at = self._loop.rng.choice((0, COPY_DISTANCE)) + self._loop.rng.randrange(40)
        self._damage("damage_copy", node, name, at, 1)

    def _damage(self, fault: str, node: SimNode, name: str, at: int, length: int) -> None:
        if node.files.exists(name) and not node.is_needed_to_start:  # it may not start again
            self._loop.fault(fault, f"{node.rank} {name} {at}+{length}")
            node.excused = True
            node.files.damage(name, at, length)

    # --- the network ----------------------------------------------------------------------------
    def _cut(self, node: SimNode) -> None:
        transports = [transport for transport in self._world.network.transports if transport.host == node.rank]
        if transports:
            transport = self._loop.rng.choice(transports)
            self._loop.fault("cut", transport.peer)
            self._world.network.cut(transport)

    def _hosts(self) -> list[Host]:
        return [*self._world.options.ranks, *(CLIENTS + index for index in range(len(self._world.workers)))]

    def _block(self, name: str, pairs: set[tuple[Host, Host]]) -> None:
        self._loop.fault(name, " ".join(f"{one}>{other}" for one, other in sorted(pairs)))
        self._world.network.blocked |= pairs
        self._later(self._world.network.unblock, pairs)

    def _partition(self, node: SimNode) -> None:
        """Two sides that do not hear each other."""
        hosts = self._hosts()
        side = {host for host in hosts if self._loop.chance(0.5)}
        self._block("partition", {(one, other) for one in hosts for other in hosts if (one in side) != (other in side)})

    def _one_way(self, node: SimNode) -> None:
        hosts = self._hosts()
        speakers = {host for host in hosts if self._loop.chance(0.4)}
        deaf = {host for host in hosts if self._loop.chance(0.4)}
        self._block("one_way", {(one, other) for one in speakers for other in deaf if one != other})

    def _isolate(self, node: SimNode) -> None:
        self._block("isolate", self._around({node.rank}))

    def _around(self, ranks: set[int]) -> set[tuple[Host, Host]]:
        """What has to be blocked so that these nodes hear, and are heard by, nobody but each other."""
        others = [host for host in self._hosts() if host not in ranks]
        return {(rank, host) for rank in ranks for host in others} | {(host, rank) for rank in ranks for host in others}

    def _rolling(self, node: SimNode) -> None:
        """Majorities that change: what one of them has learned, the next one must learn from who is in both."""
        stages = self._loop.rng.randint(2, 5)
        self._loop.fault("rolling", f"{stages} stages")
        self._stage(stages, self._loop.rng.choice(LASTS_S[1:]) / 2, set())

    def _stage(self, stages: int, lasts_s: float, pairs: set[tuple[Host, Host]]) -> None:
        network, rng = self._world.network, self._loop.rng
        network.unblock(pairs)
        if not stages or not self._left:
            return
        ranks = list(self._world.options.ranks)
        alone = set(rng.sample(ranks, min(self._world.options.minority or 1, len(ranks))))
        pairs = self._around(alone)
        network.blocked |= pairs
        names = [name for name in self._names if name in AT_CHANGES]
        if names and self._loop.chance(0.6):
            # What loses data is seen best by a majority of which the others in it know less.
            name = rng.choice([*names, *(name for name in names if name in DAMAGING)])
            ranks = self._victims if name in DAMAGING else ranks
            self._acts[name](self._world.nodes[rng.choice([rank for rank in ranks if rank not in alone] or ranks)])
        self._loop.after(lasts_s * self._loop.between(0.5, 1.5), self._stage, stages - 1, lasts_s, pairs)

    def _replay(self, node: SimNode) -> None:
        """What was said to the node before, perhaps to an earlier life of it, is said again, several times."""
        if self._loop.chance(0.5):
            node.exit()
        for _ in range(REPLAYS):
            self._loop.after(self._loop.between(0, 2), self._replay_once, node)
        if self._loop.chance(0.5):
            self._loop.after(self._loop.between(0.2, 1.5), self._silence, node)

    def _silence(self, node: SimNode) -> None:
        """It hears the other nodes, and they do not hear it."""
        if self._left:
            self._block("one_way", {(node.rank, other) for other in self._world.options.ranks if other != node.rank})

    def _replay_once(self, node: SimNode) -> None:
        if self._world.network.meddles and self._world.network.replay_to(node.rank):
            self._loop.fault("replay", str(node.rank))
