"""Messages that a node holds back until its first start is decided. Pure.

It must not store, acknowledge, answer what it has, or choose a tag. What it may do is ask: a READ, WRITE or TAG goes
through its query phase as far as its own copy, as nodes of the contract show themselves only by answering. Answers are
held, so no majority comes of it. (A TAG alone chooses at once, and waits.)
"""

from __future__ import annotations

from collections import deque

from dsreg.constants import MAX_RUN_BYTES
from dsreg.protocol.messages import Command, CommandKind, PeerMessage, Value, WriteProc
from dsreg.register.effects import Connection

# Of messages; beyond it they are dropped, and sent again by whoever still wants an answer.
MAX_MESSAGES = 1024
MAX_BYTES = 8 * MAX_RUN_BYTES
_ASKING = (CommandKind.READ, CommandKind.WRITE, CommandKind.TAG)


class Held:
    """Commands are bounded by what is read from their connections before they are answered."""

    def __init__(self) -> None:
        self.asks = True  # False for a node that may rejoin: what it has been asked is not to begin before it has
        self._commands: list[tuple[Connection, Command]] = []
        self.messages: deque[tuple[Connection | None, PeerMessage]] = deque()
        self._bytes = 0

    def holds(self, connection: Connection, command: Command) -> bool:
        """Whether it has to wait; it is kept then."""
        asks_others = command.kind in _ASKING and not command.alone
        if self.asks and asks_others and not command.epoch:
            return False
        self._commands.append((connection, command))
        return True

    def disconnected(self, connection: Connection) -> list[Command]:
        """What was kept for it, which nobody waits for any more."""
        given_up = [command for one, command in self._commands if one is connection]
        self._commands = [each for each in self._commands if each[0] is not connection]
        return given_up

    def message(self, origin: Connection | None, message: PeerMessage) -> None:
        size = len(message.data or b"") if isinstance(message, (Value, WriteProc)) else 0
        if len(self.messages) < MAX_MESSAGES and self._bytes + size <= MAX_BYTES:
            self.messages.append((origin, message))
            self._bytes += size

    def take_commands(self) -> list[tuple[Connection, Command]]:
        commands, self._commands = self._commands, []
        return commands

    def take_messages(self) -> deque[tuple[Connection | None, PeerMessage]]:
        messages, self.messages = self.messages, deque()
        self._bytes = 0
        return messages
