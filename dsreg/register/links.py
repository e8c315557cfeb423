"""RegisterClient: stubborn links from the operations of one node to all nodes, itself included.

Pure bookkeeping: which message of which operation still waits for whose answer, and when to send it
again. A broadcast is remembered under its `rid`; a later broadcast with the same rid (the write phase)
replaces it; `cancel` forgets it. Sending is somebody else's effect.

A message goes out again
  - at growing intervals, to those who have neither answered nor given a receipt (a run to a peer of the contract,
    which gets it in pieces, is dsreg.register.contract's to send again),
  - at once when a link comes up, to that node, receipt or not: it may have been restarted since.
"""

from __future__ import annotations

from collections.abc import Callable

from dsreg.constants import RESEND_FIRST_S, RESEND_MAX_S
from dsreg.protocol.messages import Ack, ReadProc, Value, WriteProc
from dsreg.register.alarms import Alarms
from dsreg.register.effects import Tell
from dsreg.register.intervals import Intervals
from dsreg.register.quorum import bit, ranks_in


class _Outstanding:
    __slots__ = ("asked", "interval_s", "message", "receipts", "waiting")

    def __init__(self, message: ReadProc | WriteProc, waiting: int, interval_s: float) -> None:
        self.message = message
        self.asked = self.waiting = waiting  # masks: of all to whom it goes, and whose answer has not come
        self.receipts = 0  # ranks that have at least acknowledged the message
        self.interval_s = interval_s


class RegisterClient:
    """`members`: the mask of all nodes. `first_s`, `max_s`: the first and the longest interval between two sendings, in
    seconds.

    `jitter` gives a factor for each interval (around 1), so that nodes do not resend in step.
    """

    def __init__(
        self,
        members: int,
        *,
        first_s: float = RESEND_FIRST_S,
        max_s: float = RESEND_MAX_S,
        jitter: Callable[[], float] = lambda: 1.0,
    ) -> None:
        self._all = members
        self.intervals = Intervals(first_s, max_s, jitter)
        self._outstanding: dict[int, _Outstanding] = {}
        self._alarms = Alarms()  # by rid, of all that are outstanding
        self.resent = 0

    def broadcast(self, message: ReadProc | WriteProc, now: float, *, but: int = 0) -> list[Tell]:
        """Send to every node but `but` (a rank; 0: no exception), again and again until answered."""
        waiting = self._all & ~bit(but) if but else self._all
        interval_s = self.intervals.first()
        self._outstanding[message.rid] = _Outstanding(message, waiting, interval_s)
        self._alarms.set(message.rid, now + interval_s)
        return [Tell(rank, message) for rank in ranks_in(waiting)]

    def answered(self, answer: Value | Ack) -> None:
        """An answer has come. One that belongs to the other phase of the same rid changes nothing."""
        entry = self._outstanding.get(answer.rid)
        if entry is not None and isinstance(answer, Value) == isinstance(entry.message, ReadProc):
            entry.waiting &= ~bit(answer.rank)

    def receipt(self, kind: type, rid: int, rank: int) -> None:
        """`rank` has the message of type `kind` that was broadcast under `rid`.

        Both phases may share a rid, so a late receipt for the first must not stop the second. Of a run it tells of
        one piece only, which is not what is remembered here.
        """
        entry = self._outstanding.get(rid)
        if entry is not None and type(entry.message) is kind and entry.message.count == 1:
            entry.receipts |= bit(rank)

    def discount(self, rank: int) -> None:
        """What that node has answered is void: it is asked again when its link comes up."""
        for entry in self._outstanding.values():
            entry.waiting |= bit(rank) & entry.asked

    def reconfigured(self, members: int) -> None:
        """These are all nodes, for what is broadcast from now on."""
        self._all = members

    def cancel(self, rid: int) -> None:
        """The operation has finished, or has gone on under another rid."""
        self._outstanding.pop(rid, None)
        self._alarms.drop(rid)

    def waiting_for(self, rid: int) -> list[int]:
        """Ranks whose answer to `rid` has not come."""
        entry = self._outstanding.get(rid)
        return ranks_in(entry.waiting) if entry is not None else []

    def link_up(self, rank: int, now: float) -> list[Tell]:
        """A new connection to `rank`: whatever was sent on the old one may be lost. So may be what is sent on this one,
        which is found out after the first interval, however long the present one is. The oldest goes first."""
        sends = []
        for rid, entry in self._outstanding.items():
            if entry.waiting & bit(rank):
                entry.receipts &= ~bit(rank)
                sends.append(Tell(rank, entry.message))
                if (due := now + self.intervals.first()) < self._alarms[rid]:
                    self._alarms.set(rid, due)
        self.resent += len(sends)
        return sends

    def next_due(self) -> float | None:
        """When `resend` has something to do; None: nothing is outstanding."""
        return self._alarms.next_due()

    def resend(self, now: float) -> list[Tell]:
        """What is due at `now` (seconds on the clock of `broadcast`)."""
        sends: list[Tell] = []
        while (rid := self._alarms.take(now)) is not None:
            entry = self._outstanding[rid]
            entry.interval_s = self.intervals.after(entry.interval_s)
            self._alarms.set(rid, now + entry.interval_s)
            sends += [Tell(rank, entry.message) for rank in ranks_in(entry.waiting & ~entry.receipts)]
        self.resent += len(sends)
        return sends

    def __len__(self) -> int:
        return len(self._outstanding)
