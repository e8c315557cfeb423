"""A simulated node: its disk and its clock, which stay, and the processes that live on them one after the other; what
kills and revives them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from dsreg.constants import DRAIN_S
from dsreg.errors import DamagedStorage, NoSpace, OlderDirectory, StorageError
from dsreg.protocol.life import STORE_SIZE, Life
from dsreg.storage import Identity, StableStorage, Start
from dsreg.testing.memory_files import Chooser, drop_all, keep_all, random_chooser
from tests.simulation.files import Crash, SimFiles
from tests.simulation.network import SimTransport
from tests.simulation.process import CLUSTER, Process, World
from tests.simulation.witness import BrokenPromise, check_start

# A node that could not start, or has died of an error, is started again after this long, as a supervisor does.
RESTART_S = 0.5

_STARTED, _DIED = 10, 11


class Copy(NamedTuple):
    """Of a directory; the life and the mark that it says of itself."""

    life: Life
    mark: int
    files: SimFiles


class SimNode:
    """The node `rank`, off until `start`. `excused`: its disk was damaged, so it may refuse to start."""

    def __init__(self, world: World, rank: int) -> None:
        self.rank = rank
        self.process: Process | None = None
        self.paused = False
        self.excused = False
        self._last_incarnation = 0
        self.told = 0  # the newest epoch under which it has answered
        self.wiped = 0  # how often its directory was deleted
        self.lost = 0  # likewise, and it was told to rejoin
        self._learns = False
        self._copy: Copy | None = None  # of its directory, as it was earlier
        self._is_older = False  # it has noticed that its directory is an older one
        self._older_life = 0  # of the directory that was put back last
        self._ids = 0  # that it has given to its directories
        self.wanted = True  # whether it is to run
        self.deferred: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self.disk_s = world.options.disk_s
        if world.options.disk_spread != 1.0 and world.loop.chance(0.5):
            self.disk_s *= world.options.disk_spread
        self.files = SimFiles(world.loop, world.options.cold)
        self._clock_offset_s = world.loop.between(0, 1000)
        self._world = world
        self._joins = rank not in world.options.first_ranks
        first = tuple(sorted({*world.options.first_ranks, rank}))
        self._identity = Identity(CLUSTER, rank, first, world.options.created_sectors)
        self._restart = world.loop.after(0, lambda: None)

    def clock(self) -> float:
        return self._world.loop.now_s + self._clock_offset_s

    def jump(self, seconds: float) -> None:
        """The node's clock goes forward at once: its host was asleep."""
        self._clock_offset_s += seconds
        if self.process is not None:
            self.process.guard(self.process.interpreter.tick)

    def accept(self) -> Callable[[SimTransport], None] | None:
        return self.process.accept if self.process is not None else None

    # --- lives ----------------------------------------------------------------------------------
    def start(self) -> None:
        if self.process is not None or not self.wanted:
            return
        self._restart.cancel()
        try:
            storage = StableStorage.open(
                self.files, self._identity, self._world.options.journal_bytes, self._new_store,
                Start(joins=self._joins, older=self._is_older),
            )
            self._is_older = False
        except Crash:
            self.lose_power()
            return
        except (NoSpace, DamagedStorage) as error:
            self._not_started(error)
            return
        except StorageError as error:
            self.exit(error)
            return
        self._check_start(storage)
        self._world.loop.note(_STARTED, self.rank, storage.incarnation, 0)
        if self._world.loop.verbose:
            self._world.loop.say(f"node {self.rank} starts, incarnation {storage.incarnation}")
        try:
            self.process = Process(self._world, self, storage)
        except Crash:
            self.lose_power()
        except StorageError as error:
            self.exit(error)

    def _new_store(self) -> bytes:
        self._ids += 1
        return self._ids.to_bytes(4) + self.rank.to_bytes(STORE_SIZE - 4)

    def check_served(self) -> None:
        if self.wiped:
            raise BrokenPromise(f"node {self.rank} serves with an empty directory")
        if self.process is not None and self.process.storage.lives.own.number <= self._older_life:
            raise BrokenPromise(f"node {self.rank} serves with an older directory, and has not noticed it")

    @property
    def serves(self) -> bool:
        """Whether it is up, and its first start is over."""
        return self.process is not None and self.process.interpreter.started

    @property
    def is_member(self) -> bool:
        """Whether it is, as far as it knows."""
        return self.process is None or self.process.members.membership.is_member

    @property
    def known_to_all(self) -> bool:
        """Whether all other nodes know its directory, durably: see docs/lives.md for what is not covered else."""
        return not self.is_needed_to_start and all(
            node.process is not None and self.rank in node.process.members.lives.known for node in self._others
        )

    @property
    def is_needed_to_start(self) -> bool:
        """Whether the first start of another node, which is to be strict, may need this one: it waits for that."""
        return self._world.options.strict_start and not all(node.serves for node in self._others)

    @property
    def _others(self) -> list[SimNode]:
        return [node for node in self._world.nodes.values() if node is not self and node.is_member]

    def wipe(self) -> None:
        """Its directory is deleted while it is down; then it is started again."""
        self._end()
        self.wiped += 1
        self.excused = True
        self._last_incarnation = self.told = 0
        self.files = SimFiles(self._world.loop, self._world.options.cold)
        self.start_after(RESTART_S * self._world.loop.between(0, 2))

    @property
    def is_whole(self) -> bool:
        """Whether its directory has all that it has to have, durably."""
        if self._learns and self.process is not None and self.serves:
            self._learns = self.process.storage.learning.is_recorded
        return not self._learns

    @property
    def may_be_lost(self) -> bool:
        """Whether its directory may: so many others have what there is, and know of it."""
        others = sum(1 for other in self._others if not other.is_whole)
        return self.is_whole and others < self._world.options.minority and self.known_to_all and self.serves

    def rejoin(self) -> None:
        """Its directory is deleted; it is started again, and told to take the next life of its rank."""
        self._end()
        self.lost += 1
        self._learns = True
        self._last_incarnation = self.told = 0
        self.files = SimFiles(self._world.loop, self._world.options.cold)
        self.start_after(self._world.loop.rng.choice((self._world.options.disk_s, RESTART_S))
                         * self._world.loop.between(0, 2))

    # --- older directories ----------------------------------------------------------------------
    def copy(self) -> None:
        """Its directory is copied, with the process killed for it."""
        assert self.process is not None
        life, mark = self.process.storage.lives.own, self.process.members.marking.own
        self.exit()
        self._copy = Copy(life, mark, self.files.copied())

    @property
    def has_copy(self) -> bool:
        """Whether there is one that may yet be put back: not of a life that it has lost."""
        if self._copy is not None and self.process is not None and self.serves:
            if self.process.storage.lives.own != self._copy.life:
                self._copy = None
        return self._copy is not None

    @property
    def may_be_put_back(self) -> bool:
        """Whether so many others have heard of a later state, durably, that it is noticed whichever of them are up."""
        if self._copy is None or not self.may_be_lost:
            return False
        assert self.process is not None
        life, mark = self.process.storage.lives.own, self._copy.mark
        told = [
            node.process.storage.marks.heard.get(self.rank, (life, 0))
            for node in self._others if node.process is not None
        ]
        heard = sum(1 for known, highest in told if known == life and highest > mark)
        return life == self._copy.life and heard > self._world.options.minority

    def put_back(self) -> None:
        """The copy takes the place of its directory."""
        assert self._copy is not None
        self._end()
        self._learns = True
        self._last_incarnation = self.told = 0
        self._older_life, self.files = self._copy.life.number, self._copy.files
        self._copy = None
        self.start_after(self._world.loop.rng.choice((self._world.options.disk_s, RESTART_S))
                         * self._world.loop.between(0, 2))

    def _check_start(self, storage: StableStorage) -> None:
        """Behind the back of the product: what is to go wrong, goes wrong later."""
        files = self.files
        crash_in, fail_next = files.crash_in, files.fail_next
        files.crash_in, files.fail_next = 0, None
        check_start(storage, self._last_incarnation, self.told, self.excused or self._learns)
        files.crash_in, files.fail_next = crash_in, fail_next
        self._last_incarnation = storage.incarnation

    def _not_started(self, error: StorageError) -> None:
        if isinstance(error, DamagedStorage) and not self.excused:
            self._world.broken(self.rank, error)
        if self._world.loop.verbose:
            self._world.loop.say(f"node {self.rank} does not start: {error}")
        self.files = self.files.after_kill()
        self.start_after(RESTART_S)

    def start_after(self, delay_s: float) -> None:
        self._restart.cancel()
        self._restart = self._world.loop.after(delay_s, self.start)

    def _end(self) -> None:
        process, self.process = self.process, None
        self._world.loop.note(_DIED, self.rank, 0, 0)
        self.paused = False
        self.deferred.clear()
        if process is not None:
            process.alive = False
            self.told = process.witness.told
            for transport in process.transports():
                transport.abandon()

    def exit(self, error: StorageError | None = None) -> None:
        """The process ends, by SIGKILL or for this error; the machine goes on."""
        if self._world.loop.verbose:
            self._world.loop.say(f"node {self.rank} exits: {error or 'killed'}")
        if isinstance(error, OlderDirectory):
            if not self._learns:
                self._world.broken(self.rank, error)
            self._is_older = True
        self._end()
        self.files = self.files.after_kill()
        self.start_after(RESTART_S * self._world.loop.between(0, 2))

    def lose_power(self) -> None:
        if self._world.loop.verbose:
            self._world.loop.say(f"node {self.rank} loses power")
        self._end()
        self.files = self.files.after_power_loss(self._chooser())
        self.start_after(RESTART_S * self._world.loop.between(0, 2))

    def _chooser(self) -> Chooser:
        choosers = {"drop": drop_all, "keep": keep_all, "random": random_chooser(self._world.loop.rng)}
        return choosers[self._world.options.power]

    def pause(self) -> None:
        self.paused = self.process is not None

    def resume(self) -> None:
        self.paused = False
        while self.deferred and not self.paused:
            call, args = self.deferred.popleft()
            call(*args)

    # --- SIGTERM --------------------------------------------------------------------------------
    def stop(self) -> None:
        """Finish what was begun, close the storage, end; be started again."""
        process = self.process
        if process is not None and not process.server.stopping:
            process.server.stopping = True
            process.guard(self._stop_when_quiet, process, self._world.loop.now_s + DRAIN_S)

    def _stop_when_quiet(self, process: Process, deadline_s: float) -> None:
        loop = self._world.loop
        if process.disk.busy or process.replica.unfinished() and loop.now_s < deadline_s:
            loop.after(self.disk_s, process.guard, self._stop_when_quiet, process, deadline_s)
            return
        process.disk.stop()
        process.storage.close()
        self.exit()
