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
        self._heard: set[int] = set()  # of these: ranks that have said something in the language of the contract

    def heard(self, rank: int) -> None:
        """A message of the contract has come from that node."""
        if rank in self._contract:
            self._heard.add(rank)

    def link_down(self, rank: int) -> None:
        """A node that was killed while it was being greeted said nothing either. Nothing is known of it then."""
        if rank not in self._heard:
            self._contract.pop(rank, None)

    def link_up(self, rank: int, extended: bool) -> None:
        if extended:
            self._contract.pop(rank, None)
            self._heard.discard(rank)
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
