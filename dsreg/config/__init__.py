"""The configuration of a cluster: values, checked whole before anything starts.

    load       cluster.toml and key files -> ClusterConfig, NodeConfig, or ConfigError with every fault
    nodes      which nodes there are, and where
    address    host:port
    sizes      amounts of bytes, as text: 4KiB, 1GiB
    scrubbing  how often a node verifies its copy
    slow       when a request is slow
    metrics    where nodes serve metrics
    keys       key files: private, hexadecimal, of the right length
    rotation   the steps by which a key is changed
    recovered  the section [recovered], and the files of a cluster that was made of what another one has left
    create     the files of a new cluster
    edit       addresses and nodes in cluster.toml changed, all else as it was written
    durable    files that are there whole or not at all after a crash

`create` writes what `load` reads; both go through `keys`. `recovered` and `edit` replace it, through `durable`.
"""

from __future__ import annotations

from dsreg.config.address import format_address, is_local_only, parse_address
from dsreg.config.create import create_cluster, plan_addresses
from dsreg.config.load import (
    UNKNOWN_CLUSTER,
    ClusterConfig,
    NodeConfig,
    find_config,
    load_config,
)
from dsreg.config.nodes import NodeAddress
from dsreg.config.sizes import format_size, parse_size

__all__ = [
    "UNKNOWN_CLUSTER",
    "ClusterConfig",
    "NodeAddress",
    "NodeConfig",
    "create_cluster",
    "find_config",
    "format_address",
    "format_size",
    "is_local_only",
    "load_config",
    "parse_address",
    "parse_size",
    "plan_addresses",
]
