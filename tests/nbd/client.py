"""The other side of the protocol: what a client sends, as bytes, and what it is answered, read from a socket."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterable
from typing import NamedTuple

import trio

from nbd_frontend import numbers
from nbd_frontend.numbers import Chunk, CommandType, Info, OptionType, Reply

FIXED, NO_ZEROES = 1, 2


# --- what is sent ---------------------------------------------------------------------------------
def option(number: int, data: bytes = b"", length: int | None = None, magic: int = numbers.OPTION_MAGIC) -> bytes:
    return struct.pack(">QII", magic, number, len(data) if length is None else length) + data


def string(text: str) -> bytes:
    return struct.pack(">I", len(text.encode())) + text.encode()


def go_data(name: str = "", infos: Iterable[int] = ()) -> bytes:
    asked = list(infos)
    return string(name) + struct.pack(f">H{len(asked)}H", len(asked), *asked)


def contexts_data(name: str, *queries: str) -> bytes:
    return string(name) + struct.pack(">I", len(queries)) + b"".join(map(string, queries))


def request(
    kind: int, offset: int = 0, length: int = 0, *, cookie: int = 1, flags: int = 0, data: bytes = b"",
    magic: int = numbers.REQUEST_MAGIC,
) -> bytes:
    """`length`: that of `data` if there is any."""
    return struct.pack(">IHHQQI", magic, flags, kind, cookie, offset, len(data) or length) + data


# --- what is answered -----------------------------------------------------------------------------
class OptionReply(NamedTuple):
    option: int
    kind: Reply
    data: bytes


class Answer(NamedTuple):
    """To a command: a simple reply, or one chunk. `error`: 0 if all is well; `data`: what was read, or the chunk."""

    cookie: int
    error: int
    data: bytes
    chunk: Chunk | None = None


def option_replies(data: bytes) -> list[OptionReply]:
    """All that is in `data`, which has no other bytes."""
    found = []
    while data:
        magic, number, kind, length = struct.unpack_from(">QIII", data)
        assert magic == numbers.OPTION_REPLY_MAGIC
        found.append(OptionReply(number, Reply(kind), data[20 : 20 + length]))
        assert len(data) >= 20 + length
        data = data[20 + length :]
    return found


def answers(data: bytes, reads: dict[int, int]) -> list[Answer]:
    """All that is in `data`, which has no other bytes. `reads`: how much was read, by cookie, for simple replies."""
    found = []
    while data:
        answer, size = first_answer(data, reads)
        found.append(answer)
        data = data[size:]
    return found


def first_answer(data: bytes, reads: dict[int, int]) -> tuple[Answer, int]:
    """And how many bytes it takes."""
    [magic] = struct.unpack_from(">I", data)
    if magic == numbers.SIMPLE_REPLY_MAGIC:
        _, error, cookie = struct.unpack_from(">IIQ", data)
        length = 0 if error else reads.get(cookie, 0)
        assert len(data) >= 16 + length
        return Answer(cookie, error, data[16 : 16 + length]), 16 + length
    assert magic == numbers.STRUCTURED_REPLY_MAGIC, f"{magic:#x}"
    _, flags, kind, cookie, length = struct.unpack_from(">IHHQI", data)
    assert flags == numbers.CHUNK_IS_LAST and len(data) >= 20 + length
    payload = data[20 : 20 + length]
    error = struct.unpack_from(">I", payload)[0] if kind == Chunk.ERROR else 0
    content = payload[8:] if kind == Chunk.OFFSET_DATA else payload
    return Answer(cookie, error, content, Chunk(kind)), 20 + length


# --- over a socket --------------------------------------------------------------------------------
class RawClient:
    """A client over a connected stream. Everything that is read has to come within trio's limits of the caller."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self._received = b""
        self._cookies = itertools.count(1)
        self.structured = False
        self.size = self.flags = 0

    async def exactly(self, length: int) -> bytes:
        while len(self._received) < length:
            data = await self.stream.receive_some()
            if not data:
                raise EOFError(f"{len(self._received)} of {length} bytes")
            self._received += bytes(data)
        found, self._received = self._received[:length], self._received[length:]
        return found

    async def at_end(self) -> bool:
        """Whether the server has closed the connection, and nothing more has come."""
        try:
            data = await self.stream.receive_some()
        except trio.BrokenResourceError:
            data = b""
        return not data and not self._received

    async def greet(self, flags: int = FIXED | NO_ZEROES) -> None:
        magics = struct.pack(">QQ", numbers.INIT_MAGIC, numbers.OPTION_MAGIC)
        assert await self.exactly(18) == magics + struct.pack(">H", FIXED | NO_ZEROES)
        await self.stream.send_all(struct.pack(">I", flags))

    async def ask(self, number: int, data: bytes = b"") -> list[OptionReply]:
        """Replies up to the last one."""
        await self.stream.send_all(option(number, data))
        found: list[OptionReply] = []
        while not found or found[-1].kind in (Reply.SERVER, Reply.INFO, Reply.META_CONTEXT):
            head = await self.exactly(20)
            found += option_replies(head + await self.exactly(struct.unpack(">I", head[16:])[0]))
            assert found[-1].option == number
        return found

    async def go(self, name: str = "", structured: bool = False, contexts: bool = False) -> OptionReply:
        """From the greeting to the export; the last reply, an ACK if all is well."""
        await self.greet()
        if structured:
            assert [reply.kind for reply in await self.ask(OptionType.STRUCTURED_REPLY)] == [Reply.ACK]
            self.structured = True
        if contexts:
            await self.ask(OptionType.SET_META_CONTEXT, contexts_data(name, numbers.ALLOCATION_CONTEXT))
        *infos, last = await self.ask(OptionType.GO, go_data(name))
        for info in infos:
            if struct.unpack_from(">H", info.data)[0] == Info.EXPORT:
                _, self.size, self.flags = struct.unpack(">HQH", info.data)
        return last

    async def begin(self, kind: int, offset: int = 0, length: int = 0, *, flags: int = 0, data: bytes = b"") -> int:
        """Send a command; its cookie."""
        cookie = next(self._cookies)
        await self.stream.send_all(request(kind, offset, length, cookie=cookie, flags=flags, data=data))
        return cookie

    async def answer(self, reads: dict[int, int] | None = None) -> Answer:
        """The next one. `reads`: see `answers`."""
        head = await self.exactly(16)
        [magic] = struct.unpack_from(">I", head)
        if magic == numbers.STRUCTURED_REPLY_MAGIC:
            head += await self.exactly(4)
            head += await self.exactly(struct.unpack(">I", head[16:])[0])
        else:
            _, error, cookie = struct.unpack(">IIQ", head)
            head += await self.exactly(0 if error else (reads or {}).get(cookie, 0))
        return first_answer(head, reads or {})[0]

    async def call(self, kind: int, offset: int = 0, length: int = 0, *, flags: int = 0, data: bytes = b"") -> Answer:
        """One command, alone."""
        cookie = await self.begin(kind, offset, length, flags=flags, data=data)
        answer = await self.answer({cookie: length} if kind == CommandType.READ else {})
        assert answer.cookie == cookie
        return answer
