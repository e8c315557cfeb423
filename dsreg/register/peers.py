"""Peers: what goes to each other node, and comes from it, in the language that it speaks."""

from __future__ import annotations

from dsreg.protocol.messages import Ack, ReadProc, Receipt, Value, WriteProc, is_of_contract
from dsreg.protocol.tags import fit_contract
from dsreg.register.contract import ContractPeer, Uuids
from dsreg.register.effects import Tell
from dsreg.register.intervals import Intervals
from dsreg.register.receipts import Receipts


class Peers:
    """The other nodes, as the node `rank` sees them. One that speaks only the contract gets a message a sector, and
    keeps no epochs."""

    def __init__(self, rank: int, uuids: Uuids, intervals: Intervals) -> None:
        self._rank = rank
        self._uuids = uuids
        self._intervals = intervals
        self._contract: dict[int, ContractPeer] = {}
        self._heard: set[int] = set()  # of these: ranks that have said something in the language of the contract
        self._receipts: dict[int, Receipts] = {}

    def heard(self, rank: int) -> None:
        """A message of the contract has come from that node."""
        if rank in self._contract:
            self._heard.add(rank)

    def link_down(self, rank: int, now: float) -> None:
        """A node that was killed while it was being greeted said nothing either. Nothing is known of it then."""
        if rank in self._receipts:
            self._receipts[rank].link_down(now)
        if rank not in self._heard:
            self._contract.pop(rank, None)

    def link_up(self, rank: int, extended: bool) -> None:
        if extended:
            self._contract.pop(rank, None)
            self._receipts.pop(rank, None)
            self._heard.discard(rank)
        else:
            self._contract.setdefault(rank, ContractPeer(self._uuids, self._intervals))
            self._receipts.setdefault(rank, Receipts()).link_up()

    @property
    def all_keep_epochs(self) -> bool:
        """As far as is known."""
        return not self._contract

    def translated(self, sends: list[Tell], epoch: int, now: float, *, again: bool) -> list[Tell]:
        """READ_PROCs and WRITE_PROCs to other nodes, each for its peer; without those that cannot be told of `epoch`.

        `again`: since they were not answered. What a contract peer has not answered of a run is for `resend`.
        """
        translated = []
        for send in sends:
            peer, message = self._contract.get(send.rank), send.message
            if peer is not None:
                assert isinstance(message, (ReadProc, WriteProc))
                is_speakable = isinstance(message, ReadProc) or fit_contract(message.tags)
                if not epoch and is_speakable and not (again and message.count > 1):
                    translated += [Tell(send.rank, single) for single in peer.split(message, now)]
            elif send.rank != self._rank:
                translated.append(send)
        return translated

    def receipts_for(self, answer: Value | Ack, now: float) -> list[Tell]:
        """What acknowledges a VALUE or ACK of the contract, if its sender bears that."""
        receipts = self._receipts.get(answer.rank)
        if receipts is None or not is_of_contract(answer) or not receipts.wanted(now):
            return []
        kind = 4 if isinstance(answer, Value) else 6
        return [Tell(answer.rank, Receipt(self._rank, kind, answer.uuid))]

    def receipt(self, rank: int, kind: type, rid: int, offset: int) -> None:
        """The node has this message of a run."""
        if (peer := self._contract.get(rank)) is not None:
            peer.receipt(kind, rid, offset)

    def next_due(self) -> float | None:
        """When `resend` has something to look at; None: no run of a contract peer is under way."""
        if not self._contract:
            return None
        return min((due for peer in self._contract.values() if (due := peer.next_due()) is not None), default=None)

    def resend(self, epoch: int, now: float) -> list[Tell]:
        """What contract peers are to be sent again of runs."""
        sends = [Tell(rank, message) for rank, peer in self._contract.items() for message in peer.resend(now)]
        return [] if epoch else sends

    def join(self, answer: Value | Ack, now: float) -> Value | Ack | None:
        """The answer for the whole run that `answer` completes; None if more must come."""
        peer = self._contract.get(answer.rank)
        return answer if peer is None or not is_of_contract(answer) else peer.join(answer, now)

    def forget(self, rid: int) -> None:
        for peer in self._contract.values():
            peer.forget(rid)
