"""Engine: carries out what the client's core decides, over its connections; admits and orders operations. Pure.

What is submitted calls back. Who runs it (a Shell: dsreg.client.runner under trio, and the simulator) brings the
connections and a clock, calls `tick` while the engine is busy, and is told of what happens.
"""

from __future__ import annotations

import collections
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from dsreg.client.admission import Admission, Entry
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
    Start,
    Tick,
    Waits,
    Withdraw,
)
from dsreg.client.range_lock import Held, RangeLock
from dsreg.constants import MAX_RUN_SECTORS, SECTOR_SIZE
from dsreg.errors import ClientClosed, ClientError, NodesFull, OperationTimeout, Outcome
from dsreg.protocol.address import Place
from dsreg.protocol.choosing import Answered, ConfigurationReport, Proposed
from dsreg.protocol.messages import Command, Message, ScrubBegun, ScrubRequest, StatusReport, StatusRequest
from dsreg.store import Buffer, Done


class Connection(Protocol):
    """To one node. What is sent goes out with the next `flush`; see dsreg.client.connection."""

    def send(self, message: Command | StatusRequest | ScrubRequest | Proposed) -> None: ...

    def tell(self, report: ConfigurationReport) -> None: ...

    def withdraw(self, request: int) -> None: ...

    def flush(self) -> None: ...

    def drop(self) -> None: ...

    def moved(self, place: Place, *, is_first: bool) -> None: ...


class Shell(Protocol):
    """Who runs an engine. It must not call the engine back from these."""

    def busy(self) -> None:
        """`tick` is due every limits.TICK_S from now on, until it says that it is not."""

    def up(self, rank: int) -> None:
        """The node can be asked."""

    def down(self, rank: int) -> None:
        """It cannot be, any more."""

    def found(self, rank: int, place: Place) -> None:
        """There is this node as well. What comes next is that a connection to it is made."""

    def gone(self, rank: int) -> None:
        """The node has left. The connection to it is to be ended, and is not to tell the engine of anything more."""

    def reported(self, report: StatusReport | ScrubBegun | Answered) -> None:
        """The answer to what one node was asked, about itself or what follows; also to a status request of the core."""

    def told(self, effect: Attached | NotAttached | Waits | NotCounted) -> None:
        """What the user is to know."""


class Run:
    """A run that was submitted: it waits for its sectors, then for room, then it is an operation of the core."""

    __slots__ = (
        "count", "data", "deadline_s", "done", "engine", "entry", "first", "force", "held", "operation", "size",
    )
    held: Held

    def __init__(
        self, engine: Engine, first: int, count: int, data: bytes | None, done: Done, deadline_s: float, force: bool
    ) -> None:
        self.engine = engine
        self.first = first
        self.count = count
        self.size = count * SECTOR_SIZE  # in bytes
        self.data = data
        self.done: Done | None = done  # None: nobody waits any more
        self.deadline_s = deadline_s
        self.force = force
        self.entry: Entry | None = None  # while it waits for room
        self.operation = 0  # of the core; 0: not yet

    def locked(self) -> None:
        self.engine.ask_for_room(self)

    def admitted(self) -> None:
        self.entry = None
        self.engine.ready.append(self)

    def abandon(self) -> Outcome:
        """See dsreg.store.Submitted."""
        return self.engine.abandon(self)


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
            Completed: lambda effect: self._settle(effect.operation, effect.data, None),
            Failed: lambda effect: self._settle(effect.operation, b"", effect.error),
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
    def has_unsent(self) -> bool:
        """Whether something waits for the end of the turn."""
        return bool(self._dirty)

    # --- runs -----------------------------------------------------------------------------------
    def submit(
        self, first: int, count: int, data: bytes | None, done: Done, deadline_s: float = math.inf, force: bool = False
    ) -> Run:
        """A run of one chunk, within the disk: see dsreg.store.SectorStore; `force`: see Client."""
        assert first % MAX_RUN_SECTORS + count <= MAX_RUN_SECTORS and count
        if self._timeout_s is not None and deadline_s == math.inf:
            deadline_s = self.deadline_s()
        run = Run(self, first, count, data, done, deadline_s, force)
        self._runs[run] = None
        run.held = self._lock.acquire(first, first + count, run.locked)
        if not run.held.waits:
            self.ask_for_room(run)
            self._start_ready()
        return run

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
            self.step(Start(operation, run.first, run.count, run.data, run.force))
        else:
            self._settle(operation, b"", ClientClosed("the client is not open", Outcome.DID_NOT_HAPPEN))

    def _settle(self, operation: int, data: Buffer, error: ClientError | None) -> None:
        run = self._operations.pop(operation)
        self._release(run)
        if run.done is not None:
            run.done(data, error)

    def _release(self, run: Run) -> None:
        del self._runs[run]
        self._admission.release(run.size)
        self._lock.release(run.held)

    def abandon(self, run: Run) -> Outcome:
        """See dsreg.store.Submitted."""
        outcome = Outcome.DID_NOT_HAPPEN
        if run not in self._runs or run.done is None:
            return outcome
        run.done, run.deadline_s = None, math.inf
        if run.operation:
            outcome = self._outcome(run)
            self.step(Abandon(run.operation))
        elif run.held.waits or run.entry is not None:
            del self._runs[run]
            if run.entry is not None:
                self._admission.give_up(run.entry)
            self._lock.release(run.held)
        else:
            self.ready.remove(run)
            self._release(run)
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
        return Outcome.DID_NOT_HAPPEN if run.data is None else Outcome.MAY_HAVE_HAPPENED

    def _end_overdue(self) -> None:
        now_s = self._clock()
        for run in [run for run in self._runs if run.deadline_s <= now_s]:
            if (done := run.done) is None:
                continue  # ended by what the one before it has caused
            what = "read" if run.data is None else "write"
            obstacle, is_full = self.obstacle()
            ranks = self.core.ranks
            up = f"{sum(map(self.core.up, ranks))} of {len(ranks)} nodes connected"
            kind = NodesFull if is_full and run.data is not None else OperationTimeout
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
    def connected(self, rank: int, nodes: int) -> None:
        if rank not in self._connections:
            return
        self.core.counters.reconnects += rank in self._known
        self._known.add(rank)
        self.step(Connected(rank, nodes))
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
