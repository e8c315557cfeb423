"""A client follows its key file: docs/keys.md."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final, Protocol, Self, runtime_checkable

import trio

from dsreg.config.keys import KeyWatch, fingerprint

_log = logging.getLogger("dsreg.client")

# Between two looks at the file.
POLL_S: Final = 1.0
# What one node has time for to take the connection again; a node that is down does not keep the others waiting longer.
MOVED_S: Final = 5.0


@runtime_checkable
class Followed(Protocol):
    """A configuration that was read from files; a dsreg.config.ClusterConfig is."""

    @property
    def client_key(self) -> bytes: ...
    @property
    def key_files(self) -> Sequence[Path]: ...

    def reread(self) -> Self: ...
    def watch(self) -> KeyWatch: ...


async def follow_key(config: Followed, use: Callable[[bytes], Awaitable[None]]) -> None:
    """Call `use` with each other key that the file holds, for ever."""
    watch, key, fault = config.watch(), config.client_key, ""
    is_due = True  # it may have changed since it was read; a command that ends at once has no use for it
    while True:
        await trio.sleep(POLL_S)
        if not is_due and not await trio.to_thread.run_sync(watch.changed, abandon_on_cancel=True):
            continue
        try:
            found = (await trio.to_thread.run_sync(config.reread, abandon_on_cancel=True)).client_key
        except ValueError as error:
            if str(error) != fault:
                _log.error("the key stays as it was: %s", error)
            fault, found = str(error), key
        else:
            fault = ""
        is_due = fault != ""
        if found != key:
            key = found
            _log.info("the key of the clients has changed: %s", fingerprint(key))
            await use(key)
