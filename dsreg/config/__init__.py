"""The configuration of a cluster: values, checked whole before anything starts.

    load     cluster.toml and key files -> ClusterConfig, NodeConfig, or ConfigError with every fault
    sizes    4KiB, 1GiB
    address  host:port
    nodes    which nodes there are, and where
    keys     key files: private, hexadecimal, of the right length
    create   the files of a new cluster

`create` writes what `load` reads; both go through `keys`.
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
