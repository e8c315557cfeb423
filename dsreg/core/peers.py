"""Peers: what goes to each other node, and comes from it, in the language that it speaks."""

from __future__ import annotations

from dsreg.core.contract import ContractPeer, Uuids
from dsreg.core.effects import Send
from dsreg.core.messages import Ack, Value


class Peers:
    """A node that speaks only the contract gets a message a sector, and keeps no epochs."""

    def __init__(self, uuids: Uuids) -> None:
        self._uuids = uuids
        self._contract: dict[int, ContractPeer] = {}

    def link_up(self, rank: int, extended: bool) -> None:
        if extended:
            self._contract.pop(rank, None)
        else:
            self._contract.setdefault(rank, ContractPeer(self._uuids))

    @property
    def all_keep_epochs(self) -> bool:
        """As far as is known."""
        return not self._contract

    def translated(self, send: Send, epoch: int) -> list[Send]:
        """`send`, of a READ_PROC or WRITE_PROC, for its peer; nothing if that cannot be told of `epoch`."""
        peer = self._contract.get(send.rank)
        if peer is None:
            return [send]
        if epoch:
            return []
        return [Send(send.rank, single) for single in peer.split(send.message)]  # type: ignore[arg-type]

    def join(self, answer: Value | Ack) -> Value | Ack | None:
        """The answer for the whole run that `answer` completes; None if more must come."""
        peer = self._contract.get(answer.rank)
        return answer if peer is None or not answer.uuid else peer.join(answer)

    def forget(self, rid: int) -> None:
        for peer in self._contract.values():
            peer.forget(rid)
