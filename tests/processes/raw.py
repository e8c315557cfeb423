"""The contract as its text has it, with nothing but sockets, struct and hmac: frames, and a client."""

from __future__ import annotations

import hashlib
import hmac
import socket
import struct
from types import TracebackType
from typing import NamedTuple, Self

MAGIC = bytes.fromhex("61746464")
SECTOR = 4096
READ, WRITE = 0x01, 0x02
READ_ANSWER, WRITE_ANSWER = 0x41, 0x42
OK, AUTH, INVALID = 0, 1, 2
READ_PROC, VALUE, WRITE_PROC, ACK = 0x03, 0x04, 0x05, 0x06
RECEIPT_OF = 0x40
CONTENT_BYTES = {READ_PROC: 0, VALUE: 16 + SECTOR, WRITE_PROC: 16 + SECTOR, ACK: 0}
TIMEOUT_S = 30.0


def seal(key: bytes, body: bytes) -> bytes:
    return body + hmac.new(key, body, hashlib.sha256).digest()


def read_frame(key: bytes, request: int, sector: int, pad: bytes = bytes(3)) -> bytes:
    return seal(key, MAGIC + pad + struct.pack(">BQQ", READ, request, sector))


def write_frame(key: bytes, request: int, sector: int, data: bytes, pad: bytes = bytes(3)) -> bytes:
    return seal(key, MAGIC + pad + struct.pack(">BQQ", WRITE, request, sector) + data)


class Response(NamedTuple):
    status: int
    type: int
    request: int
    content: bytes


class PeerMessage(NamedTuple):
    """One of READ_PROC, VALUE, WRITE_PROC, ACK. `ts`, `wr`, `data`: of those that have content."""

    type: int
    rank: int
    uuid: bytes
    rid: int
    sector: int
    ts: int = 0
    wr: int = 0
    data: bytes = b""

    def frame(self, key: bytes, pad: bytes = bytes(2), tag_pad: bytes = bytes(7)) -> bytes:
        body = MAGIC + pad + struct.pack(">BB16sQQ", self.rank, self.type, self.uuid, self.rid, self.sector)
        if CONTENT_BYTES[self.type]:
            body += struct.pack(">Q7sB", self.ts, tag_pad, self.wr) + self.data
        return seal(key, body)


class Receipt(NamedTuple):
    """`of`: the type of the message that is acknowledged."""

    of: int
    rank: int
    uuid: bytes

    def frame(self, key: bytes) -> bytes:
        return seal(key, MAGIC + bytes(2) + struct.pack(">BB16s", self.rank, self.of + RECEIPT_OF, self.uuid))


def peer_frame_bytes(frame_type: int) -> int | None:
    """The length of a frame between nodes; None if the contract has no such type."""
    if frame_type in CONTENT_BYTES:
        return 40 + CONTENT_BYTES[frame_type] + 32
    if frame_type - RECEIPT_OF in CONTENT_BYTES:
        return 56
    return None


def parse_peer(frame: bytes, key: bytes) -> PeerMessage | Receipt:
    """One whole frame between nodes. Anything that the contract does not allow to be sent is an AssertionError."""
    body, mac = frame[:-32], frame[-32:]
    assert hmac.compare_digest(mac, hmac.new(key, body, hashlib.sha256).digest()), "wrong HMAC"
    magic, pad, rank, frame_type, uuid = struct.unpack_from(">4s2sBB16s", body)
    assert magic == MAGIC and pad == bytes(2)
    if frame_type not in CONTENT_BYTES:
        return Receipt(frame_type - RECEIPT_OF, rank, uuid)
    rid, sector = struct.unpack_from(">QQ", body, 24)
    if not CONTENT_BYTES[frame_type]:
        return PeerMessage(frame_type, rank, uuid, rid, sector)
    ts, tag_pad, wr = struct.unpack_from(">Q7sB", body, 40)
    assert tag_pad == bytes(7)
    return PeerMessage(frame_type, rank, uuid, rid, sector, ts, wr, body[56:])


class RawClient:
    """One connection. `receive_buffer`: SO_RCVBUF in bytes, before the connection is made."""

    def __init__(self, address: tuple[str, int], key: bytes, receive_buffer: int | None = None) -> None:
        self.key = key
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            self.sock.settimeout(TIMEOUT_S)
            if receive_buffer is not None:
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            self.sock.connect(address)
        except OSError:
            self.sock.close()
            raise
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def read_frame(self, request: int, sector: int, pad: bytes = bytes(3)) -> bytes:
        return read_frame(self.key, request, sector, pad)

    def write_frame(self, request: int, sector: int, data: bytes, pad: bytes = bytes(3)) -> bytes:
        return write_frame(self.key, request, sector, data, pad)

    def send(self, *frames: bytes) -> None:
        self.sock.sendall(b"".join(frames))

    def response(self) -> Response:
        """The next answer, every byte of it checked. ConnectionError if the node has closed the connection."""
        head = self.exactly(16)
        magic, pad, status, frame_type, request = struct.unpack(">4s2sBBQ", head)
        assert magic == MAGIC and pad == bytes(2) and frame_type in (READ_ANSWER, WRITE_ANSWER), head.hex()
        rest = self.exactly((SECTOR if (status, frame_type) == (OK, READ_ANSWER) else 0) + 32)
        content, mac = rest[:-32], rest[-32:]
        assert mac == hmac.new(self.key, head + content, hashlib.sha256).digest()
        return Response(status, frame_type, request, content)

    def responses(self, count: int) -> dict[int, Response]:
        """That many answers, by request number."""
        found = [self.response() for _ in range(count)]
        assert len({response.request for response in found}) == count
        return {response.request: response for response in found}

    def read(self, sector: int, request: int = 1) -> bytes:
        self.send(self.read_frame(request, sector))
        response = self.response()
        assert response[:3] == (OK, READ_ANSWER, request), response[:3]
        return response.content

    def write(self, sector: int, data: bytes, request: int = 1) -> None:
        self.send(self.write_frame(request, sector, data))
        assert self.response() == Response(OK, WRITE_ANSWER, request, b"")

    def nothing_more(self) -> None:
        """No byte has come that was not asked for. Ends with a command, whose answer must be the next thing."""
        self.send(self.read_frame(0xFFFF_FFFF_FFFF_FFFF, 0xFFFF_FFFF_FFFF_FFFF))
        assert self.response() == Response(INVALID, READ_ANSWER, 0xFFFF_FFFF_FFFF_FFFF, b"")

    def close(self) -> None:
        self.sock.close()

    def exactly(self, size: int) -> bytes:
        """The next `size` bytes."""
        parts = bytearray()
        while len(parts) < size:
            chunk = self.sock.recv(size - len(parts))
            if not chunk:
                raise ConnectionResetError("the node has closed the connection")
            parts += chunk
        return bytes(parts)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
