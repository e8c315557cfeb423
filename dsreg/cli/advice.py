"""Warnings of what a configuration permits and hardly anybody wants, such as an even number of nodes."""

from __future__ import annotations

from collections.abc import Sequence

from dsreg.config.address import canonical_host, is_local_only, needs_interface
from dsreg.config.nodes import NodeAddress
from dsreg.register.quorum import majority_of


def advice(nodes: Sequence[NodeAddress]) -> list[str]:
    """One line for each thing about the nodes that whoever plans the cluster should know."""
    lines = []
    count, quorum = len(nodes), majority_of(node.rank for node in nodes)
    if count % 2 == 0:
        lines.append(f"{count} nodes survive the loss of {quorum.spare(quorum.members)}, as {count - 1} do, and every "
                     f"write waits for {quorum.needed} of them: use {count - 1} or {count + 1}")
    by_host: dict[str, list[int]] = {}
    for node in nodes:
        if not is_local_only(node.host):
            by_host.setdefault(canonical_host(node.host), []).append(node.rank)
    for host, ranks in by_host.items():
        if len(ranks) > 1:
            lines.append(f"the nodes {', '.join(map(str, ranks))} are all on {host}, and fail together with it: "
                         "put each node on a host of its own")
    for node in nodes:
        if needs_interface(node.host):
            lines.append(f"node {node.rank}: {node.host} is link-local, and needs the name of an interface, which must "
                         f"be the same on all hosts: [{node.host}%eth0]")
    return lines
