"""One command under way at its coordinator, and the answer to it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from dsreg.constants import SECTOR_SIZE
from dsreg.protocol.messages import Buffer, Command, CommandKind, Response, Status
from dsreg.register.actions import Action, Return
from dsreg.register.atomic_register import AtomicRegister
from dsreg.register.effects import Connection
from dsreg.register.quorum import Quorum
from dsreg.register.tag_allocator import TagAllocator

# Members of enumerations that each command needs: see dsreg.protocol.messages.
_TAG, _GET = CommandKind.TAG, CommandKind.GET
_ZERO, _MAP = CommandKind.ZERO, CommandKind.MAP
# Of a client that counts the answers of a majority itself.
COUNTED: Final = (CommandKind.GET, CommandKind.PUT, CommandKind.ZERO, CommandKind.MAP, CommandKind.ATTACH)


class Execution:
    """A command under way. `connection` is None for a repair that this node does of its own accord."""

    __slots__ = ("command", "connection", "register", "rid")

    def __init__(self, command: Command, connection: Connection | None, register: AtomicRegister) -> None:
        self.command = command
        self.connection = connection
        self.register = register
        self.rid = 0  # no rid is 0

    def start(self, allocator: TagAllocator) -> list[Action]:
        """What the register does first. `allocator`: whose tags a WRITE must not choose."""
        command, register = self.command, self.register
        if self.connection is None:
            return register.repair()
        if command.kind is CommandKind.READ:
            return register.read(strict=command.epoch > 0)
        if command.kind is CommandKind.WRITE:
            return register.write(command.data, allocator.last, allocator.life_in(1), allocator.life_in(0))
        if command.kind is CommandKind.TAG:
            return register.tag()
        assert command.kind is CommandKind.STORE
        return register.store(command.tags, command.data)


def new_execution(
    command: Command, connection: Connection | None, rank: int, quorum: Quorum, rids: Iterator[int]
) -> Execution:
    """The execution of the command; see AtomicRegister."""
    return Execution(command, connection, AtomicRegister(rank, quorum, command.first, command.count, rids))


def response_to(
    command: Command, status: Status, tags: bytes = b"", data: Buffer = b"", epoch: int = 0
) -> Response:
    return Response(status, command.kind, command.request, tags, data, command.extended, epoch)


def is_counted(command: Command) -> bool:
    """Whether the node asks no other, and the client counts the answers of a majority."""
    return command.alone or command.kind in COUNTED


def uncounted(command: Command) -> Response | None:
    """In place of the answer to a command that somebody counts answers to who must not; None: nobody counts them."""
    if not is_counted(command):
        return None
    return response_to(command, Status.UNSUPPORTED if command.kind is CommandKind.ATTACH else Status.REFUSED)


def result_of(command: Command, result: Return) -> Response:
    """The answer to a READ, WRITE or STORE that is complete."""
    if command.kind is not CommandKind.READ:
        return response_to(command, Status.OK)
    return response_to(command, Status.OK, result.tags if command.epoch else b"", result.data)


def size_of(command: Command) -> int:
    """Bytes of sectors that the node holds for `command`, or will send as its answer."""
    kind = command.kind
    if kind is _TAG or kind is _ZERO or kind is _MAP or kind is _GET and not command.values:
        return 0
    return command.count * SECTOR_SIZE
