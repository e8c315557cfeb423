"""Engine: carries out what the client's core decides, over its connections; admits and orders operations. Pure.

What is submitted calls back. Who runs it (a Shell: dsreg.client.runner under trio, and the simulator) brings the
connections and a clock, calls `tick` while the engine is busy, and is told of what happens.
"""

from __future__ import annotations

import collections
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

from dsreg.client.admission import Admission
from dsreg.client.core import ClientCore
from dsreg.client.events import (
    Abandon,
    Attached,
    Close,
    Completed,
    Connected,
    Disconnected,
    Drop,
    Dropped,
    Effect,
    Event,
    Failed,
    Found,
    Gone,
    Inform,
    Moved,
    NotAttached,
    NotCounted,
    Received,
    Refusal,
    Send,
    Sized,
    Split,
    Start,
    Tick,
    Waits,
    Withdraw,
)
from dsreg.client.pieces import Pieces
from dsreg.client.range_lock import RangeLock
from dsreg.client.run import Run
from dsreg.client.shell import Connection, Shell
from dsreg.constants import MAX_RUN_SECTORS
from dsreg.errors import ClientClosed, ClientError, NodesFull, OperationTimeout, Outcome
from dsreg.protocol.choosing import Answered, ConfigurationReport, Proposed
from dsreg.protocol.messages import Command, Message, ScrubBegun, ScrubRequest, StatusReport, StatusRequest
from dsreg.protocol.zeros import zeros
from dsreg.store import Buffer, Done

_ZEROS = bytes(zeros(MAX_RUN_SECTORS))


