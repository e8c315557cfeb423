"""What a node says of itself: STATUS, docs/protocol.md."""

from __future__ import annotations

import os
import resource
import time
from typing import TYPE_CHECKING

import trio

from dsreg.node.dialer import Dialer
from dsreg.node.traffic import traffic_of
from dsreg.protocol.messages import name_of_owner
from dsreg.version import described_version

if TYPE_CHECKING:
    from dsreg.node.process import Node


def status_of(node: Node) -> dict[str, object]:
    """As it is now."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    counters = dict(node.replica.counters)
    counters.update(node.server.decoder_counters())
    counters.update(node.heal.counters)
    return {
        "version": described_version(),
        "rank": node.config.rank,
        "incarnation": node.storage.incarnation,
        "uptime_s": round(time.monotonic() - node.started, 3),
        "unix_s": round(time.time(), 3),
        "lives": node.members.report(),
        "configuration": node.members.configuring.report(),
        "sectors": node.storage.sectors,
        "largest_sectors": node.storage.configuration.largest,
        "sectors_written": node.storage.sectors_written,
        "damaged": node.storage.damaged,
        "heal": node.heal.report(trio.current_time()),
        **node.scrubbing.report(),
        **node.disk.report(node.config.storage),
        "peers": {str(rank): _link_of(node, dialer) for rank, dialer in sorted(node.links.dialers.items())},
        "unfinished": node.replica.unfinished(),
        "epoch": node.storage.epoch,
        "attached_by": name_of_owner(node.storage.owner) if node.replica.epochs.is_owner_connected else "",
        "connections": len(node.server.connections),
        "sealed": sum(connection.transport.is_sealed for connection in node.server.connections),
        "unsealed_connections": node.server.table.unsealed(trio.current_time()),
        "plain_write_s": _since(node),
        **traffic_of(node),
        "keys": node.keys.report(),
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "rss_bytes": _resident_bytes(),
        "counters": counters,
    }


def _since(node: Node) -> float | None:
    at_s = node.replica.plain_write_s
    return None if at_s is None else round(node.interpreter.clock() - at_s, 3)


def _link_of(node: Node, dialer: Dialer) -> str:
    """As the dialer sees it; "silent" for one that takes connections but has never been heard of: it is of another
    cluster, has other keys, or speaks the contract and had nothing to say yet."""
    silent = dialer.state == "contract" and dialer.rank not in node.interpreter.heard
    return "silent" if silent else dialer.state


def _resident_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
