"""What one node answers when it is asked for its state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dsreg.config import NodeAddress


@dataclass(frozen=True, slots=True)
class NodeAnswer:
    """A node's STATUS, or why there is none. `refuses`: it runs, and has no dealings with whoever asks like that."""

    node: NodeAddress
    report: dict[str, Any] | None
    fault: str = ""
    refuses: bool = False
