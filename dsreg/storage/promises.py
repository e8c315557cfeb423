"""What the node promises durably by itself, next to the values: tags that it may have named, and its epoch."""

from __future__ import annotations

from typing import NamedTuple

from dsreg.storage.commit import Ticket
from dsreg.storage.state import State


class _Fence(NamedTuple):
    """Done once `owned` is durable and `after` records have been decided on since the start."""

    ticket: Ticket
    owned: tuple[int, bytes]
    after: int
    incarnation: int


class Promises:
    """`state`: what is durable. A commit that writes a new one takes `wanted`; then `kept` tells who waited for it.

    `in_force`: the epoch, and its owner, of the newest fence that is done: durable alone is not enough, as what was
    accepted before the fence may still be on its way to the disk.
    """

    def __init__(self, state: State) -> None:
        self.state = state
        self.decided = 0  # records decided on since the start
        self._ts = state.ts_reserved
        self._owned = self.in_force = (state.epoch, state.owner)
        self._incarnation = state.incarnation
        self._mark = state.mark
        self._marks: list[tuple[Ticket, int]] = []
        self._is_urgent = False  # whether the mark needs a commit of its own
        self._reservations: list[tuple[Ticket, int]] = []
        self._fences: list[_Fence] = []

    @property
    def pending(self) -> bool:
        """Whether something is promised that the durable state does not say."""
        state = self.state
        owned = state.epoch, state.owner
        is_promised = self._ts > state.ts_reserved or self._owned > owned or self._incarnation > state.incarnation
        return is_promised or self._is_urgent and self.marks

    @property
    def marks(self) -> bool:
        """Whether the next commit is to write a mark."""
        return self._mark > self.state.mark

    def wanted(self) -> State:
        """The durable state with all that is promised. `seq` counts on."""
        epoch, owner = self._owned
        return self.state._replace(
            seq=self.state.seq + 1, incarnation=self._incarnation, ts_reserved=self._ts, epoch=epoch, owner=owner,
            mark=self._mark,
        )

    def reserve(self, ts: int) -> Ticket:
        ticket = Ticket()
        self._ts = max(self._ts, ts)
        self._reservations.append((ticket, ts))
        self.kept()
        return ticket

    def fence(self, epoch: int, owner: bytes, after: int, incarnation: int = 0) -> Ticket:
        ticket = Ticket()
        self._incarnation = max(self._incarnation, incarnation)
        self._owned = max(self._owned, (epoch, owner))
        self._fences.append(_Fence(ticket, (epoch, owner), after, incarnation))
        self.kept()
        return ticket

    def mark(self, mark: int, *, urgent: bool) -> Ticket:
        """Done once a state with it is written: by the next commit, which is made for it only if it is `urgent`. The
        mark is above that of `state`."""
        ticket = Ticket()
        self._is_urgent = urgent or self._is_urgent and self.marks
        self._mark = max(self._mark, mark)
        self._marks.append((ticket, mark))
        return ticket

    def kept(self) -> list[Ticket]:
        """The tickets that are done now, and were not before."""
        if not self._reservations and not self._fences and not self._marks:
            return []
        state = self.state
        done = [ticket for ticket, ts in self._reservations if ts <= state.ts_reserved]
        fenced = [fence for fence in self._fences if self._is_kept(fence)]
        self.in_force = max([self.in_force, *(fence.owned for fence in fenced)])
        done += [fence.ticket for fence in fenced]
        done += [ticket for ticket, mark in self._marks if mark <= state.mark]
        self._marks = [each for each in self._marks if each[1] > state.mark]
        self._reservations = [each for each in self._reservations if each[1] > state.ts_reserved]
        self._fences = [fence for fence in self._fences if not self._is_kept(fence)]
        return [ticket.finish() for ticket in done]

    def _is_kept(self, fence: _Fence) -> bool:
        state = self.state
        return (
            fence.owned <= (state.epoch, state.owner) and fence.after <= self.decided
            and fence.incarnation <= state.incarnation
        )
