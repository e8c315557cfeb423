"""ContractPeer: what is sent again of a run, when, and how much at once."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable

from dsreg.constants import SECTOR_SIZE, UUID_SIZE
from dsreg.protocol.messages import Ack, ReadProc, WriteProc
from dsreg.protocol.tags import pack_tag
from dsreg.register.contract import RESEND_MESSAGES, ContractPeer, Uuids
from dsreg.register.intervals import Intervals

RID = 9
COUNT = 256
FIRST_S, MAX_S = 1.0, 8.0
RUN = WriteProc(1, RID, 0, COUNT, pack_tag(5, 1) * COUNT, bytes(COUNT * SECTOR_SIZE))


def contract_peer() -> ContractPeer:
    return ContractPeer(Uuids(1, 0xABCD), Intervals(FIRST_S, MAX_S, lambda: 1.0))


def ack(sector: int) -> Ack:
    return Ack(2, RID, sector, 1, bytes(UUID_SIZE))


class Line:
    """The peer answers one message every `answer_s`, in order; `lost(n)`: whether the n-th message never gets there."""

    def __init__(self, answer_s: float, lost: Callable[[int], bool]) -> None:
        self.sent: list[tuple[float, int]] = []
        self.done_s = 0.0
        self._answer_s = answer_s
        self._lost = lost
        self._queue: deque[int] = deque()

    def put(self, messages: list[ReadProc | WriteProc], now: float) -> None:
        for message in messages:
            if not self._lost(len(self.sent)):
                self._queue.append(message.first)
            self.sent.append((now, message.first))

    def run(self, limit_s: float) -> None:
        """Until the run is answered."""
        peer = contract_peer()
        self.put(peer.split(RUN, 0.0), 0.0)
        free_s = 0.0  # when the peer has time for the next message
        while True:
            due = peer.next_due()
            assert due is not None and min(due, free_s) < limit_s
            if self._queue and free_s + self._answer_s <= due:
                free_s += self._answer_s
                whole = peer.join(ack(self._queue.popleft()), free_s)
                if whole is not None:
                    assert whole == Ack(2, RID, 0, COUNT)
                    self.done_s = free_s
                    return
            else:
                idle = not self._queue
                self.put(peer.resend(due), due)
                free_s = max(free_s, due) if idle else free_s

    @property
    def largest_burst(self) -> int:
        """Of those after the first sending."""
        return max(Counter(at for at, _ in self.sent[COUNT:]).values(), default=0)


def test_a_peer_that_is_slow_gets_nothing_twice() -> None:
    line = Line(0.076, lambda number: False)  # 19.5 s for the run
    line.run(100.0)
    assert len(line.sent) == COUNT
    assert line.done_s < 0.076 * COUNT + 0.001


def test_a_peer_that_is_slower_than_the_first_interval_gets_little_twice() -> None:
    line = Line(1.5, lambda number: False)
    line.run(1000.0)
    assert len(line.sent) <= COUNT + RESEND_MESSAGES


def test_only_what_was_lost_is_sent_again() -> None:
    line = Line(0.001, lambda number: number < COUNT and number % 10 == 7)
    line.run(10.0)
    assert [sector for _, sector in line.sent[COUNT:]] == list(range(7, COUNT, 10))
    assert line.done_s < 2 * FIRST_S


def test_where_all_was_lost_it_is_sent_in_small_parts_as_fast_as_they_are_answered() -> None:
    line = Line(0.001, lambda number: number < COUNT)
    line.run(10.0)
    assert len(line.sent) == 2 * COUNT
    assert line.largest_burst == RESEND_MESSAGES
    assert line.done_s < FIRST_S + 0.001 * COUNT + 0.1


def test_a_peer_that_loses_every_other_message_gets_all() -> None:
    line = Line(0.001, lambda number: number % 2 == 0)
    line.run(200.0)
    assert line.largest_burst <= RESEND_MESSAGES


def test_a_silent_peer_gets_a_few_at_growing_intervals() -> None:
    peer = contract_peer()
    peer.split(RUN, 0.0)
    times, sectors = [], []
    for _ in range(10):
        due = peer.next_due()
        assert due is not None
        assert peer.resend(due - 0.001) == []
        messages = peer.resend(due)
        assert len(messages) == RESEND_MESSAGES
        times.append(due)
        sectors += [message.first for message in messages]
    assert times[:5] == [1.0, 3.0, 7.0, 15.0, 23.0]
    assert sectors[:COUNT] == list(range(COUNT)), "the oldest first, then the next ones"


def test_what_has_a_receipt_is_not_sent_again_until_the_link_is_new() -> None:
    peer = contract_peer()
    peer.split(RUN, 0.0)
    for offset in range(1, COUNT):
        peer.receipt(WriteProc, RID, offset)
    peer.receipt(ReadProc, RID, 0)  # of the other phase
    assert [message.first for message in peer.resend(1.0)] == [0]
    peer.receipt(WriteProc, RID, 0)
    assert peer.resend(3.0) == []
    peer.join(ack(5), 3.0)
    assert [message.first for message in peer.split(RUN, 4.0)] == [n for n in range(COUNT) if n != 5]


def test_of_a_run_that_is_over_nothing_is_sent_again() -> None:
    peer = contract_peer()
    peer.split(RUN, 0.0)
    for sector in range(COUNT):
        peer.join(ack(sector), 0.5)
    assert peer.next_due() is None and not peer._alarms
    peer.split(RUN, 1.0)
    peer.forget(RID)
    assert peer.next_due() is None and peer.resend(100.0) == []


def test_many_answers_leave_few_alarms() -> None:
    peer = contract_peer()
    peer.split(RUN, 0.0)
    for sector in range(COUNT - 1):
        peer.join(ack(sector), sector / 1000)
    assert len(peer._alarms) <= 2
    assert peer.resend(1.0) == [], "the peer has answered since"
    assert [message.first for message in peer.resend(FIRST_S + (COUNT - 2) / 1000)] == [COUNT - 1]
