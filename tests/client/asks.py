"""Scripts of an attachment: the cluster it is made for, and what it asks, among its effects."""

from __future__ import annotations

from dsreg.client.attachment import Ask, Effect
from dsreg.register.quorum import Majority, majority_of


def of(nodes: int) -> Majority:
    """A majority of the nodes 1, 2, ..."""
    return majority_of(range(1, nodes + 1))


def asks(effects: list[Effect]) -> int | None:
    """The epoch that nodes are asked about, 0 for who has the disk; None if nothing is asked."""
    asked = [effect.epoch for effect in effects if isinstance(effect, Ask)]
    assert len(asked) <= 1
    return asked[0] if asked else None
