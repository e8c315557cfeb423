"""Parameters of a client: where the nodes are, and whether to attach the disk."""

from __future__ import annotations

import dataclasses
import os
import socket
from collections.abc import Sequence
from typing import Protocol


class NodeAddress(Protocol):
    """Where a node is."""

    @property
    def rank(self) -> int: ...
    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int: ...


class Cluster(Protocol):
    """What a client has to know; a dsreg.config.ClusterConfig has it. It may have a `require_sealed` as well: whether
    the client is to talk over sealed connections only; and `learn_addresses`, else True: whether it is to connect to
    where the nodes say that they are."""

    @property
    def sectors(self) -> int: ...
    @property
    def client_key(self) -> bytes: ...
    @property
    def nodes(self) -> Sequence[NodeAddress]: ...


@dataclasses.dataclass(frozen=True, kw_only=True)  # a name in the place of `take_over` would take the disk over
class Attach:
    """How a client attaches the disk. `name`: what to tell others who want it. `take_over`: also from a client that is
    alive, which then may not use it any more."""

    take_over: bool = False
    name: str = dataclasses.field(default_factory=lambda: f"{socket.gethostname()}, process {os.getpid()}")
