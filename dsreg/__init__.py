"""dsreg: a disk that survives the loss of any minority of its machines.

The front door, for programs:

    Client, BlockingClient      read and write sectors (dsreg.client)
    BlockDevice                 read and write bytes of any alignment (dsreg.block_device)
    load_config, ClusterConfig  cluster.toml as a value (dsreg.config)
    run_register_process        a node, for embedding; NodeConfig says which (dsreg.node)

What lives where, and which way the data flows: docs/architecture.md.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dsreg.block_device import BlockDevice
    from dsreg.client import BlockingClient, Client
    from dsreg.config import ClusterConfig, NodeConfig, load_config
    from dsreg.node import run_register_process

__all__ = [
    "BlockDevice",
    "BlockingClient",
    "Client",
    "ClusterConfig",
    "NodeConfig",
    "load_config",
    "run_register_process",
]

_HOME = {
    "BlockDevice": "dsreg.block_device",
    "BlockingClient": "dsreg.client",
    "Client": "dsreg.client",
    "ClusterConfig": "dsreg.config",
    "NodeConfig": "dsreg.config",
    "load_config": "dsreg.config",
    "run_register_process": "dsreg.node",
}


def __getattr__(name: str) -> Any:
    """Import on first use: a node must have bound its port before it has imported all this."""
    if name not in _HOME:
        raise AttributeError(f"module 'dsreg' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
