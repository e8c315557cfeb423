"""The register's messages to and from a peer that speaks only the contract: one sector a message.

A run goes out as one message a sector, all under the run's rid, which is unique for each of these
registers; the answers are put together again. A message's uuid is made of its rid, so that sending it
again repeats the uuid and a receipt leads back to the operation.

What of a run is neither answered nor acknowledged by a receipt is sent again once the peer has been silent about the
run for an interval: a few messages at a time, the oldest first. A peer that is only slow answers what it has in its
socket, and gets nothing twice.
"""

from __future__ import annotations

import struct

from dsreg.constants import SECTOR_SIZE, TAG_SIZE
from dsreg.protocol.messages import Ack, Buffer, ReadProc, Value, WriteProc
from dsreg.register.alarms import Alarms
from dsreg.register.intervals import Intervals

# Messages of one run that are sent again together, at most: 134 kB. The next ones follow when these are answered.
RESEND_MESSAGES = 32

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

    def question_of(self, uuid: bytes) -> tuple[type, int, int] | None:
        """The type, the rid and the offset in its run of the question with this uuid; None if it is not one of ours."""
        number, rank, offset, prefix, rid = _UUID.unpack(uuid)
        kind = _QUESTION.get(number)
        return (kind, rid, offset) if kind is not None and rank == self._rank and prefix == self._prefix else None


class _Run:
    """A run of several sectors at one peer: what has come of its answer, and what is still to be sent again.

    `pending`: offsets of the messages without answer or receipt, those that were sent longest ago first. `probe`: those
    of them that were sent again last, at `probed_s`. `due`: when the next ones are.
    """

    __slots__ = ("data", "due", "interval_s", "message", "pending", "probe", "probed_s", "tags", "wanted")

    def __init__(self, message: ReadProc | WriteProc, interval_s: float) -> None:
        self.message = message
        self.wanted: type = _answer_to(message)
        self.interval_s = interval_s
        self.tags: dict[int, bytes] = {}  # by offset
        self.data: dict[int, Buffer] = {}
        self.pending: dict[int, None] = {}
        self.probe: set[int] = set()
        self.probed_s = self.due = 0.0

    def send_all(self, now: float) -> None:
        """The connection is new: whatever was sent before may be lost, and so may be what a receipt was for."""
        self.pending = dict.fromkeys(offset for offset in range(self.message.count) if offset not in self.tags)
        self.probe.clear()
        self.due = now + self.interval_s

    def answered(self, offset: int, now: float) -> None:
        """One answer more. The peer is at work: it is left in peace, or asked for the next ones if those that were sent
        again were lost, as their prompt answers tell."""
        self.pending.pop(offset, None)
        prompt = offset in self.probe and now - self.probed_s <= self.interval_s
        self.probe.discard(offset)
        self.due = now if prompt and not self.probe else max(self.due, now + self.interval_s)

    def take_due(self, now: float, interval_s: float) -> list[int]:
        """What to send again now, and to look at the rest after an interval."""
        offsets = list(self.pending)[:RESEND_MESSAGES]
        for offset in offsets:
            del self.pending[offset]
            self.pending[offset] = None
        self.probe, self.probed_s = set(offsets), now
        self.interval_s = interval_s
        self.due = now + interval_s
        return offsets

    def whole(self, rank: int) -> Value | Ack:
        """The answer for the run, when all of it has come."""
        message = self.message
        if self.wanted is Ack:
            return Ack(rank, message.rid, message.first, message.count)
        offsets = range(message.count)
        tags = b"".join([self.tags[offset] for offset in offsets])
        data = b"".join([self.data[offset] for offset in offsets])
        return Value(rank, message.rid, message.first, message.count, tags, data)


class ContractPeer:
    """One peer. Holds the incomplete answers of the runs under way, until `forget(rid)`. A message for a single sector
    is none of its business but for its form. Times (`now`) in seconds on one clock that does not go backwards."""

    def __init__(self, uuids: Uuids, intervals: Intervals) -> None:
        self._uuids = uuids
        self._intervals = intervals
        self._runs: dict[int, _Run] = {}  # by rid
        self._alarms = Alarms()  # by rid: when to look at the run, not later than it is due

    def split(self, message: ReadProc | WriteProc, now: float) -> list[ReadProc | WriteProc]:
        """The single-sector messages that carry what is not answered of `message`, for a new operation or link."""
        if message.count == 1:
            return [self._single(message, 0)]
        run = self._runs.get(message.rid)
        if run is None or run.wanted is not _answer_to(message):
            run = self._runs[message.rid] = _Run(message, self._intervals.first())
        run.send_all(now)
        self._watch(run)
        return [self._single(message, offset) for offset in run.pending]

    def _single(self, message: ReadProc | WriteProc, offset: int) -> ReadProc | WriteProc:
        uuid = self._uuids.question(type(message), message.rid, offset)
        sector = message.first + offset
        if isinstance(message, ReadProc):
            return ReadProc(message.rank, message.rid, sector, 1, True, uuid)
        tag = message.tags[offset * TAG_SIZE : (offset + 1) * TAG_SIZE]
        value = message.data[offset * SECTOR_SIZE : (offset + 1) * SECTOR_SIZE]
        return WriteProc(message.rank, message.rid, sector, 1, tag, value, uuid)

    def join(self, answer: Value | Ack, now: float) -> Value | Ack | None:
        """The answer for the whole run that `answer` completes; None if more must come."""
        run = self._runs.get(answer.rid)
        if run is None:
            return answer
        offset = answer.first - run.message.first
        if run.wanted is not type(answer) or not 0 <= offset < run.message.count:
            return None
        if isinstance(answer, Value):
            if answer.data is None:
                return None
            run.data[offset] = answer.data
        run.tags[offset] = answer.tags if isinstance(answer, Value) else b""
        if len(run.tags) == run.message.count:
            self.forget(answer.rid)
            return run.whole(answer.rank)
        run.answered(offset, now)
        if run.due < self._alarms[answer.rid]:
            self._watch(run)
        return None

    def receipt(self, kind: type, rid: int, offset: int) -> None:
        """The peer has this message of a run, and need not be told again over this connection."""
        run = self._runs.get(rid)
        if run is not None and type(run.message) is kind:
            run.pending.pop(offset, None)

    def forget(self, rid: int) -> None:
        self._runs.pop(rid, None)
        self._alarms.drop(rid)

    # --- time -------------------------------------------------------------------------------------
    def next_due(self) -> float | None:
        """When `resend` has something to look at; None: no run is under way."""
        return self._alarms.next_due()

    def resend(self, now: float) -> list[ReadProc | WriteProc]:
        """What is due at `now`."""
        messages: list[ReadProc | WriteProc] = []
        while (rid := self._alarms.take(now)) is not None:
            run = self._runs[rid]
            if run.due <= now:
                offsets = run.take_due(now, self._intervals.after(run.interval_s))
                messages += [self._single(run.message, offset) for offset in offsets]
            self._watch(run)
        return messages

    def _watch(self, run: _Run) -> None:
        self._alarms.set(run.message.rid, run.due)


def _answer_to(message: ReadProc | WriteProc) -> type:
    return Value if isinstance(message, ReadProc) else Ack
