"""A node that speaks only the contract: it keeps its registers in memory, and answers what a FakePeer takes."""

from __future__ import annotations

import queue
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable

from tests.processes.cluster import Address, Cluster, until
from tests.processes.fake_peer import Arrived, FakePeer
from tests.processes.raw import INVALID, MAGIC, READ_ANSWER, READ_PROC, WRITE_PROC, PeerMessage, RawClient, seal

_STOP_S = 0.05
_HELLO_BYTES, _READ_BYTES = 112, 56


def until_known(cluster: Cluster, rank: int) -> None:
    """Until node 1 knows that the node `rank` speaks the contract: by an answer. It is asked again and again, as a
    write that a majority has before the link to that node is up is never sent there."""
    with RawClient(cluster.address(1), cluster.config.client_key) as client:

        def is_known() -> bool:
            client.write(7, b"known".ljust(4096))
            return bool(cluster.report(1)["peers"][str(rank)] == "contract")

        until(is_known, f"node 1 knows what node {rank} speaks")


class ContractNode(FakePeer):
    """`answer_s`: how long it takes for each message. `is_ignored(message, n)`: whether its answer to a
    message that has come for the n-th time (1, 2, ...) is lost. `client_key`: for the answer to the question of our
    clients whether it has their key; it does not know their greetings."""

    def __init__(
        self, rank: int, address: Address, node: Address, key: bytes, *, answer_s: float = 0.0,
        is_ignored: Callable[[PeerMessage, int], bool] = lambda message, times: False, client_key: bytes = b"",
    ) -> None:
        self._client_key = client_key
        super().__init__(rank, address, node, key)
        self.taken: list[Arrived] = []
        self.times: Counter[bytes] = Counter()  # by uuid
        self._answer_s = answer_s
        self._is_ignored = is_ignored
        self._sectors: dict[int, tuple[int, int, bytes]] = {}
        self._ends = threading.Event()
        self._worker = threading.Thread(target=self._answer_all, daemon=True)
        self._threads.append(self._worker)
        self._worker.start()

    def count(self, frame_type: int) -> int:
        """Messages of this type that have come."""
        return sum(arrived.message.type == frame_type for arrived in list(self.taken))

    def close(self) -> None:
        self._ends.set()
        super().close()

    def _receive_client(self, connection: socket.socket, read: Callable[[int], bytes | None]) -> None:
        read(_HELLO_BYTES - 8)
        question = read(_READ_BYTES)
        if question is not None:
            answer = MAGIC + struct.pack(">2xBB", INVALID, READ_ANSWER) + question[8:16]
            connection.sendall(seal(self._client_key, answer))
        while read(1) is not None:
            pass

    def _answer_all(self) -> None:
        while not self._ends.is_set():
            try:
                arrived = self._arrived.get(timeout=_STOP_S)
            except queue.Empty:
                continue
            self.taken.append(arrived)
            message = arrived.message
            self.times[message.uuid] += 1
            if self._answer_s:
                time.sleep(self._answer_s)
            answer = self._answer(message)
            if answer is None or self._is_ignored(message, self.times[message.uuid]):
                continue
            try:
                self.send(answer)
            except OSError:
                self.hang_up()  # the node is gone

    def _answer(self, message: PeerMessage) -> PeerMessage | None:
        ts, wr, data = self._sectors.get(message.sector, (0, 0, bytes(4096)))
        if message.type == READ_PROC:
            return self.value(message, ts, wr, data)
        if message.type != WRITE_PROC:
            return None
        if (message.ts, message.wr) > (ts, wr):
            self._sectors[message.sector] = (message.ts, message.wr, message.data)
        return self.ack(message)
