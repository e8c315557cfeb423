"""Looks into a node for what no client would see until much more has gone wrong.

Three promises that others rest on: an acknowledgement follows what it acknowledges to stable storage; no two
incarnations are the same; a disk that was not damaged holds every value that its tags name.
"""

from __future__ import annotations

from collections.abc import Callable

from dsreg.core.codec import Encoder
from dsreg.core.effects import Answer, Send
from dsreg.core.messages import Ack, WriteProc
from dsreg.core.replica import Replica
from dsreg.core.tags import iter_tags
from dsreg.node.interpreter import Connection, Interpreter
from dsreg.storage import StableStorage


class BrokenPromise(Exception):
    """The product has not done what others rest on."""


class WatchedInterpreter(Interpreter):
    """The production code; acknowledgements are looked at on their way out."""

    def __init__(self, replica: Replica, storage: StableStorage, encoder: Encoder, clock: Callable[[], float]) -> None:
        super().__init__(replica, storage, encoder, clock)
        self._asked: dict[tuple[int, int, int, int], bytes] = {}  # tags, by who has asked, rid, first sector, count

    def was_asked(self, message: WriteProc) -> None:
        self._asked[message.rank, message.rid, message.first, message.count] = message.tags

    def _send(self, effect: Send) -> None:
        if isinstance(effect.message, Ack):
            self._acknowledges(effect.rank, effect.message)
        super()._send(effect)

    def _answer(self, effect: Answer) -> None:
        if isinstance(effect.message, Ack):
            assert isinstance(effect.connection, Connection)
            self._acknowledges(effect.connection.port.peer_host, effect.message)  # type: ignore[attr-defined]
        super()._answer(effect)

    def _acknowledges(self, rank: int, ack: Ack) -> None:
        tags = self._asked[rank, ack.rid, ack.first, ack.count]
        durable = self.storage.tags(ack.first, ack.count)
        if any(own < tag for own, tag in zip(iter_tags(durable), iter_tags(tags), strict=True)):
            raise BrokenPromise(f"{ack} is sent, and the tags {tags.hex()} are not durable")


def check_start(storage: StableStorage, last_incarnation: int, damaged: bool) -> None:
    """What must be true of a storage that was just opened. `damaged`: something was done to its disk."""
    if storage.incarnation <= last_incarnation:
        raise BrokenPromise(f"incarnation {storage.incarnation} comes after {last_incarnation}")
    for sector in range(storage.sectors if not damaged else 0):
        job = storage.load_job(sector, 1)
        job.run()
        if job.bad or job.absent:
            raise BrokenPromise(f"sector {sector} is lost, and nobody has damaged the disk")
