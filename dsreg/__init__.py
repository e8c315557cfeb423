"""dsreg: a disk that survives the loss of any minority of its machines.

The front door, for programs:

    Client, BlockingClient      read and write sectors (dsreg.client)
    Attach                      for a client that is to have the disk to itself (dsreg.client)
    BlockDevice                 read and write bytes of any alignment (dsreg.block_device)
    load_config, ClusterConfig  cluster.toml as a value (dsreg.config)
    run_register_process        a node, for embedding; NodeConfig says which (dsreg.node)
    DsregError                  what they raise; the other errors are in dsreg.errors

Fakes for tests of programs that use these: dsreg.testing.

What lives where, and which way the data flows: docs/architecture.md.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dsreg.block_device import BlockDevice
    from dsreg.client import Attach, BlockingClient, Client
    from dsreg.config import ClusterConfig, NodeConfig, load_config
    from dsreg.errors import DsregError
    from dsreg.node import run_register_process
    from dsreg.version import VERSION as __version__

__all__ = [
    "Attach",
    "BlockDevice",
    "BlockingClient",
    "Client",
    "ClusterConfig",
    "DsregError",
    "NodeConfig",
    "__version__",
    "load_config",
    "run_register_process",
]

_HOME = {
    "Attach": "dsreg.client",
    "BlockDevice": "dsreg.block_device",
    "BlockingClient": "dsreg.client",
    "Client": "dsreg.client",
    "ClusterConfig": "dsreg.config",
    "DsregError": "dsreg.errors",
    "NodeConfig": "dsreg.config",
    "load_config": "dsreg.config",
    "run_register_process": "dsreg.node",
}


def __getattr__(name: str) -> Any:
    """Import on first use: a node must have bound its port before it has imported all this."""
    if name == "__version__":
        return importlib.import_module("dsreg.version").VERSION
    if name not in _HOME:
        raise AttributeError(f"module 'dsreg' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    """For help(), and for completion in an interpreter: with what is imported on first use."""
    return sorted({*globals(), *__all__})
