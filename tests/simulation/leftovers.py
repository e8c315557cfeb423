"""What a cluster may keep once everything has been done: nothing. Every counter that goes up and down, and every table
of what is under way, in the nodes and in the clients. Looks into private tables."""

from __future__ import annotations

from collections.abc import Iterable

from dsreg.client.engine import Engine
from dsreg.node.interpreter import Connection, Interpreter


def left_in_node(interpreter: Interpreter, connections: Iterable[Connection]) -> dict[str, int]:
    """What is left over, by its name. `connections`: those that are open."""
    replica, heal, storage = interpreter.replica, interpreter.heal, interpreter.storage
    repeats = replica._acceptor._repeats._peers.values()
    opened = list(connections)
    return _only_some({
        "operations queued": replica.unfinished(),
        "chunks of the queue": len(replica._coordinator._queue._chunks),
        "operations by rid": len(replica._coordinator._executions),
        "operations that are ready": len(replica._coordinator._ready),
        "repairs": len(replica.repairs.under_way),
        "refused stores": len(replica._coordinator._refused._waiting),
        "stubborn messages": len(replica._links),
        "parts of runs": sum(len(peer._runs) for peer in replica._peers._contract.values()),
        "orders in progress": sum(not done for peer in repeats for done in peer.values()),
        "owners that have left": len(replica.epochs._attached.keys() - set(opened)),
        "commands": interpreter.unfinished,
        "bytes of commands": interpreter.unfinished_bytes,
        "commands of connections": sum(abs(connection.unfinished) for connection in opened),
        "bytes of connections": sum(abs(connection.unfinished_bytes) for connection in opened),
        "questions of heal": len(heal._questions),
        "chunks to heal": len(heal._differing.masks) + len(heal._open),
        "runs to heal": len(heal._runs) + len(heal._storing),
        "sectors being healed": abs(heal._under_way),
        "effects that wait for the disk": len(interpreter._parked),
        "records queued": len(storage._queue),
        "bytes queued": storage.queued_bytes,
        "sectors pending": len(storage._pending),
        "sectors being stored": len(storage._storing),
        "promises": len(storage.promises._reservations) + len(storage.promises._fences),
    })


def left_in_client(engine: Engine) -> dict[str, int]:
    """The same of a client whose connections are up, or known to be down."""
    operations, nodes = engine.core._operations, engine.core._selector.nodes
    return _only_some({
        "runs": len(engine._runs),
        "runs of the core": len(engine._operations),
        "chunks with ranges": len(engine._lock),
        "room": 0 if engine._admission.is_idle else 1,
        "operations": len(operations),
        "requests": len(operations._requests),
        "operations that wait": len(operations.waiting()),
        "answers owed": sum(len(node.owed) for node in nodes),
        "puts that lag": sum(len(node.lagging) for node in nodes),
        "bytes that lag": sum(node.lagging_bytes for node in nodes),
    })


def _only_some(counts: dict[str, int]) -> dict[str, int]:
    return {what: count for what, count in counts.items() if count}
