"""Epochs: which epoch is in force at this node, who has attached the disk in it, and what has to wait for a promise.

A node stores nothing of an older epoch than it has promised, and answers under an epoch only once its promise is
durable and all that it had accepted before is decided: so what it answers is all that there will ever be of older
epochs. One owner at most attaches a disk in an epoch, as a node accepts one, and an owner needs a majority.
docs/attachments.md.
"""

from __future__ import annotations

from collections.abc import Callable

from dsreg.constants import NO_OWNER
from dsreg.core.belief import is_believed_epoch
from dsreg.core.effects import Again, Answer, Connection, Effect, Fence, Start
from dsreg.core.messages import Command, Response, Status
from dsreg.core.operation import response_to
from dsreg.core.view import TagView


class Epochs:
    """`unix_time`: see Replica."""

    def __init__(self, storage: TagView, unix_time: Callable[[], float]) -> None:
        self._storage = storage
        self._unix_time = unix_time
        self.promised = storage.epoch
        self._owner = storage.owner  # in the promised epoch
        # The epoch for which an owner has attached the disk over it; 0 while that is being promised.
        self._attached: dict[Connection, int] = {}

    @property
    def durable(self) -> int:
        """The epoch in force: its promise is durable, and all that was accepted before it is decided."""
        return self._storage.epoch

    def believes(self, epoch: int) -> bool:
        return epoch <= self.promised or is_believed_epoch(epoch, self._unix_time())

    def fence(self, epoch: int, then: Again, owner: bytes = NO_OWNER) -> Fence:
        """Promise `epoch`, at least what is promised; then do `then`."""
        assert epoch >= self.promised
        if (epoch, owner) > (self.promised, self._owner):
            self.promised, self._owner = epoch, owner
        return Fence(epoch, owner, (then,))

    def before(
        self, command: Command, epoch: int, connection: Connection | None, what: Command | Start
    ) -> list[Effect] | None:
        """What comes before a command that belongs to `epoch`: None for nothing, or the answer, or the promise, after
        which `what` is to be done.

        A command of no attachment is never fenced: `epoch` is then the newest that it knows of.
        """
        assert connection is not None or not command.epoch
        if command.epoch and command.epoch < self.promised:
            return [Answer(connection, self.refusal(command, Status.FENCED), command)]
        if epoch <= self.durable:
            return None
        if not self.believes(epoch):
            return [Answer(connection, self.refusal(command, Status.INVALID_SECTOR_INDEX), command)]
        return [self.fence(max(epoch, self.promised), Again(what, connection))]

    def refusal(self, command: Command, status: Status, epoch: int = 0) -> Response:
        """`epoch`: a newer one than is promised here, if it is known."""
        return response_to(command, status, epoch=max(epoch, self.promised))

    # --- attaching --------------------------------------------------------------------------------
    def attach(self, connection: Connection, command: Command, supported: bool) -> list[Effect]:
        """`supported`: all nodes that this one knows of keep epochs."""
        epoch, owner = command.epoch, bytes(command.data)
        if not epoch:
            return [Answer(connection, self._report(command), command)]
        status = Status.OK
        if not supported:
            status = Status.UNSUPPORTED
        elif not self.believes(epoch):
            status = Status.REFUSED
        elif epoch < self.promised or epoch == self.promised and self._owner not in (NO_OWNER, owner):
            status = Status.FENCED
        if status is not Status.OK:
            return [Answer(connection, self.refusal(command, status), command)]
        self._attached.setdefault(connection, 0)
        return [self.fence(epoch, Again(command, connection), owner)]

    def attached(self, connection: Connection, command: Command) -> list[Effect]:
        """The promise to this owner is durable."""
        if connection in self._attached:  # else it has gone meanwhile
            self._attached[connection] = command.epoch
        return [Answer(connection, self._report(command), command)]

    def disconnected(self, connection: Connection) -> None:
        self._attached.pop(connection, None)

    @property
    def is_owner_connected(self) -> bool:
        return self.promised > 0 and self.promised in self._attached.values()

    def _report(self, command: Command) -> Response:
        response = response_to(command, Status.OK, data=self._storage.owner)
        return response._replace(epoch=self.durable, alive=self.is_owner_connected)
