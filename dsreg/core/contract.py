"""The register's messages to and from a peer that speaks only the contract: one sector a message.

A run goes out as one message a sector, all under the run's rid, which is unique for each of these
registers; the answers are put together again. A message's uuid is made of its rid, so that sending it
again repeats the uuid and a receipt leads back to the operation.
"""

from __future__ import annotations

import struct

from dsreg.constants import SECTOR_SIZE, TAG_SIZE
from dsreg.core.messages import Ack, Buffer, ReadProc, Value, WriteProc

_UUID = struct.Struct(">BBHIQ")  # kind, rank, offset in the run, prefix, rid or counter
_KIND = {ReadProc: 3, Value: 4, WriteProc: 5, Ack: 6}
_QUESTION: dict[int, type] = {3: ReadProc, 5: WriteProc}


class Uuids:
    """Message ids of the node `rank`. `prefix`: 32 random bits of this incarnation."""

    def __init__(self, rank: int, prefix: int) -> None:
        self._rank = rank
        self._prefix = prefix
        self._answers = 0

    def question(self, kind: type, rid: int, offset: int) -> bytes:
        return _UUID.pack(_KIND[kind], self._rank, offset, self._prefix, rid)

    def answer(self, kind: type) -> bytes:
        self._answers += 1
        return _UUID.pack(_KIND[kind], self._rank, 0, self._prefix, self._answers)

    def question_of(self, uuid: bytes) -> tuple[type, int] | None:
        """The type and the rid of the question that has this uuid; None if it is not one of ours."""
        number, rank, _, prefix, rid = _UUID.unpack(uuid)
        kind = _QUESTION.get(number)
        return (kind, rid) if kind is not None and rank == self._rank and prefix == self._prefix else None


class _Partial:
    __slots__ = ("count", "data", "first", "kind", "tags")

    def __init__(self, kind: type, first: int, count: int) -> None:
        self.kind = kind
        self.first = first
        self.count = count
        self.tags: dict[int, bytes] = {}  # by sector
        self.data: dict[int, Buffer] = {}


class ContractPeer:
    """One peer. Holds the incomplete answers of the runs under way, until `forget(rid)`."""

    def __init__(self, uuids: Uuids) -> None:
        self._uuids = uuids
        self._partial: dict[int, _Partial] = {}

    def split(self, message: ReadProc | WriteProc) -> list[ReadProc | WriteProc]:
        """The single-sector messages that carry `message`."""
        wanted = Value if isinstance(message, ReadProc) else Ack
        if message.count > 1:
            known = self._partial.get(message.rid)
            if known is None or known.kind is not wanted:
                self._partial[message.rid] = _Partial(wanted, message.first, message.count)
        return [self._single(message, offset) for offset in range(message.count)]

    def _single(self, message: ReadProc | WriteProc, offset: int) -> ReadProc | WriteProc:
        uuid = self._uuids.question(type(message), message.rid, offset)
        sector = message.first + offset
        if isinstance(message, ReadProc):
            return ReadProc(message.rank, message.rid, sector, 1, True, uuid)
        tag = message.tags[offset * TAG_SIZE : (offset + 1) * TAG_SIZE]
        value = message.data[offset * SECTOR_SIZE : (offset + 1) * SECTOR_SIZE]
        return WriteProc(message.rank, message.rid, sector, 1, tag, value, uuid)

    def join(self, answer: Value | Ack) -> Value | Ack | None:
        """The answer for the whole run that `answer` completes; None if more must come."""
        partial = self._partial.get(answer.rid)
        if partial is None:
            return answer
        if partial.kind is not type(answer) or not partial.first <= answer.first < partial.first + partial.count:
            return None
        if isinstance(answer, Value):
            if answer.data is None:
                return None
            partial.data[answer.first] = answer.data
        partial.tags[answer.first] = answer.tags if isinstance(answer, Value) else b""
        if len(partial.tags) < partial.count:
            return None
        del self._partial[answer.rid]
        if isinstance(answer, Ack):
            return Ack(answer.rank, answer.rid, partial.first, partial.count)
        sectors = range(partial.first, partial.first + partial.count)
        tags = b"".join(partial.tags[sector] for sector in sectors)
        data = b"".join(partial.data[sector] for sector in sectors)
        return Value(answer.rank, answer.rid, partial.first, partial.count, tags, data)

    def forget(self, rid: int) -> None:
        self._partial.pop(rid, None)
