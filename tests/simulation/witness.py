"""Looks into a node for what no client would see until much more has gone wrong.

Three promises that others rest on: an acknowledgement follows what it acknowledges to stable storage; no two
incarnations are the same; a disk that was not damaged holds every value that its tags name.
"""

from __future__ import annotations

from collections.abc import Iterable

from dsreg.core.effects import Answer, Effect, Send
from dsreg.core.messages import Ack, WriteProc
from dsreg.core.tags import iter_tags
from dsreg.node.interpreter import Connection, Interpreter
from dsreg.storage import StableStorage


class BrokenPromise(Exception):
    """The product has not done what others rest on."""


class Witness:
    """Looks at the acknowledgements of a node on their way out of its interpreter, which is the production code. (Not
    derived from it, which it could not be in the compiled build.)"""

    def __init__(self, interpreter: Interpreter) -> None:
        self._storage = interpreter.storage
        self._asked: dict[tuple[int, int, int, int], bytes] = {}  # tags, by who has asked, rid, first sector, count
        carry = interpreter._carry
        self._carry_out_send, self._carry_out_answer = carry[Send], carry[Answer]
        carry[Send], carry[Answer] = self._send, self._answer

    def was_asked(self, message: WriteProc) -> None:
        self._asked[message.rank, message.rid, message.first, message.count] = message.tags

    def _send(self, effect: Send) -> Iterable[Effect] | None:
        if isinstance(effect.message, Ack):
            self._acknowledges(effect.rank, effect.message)
        return self._carry_out_send(effect)

    def _answer(self, effect: Answer) -> Iterable[Effect] | None:
        if isinstance(effect.message, Ack):
            assert isinstance(effect.connection, Connection)
            self._acknowledges(effect.connection.port.peer_host, effect.message)  # type: ignore[attr-defined]
        return self._carry_out_answer(effect)

    def _acknowledges(self, rank: int, ack: Ack) -> None:
        tags = self._asked[rank, ack.rid, ack.first, ack.count]
        durable = self._storage.tags(ack.first, ack.count)
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
