"""Slow commands of a node's clients, logged with what they have waited for: `slow_ms`."""

from __future__ import annotations

from collections.abc import Iterable
from time import perf_counter

from dsreg.node.interpreter import Connection
from dsreg.protocol.messages import Command
from dsreg.register.execution import is_counted
from dsreg.slow import SlowLog, covered_s, milliseconds


class SlowCommands:
    """`syncs`: the last commits, from when to when, as time.perf_counter has it. `slow`: with that clock."""

    def __init__(self, limit_s: float, syncs: Iterable[tuple[float, float]]) -> None:
        self.slow = SlowLog(limit_s, perf_counter)
        self._syncs = syncs

    def ended(self, connection: Connection, command: Command, took_s: float, last: int) -> None:
        """`last`: rank of the node that the last thing came from that it has waited for."""
        if not self.slow.is_due(took_s):
            return
        now_s = perf_counter()
        sync_s = covered_s([*self._syncs], now_s - took_s, now_s)
        fields = {
            "operation": command.kind.name.lower(), "peer": connection.transport.peer, "sector": command.first,
            "sectors": command.count, "took_ms": milliseconds(took_s), "sync_ms": milliseconds(sync_s),
        }
        rest = f"{milliseconds(took_s - sync_s)} ms for the disk to be free, or to be read"
        if not is_counted(command):
            fields["last_node"] = last
            rest = f"the rest for a majority, of which node {last} was the last"
        self.slow.say(
            f"{fields['operation']} of {_sectors(command)} by {fields['peer']} took {fields['took_ms']} ms: "
            f"{fields['sync_ms']} ms in syncs of this node, {rest}", fields)


def _sectors(command: Command) -> str:
    last = command.first + command.count - 1
    return f"sector {last}" if command.count == 1 else f"sectors {command.first}..{last}"
