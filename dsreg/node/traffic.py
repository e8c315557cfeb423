"""What clients have asked of a node, and who they are, for STATUS: docs/protocol.md, Part 2."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dsreg.histogram import BOUNDS_S
from dsreg.node.interpreter import Connection
from dsreg.protocol.messages import name_of_owner

if TYPE_CHECKING:
    from dsreg.node.process import Node

# A STATUS has a bound, and a person reads no more: of more clients those that have asked most.
MOST_CLIENTS = 16


def traffic_of(node: Node) -> dict[str, object]:
    """`requests`: since the start, by operation; how long they took as in a dsreg.histogram with the bounds
    `bounds_s`. `clients`: connections that have asked for sectors, `clients_left_out`: how many there are besides."""
    interpreter, now_s = node.interpreter, node.interpreter.clock()
    operations = {
        name: {"count": took.count, "seconds": round(took.total, 6), "bytes": size, "buckets": took.counts}
        for name, (took, size) in interpreter.requests().items() if took.count
    }
    table = node.server.connections
    asking = [one for one, line in table.items() if not line.rank and (one.requests or one.unfinished)]
    most = sorted(asking, key=lambda one: -one.requests)[:MOST_CLIENTS]
    return {
        "requests": {
            "bounds_s": BOUNDS_S, "operations": operations,
            "unfinished": interpreter.unfinished, "unfinished_bytes": interpreter.unfinished_bytes,
        },
        "clients": [_client(node, one, now_s) for one in most],
        "clients_left_out": len(asking) - len(most),
    }


def _client(node: Node, connection: Connection, now_s: float) -> dict[str, object]:
    is_owner = node.replica.epochs.is_owner(connection)
    return {
        "peer": connection.transport.peer,
        "owner": name_of_owner(node.storage.owner) if is_owner else "",
        "sealed": connection.transport.is_sealed,
        "since_s": round(now_s - connection.since_s, 3),
        "requests": connection.requests,
        "bytes": connection.moved_bytes,
        "unfinished": connection.unfinished,
    }
