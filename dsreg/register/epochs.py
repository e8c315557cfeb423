"""Epochs: which epoch is in force at this node, who has attached the disk in it, and what has to wait for a promise.

A node stores nothing of an older epoch than it has promised, and answers under an epoch only once its promise is
durable and all that it had accepted before is decided: so what it answers is all that there will ever be of older
epochs. One owner at most attaches a disk in an epoch, as a node accepts one, and an owner needs a majority.
Numbers that clients send raise what is promised through ATTACH only. docs/attachments.md.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from dsreg.constants import MAX_RUN_SECTORS, NO_OWNER, NO_OWNER_ANY_MORE
from dsreg.protocol.messages import Command, CommandKind, Response, Status, WriteProc
from dsreg.protocol.plausibility import highest_plausible_epoch
from dsreg.protocol.tags import attached_counter, is_overtaken
from dsreg.register.effects import Again, Connection, Effect, Fence, Reply, StartExecution
from dsreg.register.execution import response_to
from dsreg.register.now import Now
from dsreg.register.tag_view import TagView

# What is accepted of a claim above all that is promised, here or at a majority: see dsreg.register.attaching.
MAX_LEAP = 4096
# After its start a node does not know yet whether the owner is alive: that one has to connect first.
OWNER_UNSURE_S = 5.0


class Go(NamedTuple):
    """Nothing comes before the command."""


class Wait(NamedTuple):
    """The command is done after this promise."""

    promise: Fence


class Refuse(NamedTuple):
    """The command is not done."""

    reply: Reply


Verdict = Go | Wait | Refuse
# Each command needs these: see dsreg.protocol.messages.
_STORE: Final = CommandKind.STORE
_ZERO: Final = CommandKind.ZERO
_GO: Final = Go()


class Epochs:
    """`started_s`: see Replica."""

    def __init__(self, storage: TagView, started_s: float = float("-inf")) -> None:
        self._storage = storage
        self.promised = storage.epoch
        self._owner = storage.owner  # in the promised epoch
        self._counter = storage.attached_counter  # of a write of the attachment of the promised epoch
        self._sure_s = started_s + OWNER_UNSURE_S
        self._met = False  # its owner, since the start
        # The epoch for which an owner has attached the disk over it; 0 while that is being promised.
        self._attached: dict[Connection, int] = {}

    @property
    def durable(self) -> int:
        """The epoch in force: its promise is durable, and all that was accepted before it is decided."""
        return self._storage.epoch

    @property
    def promise(self) -> tuple[int, bytes]:
        """The epoch that is promised, durably or not yet, and its owner."""
        return self.promised, self._owner

    def believes(self, epoch: int, now: Now) -> bool:
        return epoch <= self.promised or epoch <= highest_plausible_epoch(now.unix_s)

    def is_leap(self, epoch: int, now: Now) -> bool:
        """Whether the epoch is so far above what is promised that others have to be asked about it."""
        return epoch > self.promised + MAX_LEAP and self.believes(epoch, now)

    def fence(self, epoch: int, then: Again | None = None, owner: bytes = NO_OWNER) -> Fence:
        """Promise `epoch`, at least what is promised; then do `then`."""
        assert epoch >= self.promised
        if epoch > self.promised:
            self._counter, self._met = 0, False
        if (epoch, owner) > (self.promised, self._owner):
            self.promised, self._owner = epoch, owner
        return Fence(epoch, owner, (then,) if then is not None else ())

    def before(
        self, command: Command, epoch: int, connection: Connection | None, what: Command | StartExecution
    ) -> Verdict:
        """Whether a command that belongs to `epoch` may be done now. If it has to wait, `what` is to be done then.

        A command of no attachment is never fenced: `epoch` is then the newest that it knows of.
        """
        assert connection is not None or not command.epoch
        if command.epoch and command.epoch < self.promised:
            return self._refuse(connection, command, Status.FENCED)
        if epoch > self.promised:
            return self._refuse(connection, command, Status.DISBELIEVED)
        if epoch > self.durable:
            return Wait(self.fence(self.promised, Again(what, connection)))
        if command.epoch and command.kind is _STORE and self.is_overtaken(command):
            return self._refuse(connection, command, Status.OVERTAKEN)
        return _GO

    def _refuse(self, connection: Connection | None, command: Command, status: Status) -> Refuse:
        return Refuse(Reply(connection, self.refusal(command, status), command))

    # --- writes of the attachment -----------------------------------------------------------------
    def is_overtaken(self, order: Command | WriteProc) -> bool:
        """Whether a later write of the same attachment is there, or about to be: its client does not know what it has
        written itself. A late repeat of what is over looks the same, and nobody heeds the answer to that."""
        if isinstance(order, Command) and order.kind is _ZERO:
            return attached_counter(order.tags, self.promised) < self._counter and any(
                is_overtaken(order.tags * MAX_RUN_SECTORS, self._storage.latest_tags(first, MAX_RUN_SECTORS))
                for first in range(order.first, order.first + order.count, MAX_RUN_SECTORS)
            )
        return is_overtaken(order.tags, self._storage.latest_tags(order.first, order.count))

    def accepted(self, tags: bytes) -> None:
        """They are going to be stored here."""
        self._counter = max(self._counter, attached_counter(tags, self.promised))

    def refusal(self, command: Command, status: Status, epoch: int = 0) -> Response:
        """`epoch`: a newer one than is promised here, if it is known."""
        return response_to(command, status, epoch=max(epoch, self.promised))

    # --- attaching --------------------------------------------------------------------------------
    def attach(self, connection: Connection, command: Command, supported: bool, now: Now) -> list[Effect]:
        """`supported`: all nodes that this one knows of keep epochs."""
        epoch, owner = command.epoch, command.owner
        if not epoch:
            unsure = not self._met and now.s < self._sure_s
            return [Reply(connection, self._report(command, now, supported, unsure), command)]
        status = Status.OK
        if not supported:
            status = Status.UNSUPPORTED
        elif not self.believes(epoch, now):
            status = Status.DISBELIEVED
        elif epoch < self.promised or epoch == self.promised and self._owner not in (NO_OWNER, owner):
            status = Status.FENCED
        elif owner == NO_OWNER_ANY_MORE:
            status = Status.DISBELIEVED  # nobody has that name
        if status is not Status.OK:
            return [Reply(connection, self.refusal(command, status), command)]
        self._attached.setdefault(connection, 0)
        return [self.fence(epoch, Again(command, connection), owner)]

    def attached(self, connection: Connection, command: Command, now: Now) -> list[Effect]:
        """The promise to this owner is durable."""
        if connection in self._attached:  # else it has gone meanwhile
            self._attached[connection] = command.epoch
        self._met |= command.epoch == self.promised
        return [Reply(connection, self._report(command, now), command)]

    def disconnected(self, connection: Connection) -> None:
        self._attached.pop(connection, None)

    def is_owner(self, connection: Connection) -> bool:
        """Whether it is over this one that the disk was attached in the epoch that is promised."""
        return self.promised > 0 and self._attached.get(connection) == self.promised

    @property
    def is_owner_connected(self) -> bool:
        return self.promised > 0 and self.promised in self._attached.values()

    def _report(self, command: Command, now: Now, supported: bool = True, unsure: bool = False) -> Response:
        epoch, alive = self.durable, self.is_owner_connected
        owner = self._storage.owner if self._storage.owner != NO_OWNER_ANY_MORE else NO_OWNER
        return response_to(command, Status.OK)._replace(
            owner=owner, epoch=epoch, alive=alive, unsure=unsure and epoch > 0 and not alive,
            mixed=not supported,
            counter=self._counter if epoch == self.promised else 0,
            believed=max(epoch, highest_plausible_epoch(now.unix_s)),
        )
