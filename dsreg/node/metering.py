"""What a node counts of its clients' requests, for STATUS and for its metrics."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from time import perf_counter

from dsreg.histogram import Histogram
from dsreg.node.interpreter import Connection, Interpreter
from dsreg.protocol.codec import Encodings
from dsreg.protocol.messages import Command, CommandKind, HealMessage, PeerMessage, Receipt, ScrubMessage
from dsreg.register.execution import size_of
from dsreg.register.heal import Heal
from dsreg.register.replica import Replica
from dsreg.storage import StableStorage, Ticket


class MeteredInterpreter(Interpreter):
    """Measures how long each command of a client takes, from when it is read to its answer.

    That takes 1 us of CPU for each, about a hundredth of what a command costs client and nodes. Kept by the
    number of the kind: the hash of a member of an enumeration is computed in Python each time.
    """

    # Spelled out, as mypyc passes `*args` on as one argument.
    def __init__(
        self, replica: Replica, heal: Heal, storage: StableStorage, encodings: Encodings, clock: Callable[[], float],
        unix_time: Callable[[], float],
    ) -> None:
        super().__init__(replica, heal, storage, encodings, clock, unix_time)
        self._took = [Histogram() for _ in range(max(CommandKind) + 1)]
        self._bytes = [0] * len(self._took)
        # By the identity of the command, which lives as long as it is unfinished.
        self.began_s: dict[int, float] = {}
        self.slow_s = math.inf
        # Told of each command that took `slow_s` or longer; and the rank that its last news came from.
        self.on_slow: Callable[[Connection, Command, float, int], None] = lambda connection, command, took_s, rank: None
        self._heard_from = self.replica.rank

    def requests(self) -> dict[str, tuple[Histogram, int]]:
        """By operation: how long they took, and bytes of sectors in them."""
        return {kind.name.lower(): (self._took[kind], self._bytes[kind]) for kind in CommandKind}

    def command(self, connection: Connection, command: Command) -> None:
        self.began_s[id(command)] = perf_counter()
        Interpreter.command(self, connection, command)

    def message(
        self, connection: Connection | None, message: PeerMessage | HealMessage | ScrubMessage | Receipt
    ) -> None:
        self._heard_from = message.rank
        Interpreter.message(self, connection, message)

    def committed(self, tickets: Iterable[Ticket]) -> None:
        self._heard_from = self.replica.rank
        Interpreter.committed(self, tickets)

    def _settle(self, connection: Connection, command: Command) -> None:
        Interpreter._settle(self, connection, command)
        if (began_s := self.began_s.pop(id(command), None)) is not None:
            kind, size, took_s = command.kind, size_of(command), perf_counter() - began_s
            self._took[kind].observe(took_s)
            if took_s >= self.slow_s:
                self.on_slow(connection, command, took_s, self._heard_from)
            self._bytes[kind] += size
            connection.requests += 1
            connection.moved_bytes += size
