"""A node that speaks the contract and nothing else, and does what the test says.

It listens where the configuration says that the node is, notes what comes, and answers only when told to.
"""

from __future__ import annotations

import os
import queue
import socket
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import NamedTuple, Self

from tests.processes import raw
from tests.processes.cluster import TIMEOUT_S, Address, until
from tests.processes.raw import ACK, READ_PROC, VALUE, WRITE_PROC, PeerMessage, Receipt

_GREETING, _CLIENT_GREETING = 0x90, 0x80


class Arrived(NamedTuple):
    """`at`: when, in seconds. `connection`: on which, in the order of their coming."""

    at: float
    connection: int
    message: PeerMessage


class FakePeer:
    """The node `rank` of a cluster whose one real node is at `node`."""

    def __init__(self, rank: int, address: Address, node: Address, key: bytes) -> None:
        self.rank = rank
        self.receipts: list[Receipt] = []
        self.faults: list[str] = []  # what came that the contract does not have
        self.greetings = 0  # connections that began with a HELLO of the extension
        self.greetings_ended = 0
        self.connections = 0  # that the node has made for the contract
        self.hangs_up_on_receipts = False
        self._node = node
        self._key = key
        self._arrived: queue.Queue[Arrived] = queue.Queue()
        self._known: set[PeerMessage] = set()  # what `next_arrived` has given
        self._to_node: socket.socket | None = None
        self._accepted: list[socket.socket] = []
        self._listener = socket.create_server(address)
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    # --- what comes -------------------------------------------------------------------------------
    def expect(self, frame_type: int | None) -> PeerMessage:
        """The next message, which must be of this type (None: of any). A question that the node has sent again, as the
        answer took its time, is passed over."""
        return self.arrived(frame_type).message

    def arrived(self, frame_type: int | None) -> Arrived:
        """The same, with when and where it came."""
        known = set(self._known)
        while (arrived := self.next_arrived()).message in known:
            continue
        assert frame_type is None or arrived.message.type == frame_type, arrived
        return arrived

    def next_arrived(self) -> Arrived:
        """The next message, be it one that has come before."""
        arrived = self._arrived.get(timeout=TIMEOUT_S)
        self._known.add(arrived.message)
        return arrived

    def so_far(self) -> list[PeerMessage]:
        """What has come by now, receipts aside."""
        messages = []
        while not self._arrived.empty():
            messages.append(self._arrived.get_nowait().message)
        return messages

    def nothing_within(self, seconds: float) -> None:
        """Nothing has come, and nothing comes for so long, not even what has come before."""
        try:
            raise AssertionError(f"unexpected: {self._arrived.get(timeout=seconds)}")
        except queue.Empty:
            return

    # --- what goes --------------------------------------------------------------------------------
    def send(self, *frames: PeerMessage | Receipt) -> None:
        """Over a connection of its own, made anew when the node has been away."""
        data = b"".join(frame.frame(self._key) for frame in frames)
        if self._to_node is None:
            self._to_node = socket.create_connection(self._node, timeout=TIMEOUT_S)
        self._to_node.sendall(data)

    def send_back(self, frame: PeerMessage | Receipt) -> None:
        """Over the connection that the node has made last for the contract."""
        self._accepted[-1].sendall(frame.frame(self._key))

    def value(self, question: PeerMessage, ts: int = 0, wr: int = 0, data: bytes = bytes(4096)) -> PeerMessage:
        return PeerMessage(VALUE, self.rank, os.urandom(16), question.rid, question.sector, ts, wr, data)

    def ack(self, question: PeerMessage) -> PeerMessage:
        return PeerMessage(ACK, self.rank, os.urandom(16), question.rid, question.sector)

    def receipt(self, message: PeerMessage) -> Receipt:
        return Receipt(message.type, self.rank, message.uuid)

    def read_proc(self, rid: int, sector: int) -> PeerMessage:
        return PeerMessage(READ_PROC, self.rank, os.urandom(16), rid, sector)

    def write_proc(self, rid: int, sector: int, ts: int, wr: int, data: bytes) -> PeerMessage:
        return PeerMessage(WRITE_PROC, self.rank, os.urandom(16), rid, sector, ts, wr, data)

    # --- connections ------------------------------------------------------------------------------
    def drop(self) -> None:
        """Break the connections that the node has made for the contract; it makes new ones."""
        accepted, self._accepted = self._accepted, []
        for connection in accepted:
            connection.shutdown(socket.SHUT_RDWR)

    def hang_up(self) -> None:
        """Give up the connection to the node, as when the node has been killed."""
        if self._to_node is not None:
            self._to_node.close()
            self._to_node = None

    def _accept(self) -> None:
        number = 0
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return  # closed
            number += 1
            thread = threading.Thread(target=self._serve, args=(connection, number), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket, number: int) -> None:
        with connection:
            try:
                self._receive(connection, number)
            except ConnectionError:
                return  # the node was killed
            except AssertionError as error:
                self.faults.append(f"connection {number}: {error}")

    def _receive(self, connection: socket.socket, number: int) -> None:
        read = _reader(connection)
        head = read(8)
        if head is not None and head[7] == _GREETING:
            self.greetings += 1
            while read(1) is not None:
                pass
            self.greetings_ended += 1
            return
        if head is not None and head[7] == _CLIENT_GREETING:
            self._receive_client(connection, read)
            return
        self._accepted.append(connection)
        self.connections += 1
        while head is not None:
            size = raw.peer_frame_bytes(head[7])
            assert head[:4] == raw.MAGIC and size is not None, f"no bytes of the contract: {head.hex()}"
            rest = read(size - 8)
            if rest is None:
                return
            message = raw.parse_peer(head + rest, self._key)
            if isinstance(message, Receipt):
                self.receipts.append(message)
                if self.hangs_up_on_receipts:
                    return
            else:
                self._arrived.put(Arrived(time.monotonic(), number, message))
            head = read(8)

    def _receive_client(self, connection: socket.socket, read: Callable[[int], bytes | None]) -> None:
        """A client of ours has connected, and has sent the first 8 bytes."""
        raise AssertionError("a client is not expected here")

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.hang_up()

    def join(self) -> None:
        """After `close`, when the node is gone: its connections are over."""
        for thread in self._threads:
            thread.join(TIMEOUT_S)
            assert not thread.is_alive()

    def wait_for_receipt(self, message: PeerMessage) -> None:
        """Until the node has acknowledged `message` by a receipt."""
        wanted = Receipt(message.type, 1, message.uuid)
        until(lambda: wanted in self.receipts, "a receipt")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _reader(connection: socket.socket) -> Callable[[int], bytes | None]:
    """Reads so many bytes; None if the connection ended before."""
    buffered = connection.makefile("rb")

    def read(size: int) -> bytes | None:
        data = buffered.read(size)
        return data if len(data) == size else None

    return read
