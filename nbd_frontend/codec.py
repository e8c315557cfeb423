"""Bytes from a client -> options and requests; answers -> bytes. Pure, and total: no bytes raise an error, and nothing
keeps more of them than one option or one payload of the size that is allowed.

A decoder is fed with bytes as they come, and asked for what is complete, until it says None. What cannot be a client of
the protocol is Broken: nothing that follows has a meaning any more.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

from nbd_frontend.numbers import (
    CHUNK_IS_LAST,
    INIT_MAGIC,
    MAX_STRING_BYTES,
    OPTION_MAGIC,
    OPTION_REPLY_MAGIC,
    REQUEST_MAGIC,
    SIMPLE_REPLY_MAGIC,
    STRUCTURED_REPLY_MAGIC,
    Chunk,
    CommandType,
    Error,
    ExportFlag,
    HandshakeFlag,
    Info,
    Reply,
)

# What is advertised, and what qemu and the kernel ask for at most.
MAX_PAYLOAD_BYTES: Final = 32 << 20
# Two strings and some numbers; a longer option is answered with ERR_TOO_BIG, and its data dropped as it comes.
MAX_OPTION_BYTES: Final = 4 * MAX_STRING_BYTES
# More than this is no option of anybody.
MAX_DROPPED_OPTION_BYTES: Final = 1 << 20
MAX_QUERIES: Final = 64

_CLIENT_FLAGS = struct.Struct(">I")
_OPTION = struct.Struct(">QII")
_REQUEST = struct.Struct(">IHHQQI")
_SIMPLE_REPLY = struct.Struct(">IIQ")
_CHUNK = struct.Struct(">IHHQI")
_DATA_CHUNK = struct.Struct(">IHHQIQ")
_U16, _U32 = struct.Struct(">H"), struct.Struct(">I")
_WRITE = int(CommandType.WRITE)
# A number: the complement of an IntFlag has the flags that are known, and no others.
_HANDSHAKE_FLAGS = int(HandshakeFlag.FIXED_NEWSTYLE | HandshakeFlag.NO_ZEROES)


# --- what comes in ----------------------------------------------------------------------------
class Broken(NamedTuple):
    reason: str


class Option(NamedTuple):
    """`data`: None if there was more of it than MAX_OPTION_BYTES."""

    number: int
    data: bytes | None


class Request(NamedTuple):
    """`data`: of a write, None if there was more of it than MAX_PAYLOAD_BYTES; b"" of any other request."""

    flags: int
    kind: int
    cookie: int
    offset: int
    length: int
    data: bytes | None


class GoData(NamedTuple):
    """Of INFO and GO. `infos`: the numbers of what is asked for."""

    name: str
    infos: frozenset[int]


class ContextData(NamedTuple):
    """Of LIST_META_CONTEXT and SET_META_CONTEXT."""

    name: str
    queries: tuple[str, ...]


class _Bytes:
    """What has come and is not decoded yet. The data behind a header is collected, or dropped as it comes."""

    def __init__(self) -> None:
        self._buffer = b""
        self._at = 0  # in the buffer
        self._parts: list[bytes] | None = None  # of the data that is being collected; None: it is dropped
        self._missing = 0  # of the data
        self._broken: Broken | None = None

    @property
    def kept(self) -> int:
        """Bytes of the client that are held here."""
        return len(self._buffer) - self._at + sum(map(len, self._parts or ()))

    def feed(self, data: bytes) -> None:
        if self._broken is not None:
            return
        self._buffer = self._buffer[self._at :] + data
        self._at = 0

    def rest(self) -> bytes:
        """What has not been decoded, which is forgotten here."""
        rest, self._buffer, self._at = self._buffer[self._at :], b"", 0
        return rest

    def _begin(self, length: int, keep: bool) -> None:
        self._missing = length
        self._parts = [] if keep else None

    def _collected(self) -> bool:
        """Whether the data is complete."""
        if self._missing:
            part = self._buffer[self._at : self._at + self._missing]
            self._at += len(part)
            self._missing -= len(part)
            if self._parts is not None:
                self._parts.append(part)
        return not self._missing

    def _data(self) -> bytes | None:
        parts, self._parts = self._parts, None
        return None if parts is None else b"".join(parts)


class OptionDecoder(_Bytes):
    """From the first byte of a client to the end of its options. `flags`: what it has said first, None until then."""

    def __init__(self, flags: HandshakeFlag | None = None) -> None:
        super().__init__()
        self.flags = flags
        self._number: int | None = None

    def next(self) -> Option | Broken | None:
        if self._broken is None and self.flags is None:
            self._read_flags()
        if self._broken is None and self.flags is not None and self._number is None:
            self._read_head()
        if self._broken is not None:
            return self._broken
        if self._number is None or not self._collected():
            return None
        option, self._number = Option(self._number, self._data()), None
        return option

    def _read_flags(self) -> None:
        if len(self._buffer) - self._at < _CLIENT_FLAGS.size:
            return
        [flags] = _CLIENT_FLAGS.unpack_from(self._buffer, self._at)
        self._at += _CLIENT_FLAGS.size
        if flags & ~_HANDSHAKE_FLAGS:
            self._broken = Broken(f"unknown client flags {flags:#x}")
        else:
            self.flags = HandshakeFlag(flags)

    def _read_head(self) -> None:
        if len(self._buffer) - self._at < _OPTION.size:
            return
        magic, number, length = _OPTION.unpack_from(self._buffer, self._at)
        self._at += _OPTION.size
        if magic != OPTION_MAGIC:
            self._broken = Broken(f"no option begins with {magic:#018x}")
        elif length > MAX_DROPPED_OPTION_BYTES:
            self._broken = Broken(f"an option with {length} bytes of data")
        else:
            self._number = number
            self._begin(length, keep=length <= MAX_OPTION_BYTES)


class RequestDecoder(_Bytes):
    """From the end of the options to the end of the connection."""

    def __init__(self) -> None:
        super().__init__()
        self._head: Request | None = None  # whose payload is being received

    def next(self) -> Request | Broken | None:
        head = self._head
        if head is None:
            at, buffer = self._at, self._buffer
            begin = at + _REQUEST.size
            if len(buffer) < begin or self._broken is not None:
                return self._broken
            magic, flags, kind, cookie, offset, length = _REQUEST.unpack_from(buffer, at)
            if magic != REQUEST_MAGIC:
                self._broken = Broken(f"no request begins with {magic:#010x}")
                return self._broken
            self._at = begin
            head = Request(flags, kind, cookie, offset, length, b"")
            if kind != _WRITE:
                return head
            self._head = head
            self._begin(length, keep=length <= MAX_PAYLOAD_BYTES)
        if not self._collected():
            return None
        self._head = None
        return head._replace(data=self._data())


# --- the data of options: None where it is malformed --------------------------------------------
def name_in(data: bytes) -> str | None:
    """A string of the protocol: UTF-8 without NUL, of at most MAX_STRING_BYTES."""
    if len(data) > MAX_STRING_BYTES or b"\0" in data:
        return None
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None


def go_in(data: bytes) -> GoData | None:
    found = _string_at(data, 0)
    if found is None:
        return None
    name, at = found
    if len(data) < at + _U16.size:
        return None
    [count] = _U16.unpack_from(data, at)
    infos = data[at + _U16.size :]
    if len(infos) != count * _U16.size:
        return None
    return GoData(name, frozenset(info for [info] in _U16.iter_unpack(infos)))


def contexts_in(data: bytes) -> ContextData | None:
    found = _string_at(data, 0)
    if found is None:
        return None
    name, at = found
    if len(data) < at + _U32.size:
        return None
    [count] = _U32.unpack_from(data, at)
    at += _U32.size
    if count > MAX_QUERIES:
        return None
    queries = []
    for _ in range(count):
        if (found := _string_at(data, at)) is None:
            return None
        query, at = found
        queries.append(query)
    return ContextData(name, tuple(queries)) if at == len(data) else None


def _string_at(data: bytes, at: int) -> tuple[str, int] | None:
    """The string behind its length, and where it ends."""
    begin = at + _U32.size
    if len(data) < begin:
        return None
    end = begin + _U32.unpack_from(data, at)[0]
    text = name_in(data[begin:end]) if end <= len(data) else None
    return None if text is None else (text, end)


# --- what goes out: the handshake -----------------------------------------------------------------
def greeting() -> bytes:
    return struct.pack(">QQH", INIT_MAGIC, OPTION_MAGIC, HandshakeFlag.FIXED_NEWSTYLE | HandshakeFlag.NO_ZEROES)


def option_reply(option: int, kind: Reply, data: bytes = b"") -> bytes:
    return struct.pack(">QIII", OPTION_REPLY_MAGIC, option, kind, len(data)) + data


def server_data(name: str) -> bytes:
    encoded = name.encode()
    return _U32.pack(len(encoded)) + encoded


def export_data(size: int, flags: ExportFlag) -> bytes:
    return struct.pack(">HQH", Info.EXPORT, size, flags)


def text_data(info: Info, text: str) -> bytes:
    return _U16.pack(info) + text.encode()


def block_size_data(minimum: int, preferred: int, maximum: int) -> bytes:
    return struct.pack(">HIII", Info.BLOCK_SIZE, minimum, preferred, maximum)


def context_data(number: int, name: str) -> bytes:
    return _U32.pack(number) + name.encode()


def export_name_answer(size: int, flags: ExportFlag, no_zeroes: bool) -> bytes:
    """What EXPORT_NAME is answered with."""
    return struct.pack(">QH", size, flags) + bytes(0 if no_zeroes else 124)


# --- what goes out: replies to commands -----------------------------------------------------------
def simple_reply(cookie: int, error: int = 0) -> bytes:
    """Of a read without an error, the data follows."""
    return _SIMPLE_REPLY.pack(SIMPLE_REPLY_MAGIC, error, cookie)


def data_chunk(cookie: int, offset: int, length: int) -> bytes:
    """The head of a chunk that is the whole answer to a read; `length` (at least 1) bytes of data follow."""
    size = length + 8
    return _DATA_CHUNK.pack(STRUCTURED_REPLY_MAGIC, CHUNK_IS_LAST, Chunk.OFFSET_DATA, cookie, size, offset)


def empty_chunk(cookie: int) -> bytes:
    """All is well, and there is nothing to tell."""
    return _CHUNK.pack(STRUCTURED_REPLY_MAGIC, CHUNK_IS_LAST, Chunk.NONE, cookie, 0)


def error_chunk(cookie: int, error: Error, text: str) -> bytes:
    """The whole answer to any command."""
    encoded = text.encode()[:MAX_STRING_BYTES]
    data = struct.pack(">IH", error, len(encoded)) + encoded
    return _CHUNK.pack(STRUCTURED_REPLY_MAGIC, CHUNK_IS_LAST, Chunk.ERROR, cookie, len(data)) + data


def status_chunk(cookie: int, context: int, extents: Sequence[tuple[int, int]]) -> bytes:
    """The whole answer to BLOCK_STATUS. `extents`: (length, flags), one behind the other."""
    data = _U32.pack(context) + b"".join(struct.pack(">II", length, flags) for length, flags in extents)
    return _CHUNK.pack(STRUCTURED_REPLY_MAGIC, CHUNK_IS_LAST, Chunk.BLOCK_STATUS, cookie, len(data)) + data
