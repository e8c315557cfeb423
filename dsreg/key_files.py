"""The files of the keys are followed while a client or a node runs: docs/keys.md."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final, Protocol, Self, TypeVar, runtime_checkable

import trio

from dsreg.config.keys import KeyWatch

# Between two looks at the files: a call of stat for each.
POLL_S: Final = 1.0


@runtime_checkable
class Followed(Protocol):
    """A configuration that was read from files; a dsreg.config.ClusterConfig is."""

    @property
    def client_key(self) -> bytes: ...
    @property
    def key_files(self) -> Sequence[Path]: ...

    def reread(self) -> Self: ...
    def watch(self) -> KeyWatch: ...


C = TypeVar("C", bound=Followed)


async def follow(config: C, use: Callable[[C], Awaitable[None]], refuse: Callable[[str], None],
                 objection: Callable[[C], str] = lambda found: "") -> None:
    """Call `use` with what the files say a second from now, and whenever they change, until cancelled. `refuse` is told
    once what is wrong with them, or the `objection` to what they say; they are read again then each time."""
    watch, fault = config.watch(), ""
    is_due = True  # they may have changed since they were read; a command that ends at once has no use for it
    while True:
        await trio.sleep(POLL_S)
        if not is_due and not await trio.to_thread.run_sync(watch.changed, abandon_on_cancel=True):
            continue
        try:
            found = await trio.to_thread.run_sync(config.reread, abandon_on_cancel=True)
            now_wrong = objection(found)
        except ValueError as error:
            now_wrong = str(error)
        if now_wrong and now_wrong != fault:
            refuse(now_wrong)
        fault, is_due = now_wrong, now_wrong != ""
        if not fault:
            await use(found)
