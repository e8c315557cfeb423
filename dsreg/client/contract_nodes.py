"""Nodes that speak only the contract, as this client has found when it greeted them: what follows for attaching."""

from __future__ import annotations

from dsreg.errors import AttachRefused, Outcome
from dsreg.register.quorum import Quorum, mask

# A node that has answered the contract's question but not the greeting, twice in a row, speaks only the contract; or
# the line has changed both greetings. How long this must have been so before attaching is refused for it.
SURE_AFTER_S = 2.0


class ContractNodes:
    """Times in seconds on one clock that does not go backwards."""

    def __init__(self) -> None:
        self._since_s: dict[int, float] = {}  # by rank

    def found(self, rank: int, now_s: float) -> None:
        """The node has been greeted and does not know greetings."""
        self._since_s.setdefault(rank, now_s)

    def connected(self, rank: int) -> None:
        """It has answered a greeting."""
        self._since_s.pop(rank, None)

    @property
    def ranks(self) -> list[int]:
        return sorted(self._since_s)

    def refusal(self, quorum: Quorum, now_s: float) -> AttachRefused | None:
        """Why the disk cannot be attached; None: these do not stand in the way."""
        sure = sorted(rank for rank, since_s in self._since_s.items() if now_s - since_s >= SURE_AFTER_S)
        if not quorum.blocks(mask(sure)):
            return None
        return AttachRefused(
            f"{describe_contract_nodes(sure)}, which leaves no majority of the {quorum.size} nodes that could keep "
            f"another client out; use the disk without attaching it, or replace {'them' if len(sure) > 1 else 'it'}",
            Outcome.DID_NOT_HAPPEN,
        )


def describe_contract_nodes(ranks: list[int]) -> str:
    """For people. `ranks`: at least one."""
    if len(ranks) == 1:
        return f"node {ranks[0]} speaks only the contract"
    return f"nodes {', '.join(map(str, ranks[:-1]))} and {ranks[-1]} speak only the contract"
