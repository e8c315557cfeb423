"""The keys of a node while one of them is being changed: docs/keys.md."""

from __future__ import annotations

from typing import NamedTuple

from dsreg.protocol.wire import Keys, Mac


class Accepted(NamedTuple):
    """A key whose frames are good, and its prepared MAC."""

    key: bytes
    mac: Mac


class Keyring:
    """What a node uses where it greets, and what it accepts from those that greet it. `other`: accepted besides, b""
    where no key is; as long as a key is not being changed both are."""

    def __init__(self, used: Keys, other: Keys) -> None:
        self.change(used, other)

    def change(self, used: Keys, other: Keys) -> None:
        self.used = used
        self.clients = _accepted(used.client, other.client)
        self.systems = _accepted(used.system, other.system)

    def accepts_client(self, key: bytes) -> bool:
        return any(key == one.key for one in self.clients)

    def accepts_system(self, key: bytes) -> bool:
        return any(key == one.key for one in self.systems)


def _accepted(used: bytes, other: bytes) -> tuple[Accepted, ...]:
    return tuple(Accepted(key, Mac(key)) for key in (used, other) if key)