class Engine:
    """Between `open` and `close`. What is submitted goes out with the next `end_turn`, so that one writing serves all
    that is submitted in a turn. `connect`: makes the connection to a node, which tells the engine of it
    (dsreg.client.connection.Observer). `clock`: seconds of the clock of ClientCore. `admission`: how much may be
    under way. `timeout_s`: for each run, None for none."""

    def __init__(
        self, core: ClientCore, ranks: Sequence[int], connect: Callable[[int, Engine], Connection], shell: Shell,
        clock: Callable[[], float], admission: Admission, timeout_s: float | None = None,
    ) -> None:
        self.core = core
        self.is_open = False
        self._shell = shell
        self._clock = clock
        self._lock = RangeLock()
        self._admission = admission
        self._timeout_s = timeout_s
        self._runs: dict[Run, None] = {}  # all that have not ended
        self._operations: dict[int, Run] = {}  # those that the core has
        self._last_operation = 0
        self.ready: collections.deque[Run] = collections.deque()  # hold all they need, and are to be started
        self._is_starting = False
        self._under_way: list[list[Effect]] = []  # of steps within steps
        self._ticks = False  # from the first operation until none is left
        self._known: set[int] = set()  # ranks that have been connected
        self._dirty: dict[Connection, None] = {}  # have something to flush; in order, so that runs repeat
        self._effects: dict[type, Callable[[Any], None]] = {
            Send: self._send,
            Withdraw: self._withdraw,
            Drop: lambda effect: self._connections[effect.rank].drop(),
            Moved: lambda effect: self._connections[effect.rank].moved(effect.place, is_first=effect.is_first),
            Found: self._found,
            Gone: self._gone,
            Inform: self._inform,
            Sized: lambda effect: shell.sized(effect.sectors),
            Completed: lambda effect: self._settle(effect.operation, effect.data, None),
            Failed: lambda effect: self._settle(effect.operation, b"", effect.error),
            Split: self._split,
            Dropped: lambda effect: self._settle(effect.operation, b"", None),
            Attached: shell.told,
            Waits: shell.told,
            NotAttached: shell.told,
            NotCounted: shell.told,
        }
        self._connect = connect
        self._connections = {rank: connect(rank, self) for rank in ranks}

    def open(self) -> None:
        """Runs that are submitted from now on are done."""
        self.is_open = True

    def close(self) -> None:
        """Every operation is over."""
        self.is_open = False
        self.step(Close())

    def obstacle(self) -> tuple[str, bool]:
        """See NodeSelector."""
        return self.core.obstacle(self._clock())

    @property
    def is_idle(self) -> bool:
        """Nothing is held, counted or waited for."""
        return not self._runs and not self._operations and self._admission.is_idle and len(self._lock) == 0

    @property
    def waiting(self) -> int:
        """Runs that wait for their sectors, or for room."""
        return len(self._runs) - len(self._operations)

    @property
    def has_unsent(self) -> bool:
        """Whether something waits for the end of the turn."""
        return bool(self._dirty)

    # --- runs -----------------------------------------------------------------------------------
    def submit(
        self, first: int, count: int, data: bytes | None, done: Done, deadline_s: float = math.inf, force: bool = False
    ) -> Run:
        """A run of one chunk, within the disk: see dsreg.store.SectorStore; `force`: see Client."""
        assert first % MAX_RUN_SECTORS + count <= MAX_RUN_SECTORS and count
        return self._add(Run(self, first, count, data, done, deadline_s, force))

    def _add(self, run: Run) -> Run:
        if self._timeout_s is not None and run.deadline_s == math.inf:
            run.deadline_s = self.deadline_s()
        self._runs[run] = None
        run.held = self._lock.acquire(run.first, run.first + run.count, run.locked)
        if not run.held.waits:
            self.ask_for_room(run)
            self._start_ready()
        return run

    def zero(self, first: int, count: int, done: Done, deadline_s: float = math.inf, force: bool = False) -> Run:
        """Write zeros to many whole chunks (dsreg.protocol.zeros.are_chunks), within the disk."""
        return self._add(Run(self, first, count, None, done, deadline_s, force, zero=True))

    def map(self, first: int, count: int, done: Done, deadline_s: float = math.inf) -> Run:
        """Ask which whole chunks have no data (dsreg.protocol.extents.can_be_mapped), within the disk. It waits for no
        other run, nor others for it: it meets what has ended before, as every operation does that asks a majority."""
        run = Run(self, first, count, None, done, min(deadline_s, self.deadline_s()), False, maps=True)
        self._runs[run] = None
        self.ask_for_room(run)
        self._start_ready()
        return run

    def write_zeros(self, first: int, count: int, done: Done, over: Callable[[], None]) -> None:
        """See Pieces."""
        run = Run(self, first, count, _ZEROS, done, self.deadline_s(), False)
        run.over = over
        self._runs[run] = None
        self.ask_for_room(run)
        self._start_ready()

    def _split(self, effect: Split) -> None:
        """Its sectors stay locked until all pieces are over, so that it keeps its place among what was submitted."""
        run = self._operations.pop(effect.operation)
        self._admission.release(run.size)
        run.operation, run.deadline_s = 0, math.inf

        def ended(error: ClientError | None) -> None:
            if (done := run.done) is not None:
                run.done = None
                done(b"", error)

        def over() -> None:
            del self._runs[run]
            assert run.held is not None
            self._lock.release(run.held)

        run.pieces = Pieces(self, run.first, run.count, ended, over, is_exposed=effect.is_exposed)
        if run.done is None:
            run.pieces.stop()
        run.pieces.go_on()

    def deadline_s(self) -> float:
        """For what is submitted now."""
        return math.inf if self._timeout_s is None else self._clock() + self._timeout_s

    def ask_for_room(self, run: Run) -> None:
        """The sectors are the run's."""
        run.entry = self._admission.acquire(run.size, run.admitted)
        if run.entry is None:
            self.ready.append(run)

    def _start_ready(self) -> None:
        """Not within a step, whose effects come first. A loop: what is started may end at once, and free the next."""
        if self._is_starting or self._under_way:
            return
        self._is_starting = True
        while self.ready:
            self._start(self.ready.popleft())
        self._is_starting = False

    def _start(self, run: Run) -> None:
        self._last_operation = operation = run.operation = self._last_operation + 1
        self._operations[operation] = run
        if self.is_open:
            self.step(Start(operation, run.first, run.count, run.data, run.force, run.zero, run.maps))
        else:
            self._settle(operation, b"", ClientClosed("the client is not open", Outcome.DID_NOT_HAPPEN))

    def _settle(self, operation: int, data: Buffer, error: ClientError | None) -> None:
        run = self._operations.pop(operation)
        self._release(run)
        if run.done is not None:
            run.done(data, error)
        run.over()

    def _release(self, run: Run) -> None:
        del self._runs[run]
        self._admission.release(run.size)
        if run.held is not None:
            self._lock.release(run.held)

    def abandon(self, run: Run) -> Outcome:
        """See dsreg.store.Submitted."""
        outcome = Outcome.DID_NOT_HAPPEN
        if run not in self._runs or run.done is None:
            return outcome
        run.done, run.deadline_s = None, math.inf
        if run.pieces is not None:
            run.pieces.stop()
            outcome = Outcome.MAY_HAVE_HAPPENED
        elif run.operation:
            outcome = self._outcome(run)
            self.step(Abandon(run.operation))
        elif run.held is not None and run.held.waits or run.entry is not None:
            del self._runs[run]
            if run.entry is not None:
                self._admission.give_up(run.entry)
            if run.held is not None:
                self._lock.release(run.held)
            run.over()
        else:
            self.ready.remove(run)
            self._release(run)
            run.over()
        self._start_ready()
        return outcome

    def _outcome(self, run: Run) -> Outcome:
        """What is known of a run that the core has, or that has ended in a step of which not all is carried out yet:
        one event may end many, and the first to be told gives up the others of its call."""
        known = self.core.outcome(run.operation)
        if known is not None:
            return known
        for effect in itertools.chain.from_iterable(self._under_way):
            if isinstance(effect, Failed) and effect.operation == run.operation:
                return effect.error.outcome
        return Outcome.DID_NOT_HAPPEN if run.is_read else Outcome.MAY_HAVE_HAPPENED

    def _end_overdue(self) -> None:
        now_s = self._clock()
        for run in [run for run in self._runs if run.deadline_s <= now_s]:
            if run not in self._runs or (done := run.done) is None:
                continue  # ended, or given up, by what the one before it has caused
            what = "read" if run.is_read else "write"
            obstacle, is_full = self.obstacle()
            ranks = self.core.ranks
            up = f"{sum(map(self.core.up, ranks))} of {len(ranks)} nodes connected"
            kind = NodesFull if is_full and not run.is_read else OperationTimeout
            where = f"{run.first}..{run.first + run.count - 1}"
            reason = f"{what} of sectors {where}: not done within {self._timeout_s} s, {obstacle or up}"
            done(b"", kind(reason, self.abandon(run)))

    # --- turns ----------------------------------------------------------------------------------
    def send(self, rank: int, message: Command | StatusRequest | ScrubRequest | Proposed) -> None:
        """With the end of the turn."""
        self._send(Send(rank, message))

    def tell(self, report: ConfigurationReport) -> None:
        """All nodes that are connected, with the end of the turn."""
        for connection in self._connections.values():
            connection.tell(report)
            self._dirty[connection] = None

    def _found(self, effect: Found) -> None:
        self._shell.found(effect.rank, effect.place)
        self._connections[effect.rank] = self._connect(effect.rank, self)

    def _gone(self, effect: Gone) -> None:
        self._dirty.pop(self._connections.pop(effect.rank), None)
        self._shell.gone(effect.rank)

    def _withdraw(self, effect: Withdraw) -> None:
        if effect.rank in self._connections:  # else the node has left
            self._connections[effect.rank].withdraw(effect.request)

    def _inform(self, effect: Inform) -> None:
        connection = self._connections[effect.rank]
        connection.tell(ConfigurationReport(0, False, effect.configuration))
        self._dirty[connection] = None

    def _send(self, effect: Send) -> None:
        rank, message = effect
        connection = self._connections[rank]
        connection.send(message)
        self._dirty[connection] = None

    def end_turn(self) -> None:
        """Send what has been submitted."""
        while self._dirty:
            self._dirty.popitem()[0].flush()

    def tick(self) -> bool:
        """Time has passed; whether the next tick is due."""
        self.step(Tick())
        self._end_overdue()
        self.end_turn()
        self._ticks = self.core.busy
        return self._ticks

    # --- the core's side ------------------------------------------------------------------------
    def step(self, event: Event) -> None:
        effects = self.core.step(event, self._clock())
        self._under_way.append(effects)
        for effect in effects:
            self._effects[type(effect)](effect)
        self._under_way.pop()
        if self.ready:
            self._start_ready()
        if not self._ticks and self.core.busy:
            self._ticks = True
            self._shell.busy()

    # --- the connections' side (connection.Observer) -----------------------------------------------
    # Of a node that has left something may come before its connection has ended.
    def connected(self, rank: int, nodes: int, zeroes: bool = False, maps: bool = False) -> None:
        if rank not in self._connections:
            return
        self.core.counters.reconnects += rank in self._known
        self._known.add(rank)
        self.step(Connected(rank, nodes, zeroes, maps))
        self.end_turn()
        self._shell.up(rank)

    def received(self, rank: int, messages: Sequence[Message]) -> None:
        if rank not in self._connections:
            return
        self.step(Received(rank, messages))
        self.end_turn()
        for message in messages:
            if isinstance(message, (StatusReport, ScrubBegun, Answered)):
                self._shell.reported(message)

    def disconnected(self, event: Disconnected | Refusal) -> None:
        if event.rank not in self._connections:
            return
        self.step(event)
        self.end_turn()
        self._shell.down(event.rank)
