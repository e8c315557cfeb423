"""The commands of one client: what each asks of the disk, what it is answered with, and how much is in flight."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from dsreg.chunks import extents_of
from dsreg.constants import MAX_COMMANDS_PER_CONNECTION, MAX_RUN_BYTES
from dsreg.store import Buffer, Flush, Map, Read, Trim, Write, Zero
from dsreg.volume import Volume
from nbd_frontend import codec
from nbd_frontend.codec import MAX_PAYLOAD_BYTES, Request
from nbd_frontend.negotiation import ALLOCATION_ID, Terms
from nbd_frontend.numbers import HOLE_OF_ZEROS, CommandFlag, CommandType, Error

# In flight for one client: what the client of the cluster has under way at once; and bytes, of data to be written, to
# be read, or to be sent: a payload of the largest size fits beside as much of others.
MAX_IN_FLIGHT: Final = MAX_COMMANDS_PER_CONNECTION
MAX_IN_FLIGHT_BYTES: Final = 2 * MAX_PAYLOAD_BYTES

_TEXTS: Final = {
    Error.EPERM: "the export is read-only",
    Error.EIO: "the disk has failed; see the log of the server",
    Error.EINVAL: "a command, flag or length that is not allowed",
    Error.ENOSPC: "no room: behind the end of the disk, or the nodes are full",
    Error.EOVERFLOW: "too much for one piece",
    Error.ENOTSUP: "zeros are not faster than data",
    Error.ESHUTDOWN: "the server is being shut down",
}
_OF_ERRNO: Final = {errno.ENOSPC: Error.ENOSPC, errno.EINVAL: Error.EINVAL}
_FUA: Final = int(CommandFlag.FUA)
# Numbers: the complement of an IntFlag has the flags that are known, and no others.
_FLAGS: Final[dict[int, int]] = {
    CommandType.READ: _FUA,  # and DF, if replies are structured
    CommandType.WRITE: _FUA,
    CommandType.FLUSH: _FUA,
    CommandType.TRIM: _FUA,
    CommandType.CACHE: _FUA,
    CommandType.WRITE_ZEROES: _FUA | CommandFlag.NO_HOLE.value | CommandFlag.FAST_ZERO.value,
    CommandType.BLOCK_STATUS: _FUA | CommandFlag.REQ_ONE.value,
}
_CHANGES: Final = frozenset({CommandType.WRITE, CommandType.TRIM, CommandType.WRITE_ZEROES})


class Commands:
    """`send` is given replies. `on_end` is called when a command has ended, and its reply was given to `send`."""

    def __init__(
        self, volume: Volume, terms: Terms, is_read_only: bool, send: Callable[[Sequence[Buffer]], None],
        on_end: Callable[[], None],
    ) -> None:
        self.in_flight = 0
        self.in_flight_bytes = 0
        self.is_stopping = False  # what comes from now on is answered with ESHUTDOWN
        self._volume = volume
        self._terms = terms
        self._is_read_only = is_read_only
        self._send = send
        self._on_end = on_end
        self._flags = dict(_FLAGS)
        if terms.structured:
            self._flags[CommandType.READ] |= CommandFlag.DF.value
        self._submit: dict[int, Callable[[Request], None]] = {
            CommandType.READ: self._read,
            CommandType.WRITE: self._write,
            CommandType.FLUSH: self._flush,
            CommandType.TRIM: self._trim,
            CommandType.CACHE: self._cache,
            CommandType.WRITE_ZEROES: self._zero,
            CommandType.BLOCK_STATUS: self._status,
        }

    def has_room(self, request: Request, unsent: int) -> bool:
        """Whether the request may be taken now. `unsent`: bytes of replies that have yet to be sent."""
        held = self.in_flight_bytes + unsent
        return self.in_flight < MAX_IN_FLIGHT and (not held or held + _cost(request) <= MAX_IN_FLIGHT_BYTES)

    def take(self, request: Request) -> None:
        """Any request but a disconnect. It is answered once, now or later."""
        error = self._fault(request)
        if error is not None:
            self._fail(request.cookie, error)
            return
        self._submit[request.kind](request)

    # --- what is wrong with a request -------------------------------------------------------------
    def _fault(self, request: Request) -> Error | None:
        flags, kind, _, offset, length, data = request
        allowed = self._flags.get(kind)
        if allowed is None or flags & ~allowed or data is None:
            return Error.EINVAL
        if self.is_stopping:
            return Error.ESHUTDOWN
        changes = kind in _CHANGES
        if changes and self._is_read_only:
            return Error.EPERM
        if kind == CommandType.FLUSH:
            return Error.EINVAL if offset or length else None
        if offset + length > self._volume.size:
            return Error.ENOSPC if changes else Error.EINVAL
        if kind == CommandType.READ and length > MAX_PAYLOAD_BYTES:
            return Error.EOVERFLOW if flags & CommandFlag.DF else Error.EINVAL
        if kind == CommandType.WRITE_ZEROES and flags & CommandFlag.FAST_ZERO and not self._is_fast(offset, length):
            return Error.ENOTSUP
        if kind == CommandType.BLOCK_STATUS and not (length and self._terms.has_allocation):
            return Error.EINVAL
        return None

    def _is_fast(self, offset: int, length: int) -> bool:
        """Whether zeros there are a few commands for whole chunks: a cache is flushed before those."""
        is_whole = offset % MAX_RUN_BYTES == length % MAX_RUN_BYTES == 0 and length > MAX_RUN_BYTES
        return is_whole and not self._volume.is_cached

    # --- the commands -----------------------------------------------------------------------------
    def _read(self, request: Request) -> None:
        self._begin(request.length)
        answer = partial(self._answer_read, request.cookie, request.offset, request.length)
        self._volume.submit(Read(request.offset, request.length), answer)

    def _write(self, request: Request) -> None:
        assert request.data is not None
        self._begin(request.length)
        answer = partial(self._answer, request.cookie, request.length)
        self._volume.submit(Write(request.offset, request.data, bool(request.flags & _FUA)), answer)

    def _flush(self, request: Request) -> None:
        self._begin(0)
        self._volume.submit(Flush(), partial(self._answer, request.cookie, 0))

    def _trim(self, request: Request) -> None:
        self._begin(0)
        must_flush = request.flags & _FUA and self._volume.is_cached
        answer = self._flush_then_answer if must_flush else self._answer
        self._volume.submit(Trim(request.offset, request.length), partial(answer, request.cookie, 0))

    def _zero(self, request: Request) -> None:
        self._begin(0)
        zero = Zero(request.offset, request.length, bool(request.flags & _FUA))
        self._volume.submit(zero, partial(self._answer, request.cookie, 0))

    def _cache(self, request: Request) -> None:
        """A hint; what is read is not kept here."""
        self._send((codec.simple_reply(request.cookie),))

    def _status(self, request: Request) -> None:
        """What may be data has no flags, which is right for any content."""
        self._begin(0)
        self._volume.submit(Map(request.offset, request.length), partial(self._answer_status, request))

    # --- answers ----------------------------------------------------------------------------------
    def _begin(self, size: int) -> None:
        self.in_flight += 1
        self.in_flight_bytes += size

    def _end(self, size: int) -> None:
        self.in_flight -= 1
        self.in_flight_bytes -= size
        self._on_end()

    def _answer_read(self, cookie: int, offset: int, length: int, data: Buffer, code: int) -> None:
        if code:
            self._fail(cookie, _of(code))
        elif not self._terms.structured:
            self._send((codec.simple_reply(cookie), data))
        elif length:
            self._send((codec.data_chunk(cookie, offset, length), data))
        else:
            self._send((codec.empty_chunk(cookie),))
        self._end(length)

    def _answer_status(self, request: Request, holes: Buffer, code: int) -> None:
        if code:
            self._fail(request.cookie, _of(code))
        else:
            extents = extents_of(bytes(holes), request.offset, request.length)
            told = extents[:1] if request.flags & CommandFlag.REQ_ONE else extents
            states = [(length, HOLE_OF_ZEROS if is_hole else 0) for length, is_hole in told]
            self._send((codec.status_chunk(request.cookie, ALLOCATION_ID, states),))
        self._end(0)

    def _answer(self, cookie: int, size: int, nothing: Buffer, code: int) -> None:
        if code:
            self._fail(cookie, _of(code))
        else:
            self._send((codec.simple_reply(cookie),))
        self._end(size)

    def _flush_then_answer(self, cookie: int, size: int, nothing: Buffer, code: int) -> None:
        if code:
            self._answer(cookie, size, nothing, code)
        else:
            self._volume.submit(Flush(), partial(self._answer, cookie, size))

    def _fail(self, cookie: int, error: Error) -> None:
        if self._terms.structured:
            self._send((codec.error_chunk(cookie, error, _TEXTS[error]),))
        else:
            self._send((codec.simple_reply(cookie, error),))


def _cost(request: Request) -> int:
    """Bytes that it holds while it is in flight."""
    if request.kind == CommandType.READ:
        return min(request.length, MAX_PAYLOAD_BYTES)
    return len(request.data or b"")


def _of(code: int) -> Error:
    """What the protocol has for an errno of the disk."""
    return _OF_ERRNO.get(code, Error.EIO)
