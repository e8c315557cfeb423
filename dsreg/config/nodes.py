"""The nodes in `cluster.toml`: where each one is, and which of them the cluster was created with.

The ranks of a new cluster are 1..N without gaps, and these nodes are configuration 1 (docs/configurations.md). Once
nodes have been added or removed the list is where to begin to look for them, and no more: `first_nodes` says how many
the cluster was created with, as that does not change any more. Where a cluster was made of what another one has left,
its section [recovered] may say so, as its ranks may have gaps from the beginning.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from dsreg.config.address import canonical_host, format_address, parse_address, why_not_reachable
from dsreg.constants import MAX_RANK

Fault = Callable[[str], None]

_NODE_KEYS: Final = ("rank", "address", "listen", "storage")


@dataclass(frozen=True, slots=True)
class NodeAddress:
    """One node: its rank (1..254), the address that nodes and clients connect to, its directory when `dsreg up` runs
    it, and where it listens if that is not its address."""

    rank: int
    host: str
    port: int
    storage: Path
    listen: tuple[str, int] | None = None

    @property
    def address(self) -> str:
        """`host:port`, with IPv6 in brackets: as in the configuration."""
        return format_address(self.host, self.port)


def check_keys(table: Mapping[str, Any], known: tuple[str, ...], where: str, fault: Fault) -> None:
    for key in table:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"
            fault(f"unknown key {key!r} in {where}; {hint}")


def first_nodes_of(cluster: Mapping[str, Any], fault: Fault) -> int:
    """How many nodes the cluster was created with; 0 if the file does not say: those that it lists."""
    if "first_nodes" not in cluster:
        return 0
    first = cluster["first_nodes"]
    if not isinstance(first, int) or isinstance(first, bool) or not 1 <= first <= MAX_RANK:
        fault(f"[cluster] first_nodes must be a whole number from 1 to {MAX_RANK}: how many nodes the cluster was "
              "created with, as `dsreg members` has written it; copy the file from another host")
        return 0
    return first


def nodes_of(tables: Any, directory: Path, has_gaps: bool, fault: Fault) -> tuple[NodeAddress, ...]:
    """All nodes in the order of their ranks, which may have gaps if it `has_gaps`, with their storage in `directory`;
    meaningless once a fault is noted."""
    if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
        fault("no [[node]] sections; add one with rank and address for every node")
        return ()
    nodes = [_node(position, table, directory, fault) for position, table in enumerate(tables, 1)]
    _check_ranks([node.rank for node in nodes], has_gaps, fault)
    _check_unique("address", [
        (node.rank, format_address(canonical_host(node.host), node.port)) for node in nodes if node.port
    ], fault)
    _check_unique("storage", [(node.rank, os.path.normpath(node.storage)) for node in nodes], fault)
    return tuple(sorted(nodes, key=lambda node: node.rank))


def _node(position: int, table: Mapping[str, Any], directory: Path, fault: Fault) -> NodeAddress:
    where = f"[[node]] number {position}"
    check_keys(table, _NODE_KEYS, where, fault)
    rank = table.get("rank")
    if not isinstance(rank, int) or isinstance(rank, bool):
        fault(f"{where}: rank must be a whole number from 1 to the number of nodes")
        rank = -position
    host, port = "", 0
    address = table.get("address")
    if not isinstance(address, str):
        fault(f'{where}: address must be text like "10.0.0.1:7001"')
    else:
        host, port = _address(where, "address", address, fault) or (host, port)
        if reason := why_not_reachable(host):
            fault(f"{where}: address: {reason}")
    listen = table.get("listen")
    if isinstance(listen, str):
        listen = _address(where, "listen", listen, fault)
    elif listen is not None:
        fault(f'{where}: listen must be text like "0.0.0.0:7001"')
        listen = None
    storage = table.get("storage", f"node-{rank}")
    if not isinstance(storage, str) or not storage:
        fault(f"{where}: storage must be the name of a directory, in quotes")
        storage = f"node-{rank}"
    return NodeAddress(rank, host, port, directory / storage, listen)


def _address(where: str, name: str, text: str, fault: Fault) -> tuple[str, int] | None:
    try:
        return parse_address(text)
    except ValueError as error:
        fault(f"{where}: {name} {error}")
        return None


def _check_ranks(ranks: list[int], has_gaps: bool, fault: Fault) -> None:
    """Ranks that were no numbers stand as negative placeholders and have had their fault already."""
    nodes = len(ranks)
    highest = MAX_RANK if has_gaps else nodes
    if nodes > MAX_RANK:
        fault(f"{nodes} nodes; at most {MAX_RANK} are possible")
    given = [rank for rank in ranks if rank >= 0]
    if double := sorted({rank for rank in given if given.count(rank) > 1}):
        fault(f"rank {', '.join(map(str, double))} is given more than once; every node has its own")
    outside = sorted(rank for rank in set(given) if not 1 <= rank <= highest)
    if not outside:
        return
    which = f"rank {', '.join(map(str, outside))} is outside 1..{highest}"
    if has_gaps:
        fault(which)
        return
    missing = sorted(set(range(1, nodes + 1)) - set(given))
    fault(f"{which}; {nodes} nodes have the ranks 1..{nodes} without gaps, here {', '.join(map(str, missing))} is "
          "missing (where nodes have been added or removed, first_nodes says so)")


def _check_unique(what: str, values: list[tuple[int, str]], fault: Fault) -> None:
    seen: dict[str, int] = {}
    for rank, value in values:
        if value in seen:
            fault(f"{what} {value} is given for the nodes {seen[value]} and {rank}; every node has its own")
        else:
            seen[value] = rank
