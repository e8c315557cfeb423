"""Attaching: what a node does with ATTACH, and, where a claim is far above what it has promised, whom it asks before.

One message of a client must not use up the range of epochs, and a node that was away for long must be able to follow.
So a node accepts at most MAX_LEAP more than a majority of the nodes has promised, itself among them. The question is a
READ_PROC of sector 0 for its tags, under the epoch that is in force here: of the VALUEs only their epoch counts.
"""

from __future__ import annotations

from collections.abc import Iterator

from dsreg.protocol.messages import Command, ReadProc, Status, Value
from dsreg.register.effects import Connection, Effect, Reply
from dsreg.register.epochs import MAX_LEAP, Epochs
from dsreg.register.links import RegisterClient
from dsreg.register.now import Now
from dsreg.register.peers import Peers
from dsreg.register.quorum import Quorum, bit


class _Leap:
    """Such a claim, and what the others have promised. `own`: the mask of this node, which has answered itself."""

    def __init__(self, connection: Connection, command: Command, own: int) -> None:
        self.connection = connection
        self.command = command
        self.answered = own  # mask
        self.promised = 0  # the highest epoch of the others


class Attaching:
    """Of the node `rank`. The others see to the messages of the other kinds."""

    def __init__(
        self, rank: int, quorum: Quorum, epochs: Epochs, peers: Peers, links: RegisterClient, rids: Iterator[int]
    ) -> None:
        self._rank = rank
        self._quorum = quorum
        self._epochs = epochs
        self._peers = peers
        self._links = links
        self._rids = rids
        self._leaps: dict[int, _Leap] = {}  # by rid

    def command(self, connection: Connection, command: Command, now: Now) -> list[Effect]:
        """An ATTACH."""
        if not self._epochs.is_leap(command.epoch, now) or not self._peers.all_keep_epochs:
            return self._epochs.attach(connection, command, self._peers.all_keep_epochs, now)
        # A client that asks again, as nobody has answered for a while, replaces its question.
        effects: list[Effect] = [
            self._refuse(rid, leap) for rid, leap in list(self._leaps.items()) if leap.connection is connection
        ]
        return effects + self._ask(_Leap(connection, command, bit(self._rank)), now)

    def _ask(self, leap: _Leap, now: Now) -> list[Effect]:
        rid = next(self._rids)
        self._leaps[rid] = leap
        question = ReadProc(self._rank, rid, 0, 1, False, epoch=self._epochs.durable)
        sends = self._links.broadcast(question, now.s, but=self._rank)
        effects: list[Effect] = [*self._peers.translated(sends, self._epochs.promised, now.s, again=False)]
        return effects + self._decide(rid, now)

    def reconfigured(self, quorum: Quorum, now: Now) -> list[Effect]:
        """`quorum` decides from now on: all are asked again."""
        self._quorum = quorum
        effects: list[Effect] = []
        for rid, leap in list(self._leaps.items()):
            self._forget(rid)
            effects += self._ask(_Leap(leap.connection, leap.command, bit(self._rank)), now)
        return effects

    def told(self, value: Value, now: Now) -> list[Effect]:
        """A VALUE that belongs to no operation: perhaps to a question of these."""
        leap = self._leaps.get(value.rid)
        if leap is None or not self._epochs.believes(value.epoch, now):
            return []
        self._links.answered(value)
        leap.answered |= bit(value.rank)
        leap.promised = max(leap.promised, value.epoch)
        return self._decide(value.rid, now)

    def _decide(self, rid: int, now: Now) -> list[Effect]:
        leap = self._leaps[rid]
        if not self._quorum.decided(leap.answered):
            return []
        if leap.command.epoch <= max(self._epochs.promised, leap.promised) + MAX_LEAP:
            self._forget(rid)
            return self._epochs.attach(leap.connection, leap.command, self._peers.all_keep_epochs, now)
        # One that has not answered may be the one that knows of more.
        return [self._refuse(rid, leap)] if self._quorum.all_answered(leap.answered) else []

    def _refuse(self, rid: int, leap: _Leap) -> Reply:
        self._forget(rid)
        refusal = self._epochs.refusal(leap.command, Status.DISBELIEVED)
        return Reply(leap.connection, refusal, leap.command)

    def _forget(self, rid: int) -> None:
        del self._leaps[rid]
        self._links.cancel(rid)

    def disconnected(self, connection: Connection) -> list[Command]:
        """Gives the claims that are given up."""
        self._epochs.disconnected(connection)
        given_up = [(rid, leap) for rid, leap in self._leaps.items() if leap.connection is connection]
        for rid, _ in given_up:
            self._forget(rid)
        return [leap.command for _, leap in given_up]

    def is_asking(self, rid: int) -> bool:
        return rid in self._leaps
