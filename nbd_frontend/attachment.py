"""Who has the disk. It is attached when a client wants it, and released when that one is gone.

By default one connection has it at a time. A second one may be a client that has come back and whose first connection
is dead without anybody's knowing: it waits until that is known (SILENCE_S), and is refused if the first is alive. Each
has an attachment of its own, under a newer epoch: what an earlier one has left on its way is fenced, and its cache is
written back before the next one begins. With `is_multi_conn` all connections share one attachment, from the first to
the last of them.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import trio

from dsreg.cache import WritebackCache
from dsreg.cli.faults import leaves
from dsreg.constants import SECTOR_SIZE
from dsreg.errors import AlreadyAttached, ClientError, DsregError
from dsreg.transport import SILENCE_S, Transport
from dsreg.volume import Opening, Volume, VolumeOptions, connect

log = logging.getLogger(__name__)

# How long a client waits for another one that may be dead: what tells needs this long, and a little.
DECIDED_S = SILENCE_S + 2.0
# How often it is looked whether that one is dead; and asked whether the disk is free, where another host had it.
LOOK_S = 0.5


class Refused(Exception):
    """The client does not get the disk; the message says why."""


class _Attachment:
    """The disk, attached, or about to be."""

    def __init__(self) -> None:
        self.users: dict[Transport, None] = {}
        self.scope = trio.CancelScope()  # of the attaching
        self.settled = trio.Event()  # there is a `volume`, or an `error`
        self.volume: Volume | None = None
        self.cache: WritebackCache | None = None
        self.error: DsregError | None = None
        self.released = trio.Event()  # nobody uses it any more
        self.over = trio.Event()  # nothing is left of it


class Attacher:
    """Attaches the disk for connections. `options`: for each attachment. Its tasks are in `nursery`, and done when
    nobody uses the disk any more."""

    def __init__(self, options: VolumeOptions, is_multi_conn: bool, nursery: trio.Nursery) -> None:
        self.size = options.config.sectors * SECTOR_SIZE  # in bytes, as it was when somebody had the disk last
        self._options = options
        self._is_multi_conn = is_multi_conn
        self._nursery = nursery
        self._current: _Attachment | None = None

    @property
    def buffered_bytes(self) -> int:
        """What a cache has yet to write back."""
        attachment = self._current
        return 0 if attachment is None or attachment.cache is None else attachment.cache.buffered_bytes

    @asynccontextmanager
    async def use(self, transport: Transport) -> AsyncIterator[Volume]:
        """The disk for one connection. Raises Refused."""
        deadline_s = trio.current_time() + DECIDED_S
        attachment = self._current
        while attachment is not None and not self._may_join(attachment):
            await self._see_the_end(attachment, deadline_s)
            attachment = self._current
        if attachment is None:
            attachment = self._current = _Attachment()
            self._nursery.start_soon(self._hold, attachment, deadline_s)
        attachment.users[transport] = None
        try:
            await attachment.settled.wait()
            if attachment.volume is None:
                raise Refused(_text_of(attachment.error))
            yield attachment.volume
        finally:
            del attachment.users[transport]
            if not attachment.users:
                self._release(attachment)

    def _may_join(self, attachment: _Attachment) -> bool:
        return self._is_multi_conn and not attachment.released.is_set()

    async def _see_the_end(self, attachment: _Attachment, deadline_s: float) -> None:
        """Wait for the end of `attachment`. Raises Refused."""
        while not attachment.over.is_set():
            for transport in attachment.users:
                if transport.is_unheard():
                    log.warning("%s has not been heard for %d s and is taken for dead", transport.peer, SILENCE_S,
                                extra={"peer": transport.peer})
                    transport.close()
            if trio.current_time() >= deadline_s:
                names = ", ".join(transport.peer for transport in attachment.users)
                raise Refused(f"{names} has the disk, and is alive" if names else
                              "what the last client has written is not written back yet: no majority of nodes is there")
            with trio.move_on_after(LOOK_S):
                await attachment.over.wait()

    def _release(self, attachment: _Attachment) -> None:
        if attachment.volume is None:
            attachment.scope.cancel()
        else:
            attachment.volume.abandon()
        attachment.released.set()

    # --- the attachment ---------------------------------------------------------------------------
    async def _hold(self, attachment: _Attachment, deadline_s: float) -> None:
        try:
            with attachment.scope:
                async with AsyncExitStack() as stack:
                    opening = await self._attached(stack, deadline_s)
                    await self._lend(attachment, opening)
        except* DsregError as group:
            error = leaves(group)[0]
            assert isinstance(error, DsregError)
            attachment.error = error
            level = logging.INFO if isinstance(attachment.error, AlreadyAttached) else logging.ERROR
            log.log(level, "%s", _text_of(attachment.error))
        finally:
            self._current = None
            attachment.settled.set()
            attachment.over.set()

    async def _attached(self, stack: AsyncExitStack, deadline_s: float) -> Opening:
        """The disk, attached, with what it needs entered into `stack`. An owner on another host that seems alive may
        have lost its power. Raises ClientError."""
        while True:
            async with AsyncExitStack() as attempt:
                opening = await attempt.enter_async_context(connect(self._options))
                try:
                    await opening.attached()
                    if self._options.attach is None:
                        await opening.client.size()  # a client is told it once: no guess by the file
                except ClientError as error:
                    failure = error
                else:
                    stack.push_async_exit(attempt.pop_all())
                    return opening
            if not isinstance(failure, AlreadyAttached) or trio.current_time() >= deadline_s:
                raise failure
            await trio.sleep(LOOK_S)

    async def _lend(self, attachment: _Attachment, opening: Opening) -> None:
        """Until it is released. The cache is written back then, however long that takes."""
        async with opening.volume() as (volume, cache):
            attachment.volume, attachment.cache = volume, cache
            self.size = volume.size
            attachment.settled.set()
            await attachment.released.wait()


def _text_of(error: DsregError | None) -> str:
    """Why there is no disk, without the outcome of an operation: nobody has asked for one."""
    return error.reason if isinstance(error, ClientError) else str(error)
