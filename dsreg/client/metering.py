"""What a client counts for metrics, where they are wanted, and what it is doing at a moment."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping

from dsreg.constants import MAX_RANK, SECTOR_SIZE
from dsreg.histogram import Histogram
from dsreg.protocol.messages import Command, CommandKind

# Those that an operation is made of, whoever counts the majority.
COMMANDS = (CommandKind.GET, CommandKind.PUT, CommandKind.READ, CommandKind.TAG, CommandKind.STORE)


@dataclasses.dataclass(slots=True)
class Counters:
    """Since the start of the client. `retries`: commands sent again, anywhere. `failovers`: those of them that
    went to another node. `hedges`: commands that were not answered in time, and given to another node as well.
    `late_answers`: answers to what was already settled. `reconnects`: connections made
    after the first one of each node. `quorums`: operations whose majority the client counted itself, `coordinated`:
    those that it left to a node. `failures`: operations that have failed."""

    retries: int = 0
    failovers: int = 0
    hedges: int = 0
    late_answers: int = 0
    reconnects: int = 0
    quorums: int = 0
    coordinated: int = 0
    failures: int = 0


class Meter:
    """Measures what takes the time of operations: from when a command is sent to when a majority has answered it, as
    the client has counted or the node that was asked says. Clients that follow each other may share one. `on_slow` is
    told of each that took `slow_s` or longer.

    That takes 0.5 us of CPU for each command. Kept by the number of the kind: the hash of a member of an enumeration
    is computed in Python each time.
    """

    def __init__(self) -> None:
        self.counters = Counters()
        self._took = [Histogram() for _ in range(max(CommandKind) + 1)]
        self._sectors = [0] * len(self._took)
        self._last = [0] * (MAX_RANK + 1)
        self.slow_s = math.inf
        self.on_slow: Callable[[Command, int, float], None] = lambda command, rank, took_s: None  # as `answered`

    def answered(self, command: Command, rank: int, took_s: float) -> None:
        """A majority has, and the node of this rank was the last one of it, or has seen to it."""
        kind = command.kind
        self._took[kind].observe(took_s)
        self._sectors[kind] += command.count
        self._last[rank] += 1
        if took_s >= self.slow_s:
            self.on_slow(command, rank, took_s)

    def commands(self) -> Iterator[tuple[str, Histogram, int]]:
        """Each command by name, how long it took, and bytes of sectors."""
        for kind in COMMANDS:
            yield kind.name.lower(), self._took[kind], self._sectors[kind] * SECTOR_SIZE

    def last(self, rank: int) -> int:
        """How many commands the node was the last one to answer for a majority."""
        return self._last[rank]


@dataclasses.dataclass(frozen=True, slots=True)
class Moment:
    """Of a client, at one moment. `connected`: each node that decides, and whether it can be asked. `has_majority`:
    whether those that can be asked are one; `spare`: how many of them may be lost then, whichever. `unfinished`:
    operations at the nodes; `waiting`: those before them, for others on their sectors or for room. `lagging_bytes`: of
    writes that are done and that a node has not answered yet. `attachment`: a state of dsreg.client.attachment in lower
    case, or "shared". `why_lost`: "" unless the disk is lost to this client."""

    connected: Mapping[int, bool]
    has_majority: bool
    spare: int
    unfinished: int
    waiting: int
    lagging_bytes: Mapping[int, int]
    attachment: str
    epoch: int
    why_lost: str
    sectors: int
