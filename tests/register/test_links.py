"""RegisterClient: what is sent again, when, and to whom."""

from __future__ import annotations

import random

import pytest

from dsreg.constants import RESEND_FIRST_S, RESEND_MAX_S, ZERO_SECTOR, ZERO_TAG
from dsreg.protocol.messages import Ack, ReadProc, Value, WriteProc
from dsreg.register.effects import Tell
from dsreg.register.links import RegisterClient
from dsreg.register.quorum import mask

RID = 7
READ_PROC = ReadProc(1, RID, 0, 1)
WRITE_PROC = WriteProc(1, RID, 0, 1, ZERO_TAG, ZERO_SECTOR)
RUN = ReadProc(1, RID, 0, 4)


def links(nodes: int = 3) -> RegisterClient:
    return RegisterClient(mask(range(1, nodes + 1)), first_s=1.0, max_s=8.0)


def value(rank: int, rid: int = RID) -> Value:
    return Value(rank, rid, 0, 1, ZERO_TAG, None)


def ranks(sends: list[Tell]) -> list[int]:
    return [send.rank for send in sends]


def test_broadcast_goes_to_all_the_node_itself_included() -> None:
    assert links().broadcast(READ_PROC, 0.0) == [Tell(1, READ_PROC), Tell(2, READ_PROC), Tell(3, READ_PROC)]


def test_broadcast_but_one() -> None:
    assert links().broadcast(WRITE_PROC, 0.0, but=1) == [Tell(2, WRITE_PROC), Tell(3, WRITE_PROC)]


def test_intervals_double_up_to_the_longest() -> None:
    client = links()
    client.broadcast(READ_PROC, 0.0)
    sent_at = []
    for _ in range(7):
        due = client.next_due()
        assert due is not None
        assert client.resend(due - 0.001) == []
        assert ranks(client.resend(due)) == [1, 2, 3]
        sent_at.append(due)
    assert sent_at == [1.0, 3.0, 7.0, 15.0, 23.0, 31.0, 39.0]
    assert client.resent == 21


def test_defaults_are_those_of_the_constants() -> None:
    client = RegisterClient(mask((1, 2)))
    client.broadcast(READ_PROC, 0.0)
    for _ in range(20):
        due = client.next_due()
        assert due is not None
        client.resend(due)
    assert client.next_due() == due + RESEND_MAX_S
    client.broadcast(READ_PROC, 100.0)
    assert client.next_due() == 100.0 + RESEND_FIRST_S


def test_jitter_stretches_each_interval() -> None:
    factors = iter([0.5, 1.5, 1.0])
    client = RegisterClient(mask((1, 2)), first_s=1.0, max_s=8.0, jitter=lambda: next(factors))
    client.broadcast(READ_PROC, 0.0)
    assert client.next_due() == 0.5
    client.resend(0.5)
    assert client.next_due() == 0.5 + 1.5
    client.resend(2.0)
    assert client.next_due() == 2.0 + 3.0


def test_who_has_answered_is_left_in_peace() -> None:
    client = links()
    client.broadcast(READ_PROC, 0.0)
    client.answered(value(2))
    assert ranks(client.resend(1.0)) == [1, 3]
    assert client.waiting_for(RID) == [1, 3]
    client.answered(value(2))
    client.answered(value(1))
    client.answered(value(3))
    assert client.resend(3.0) == []
    assert client.waiting_for(RID) == []


def test_who_has_given_a_receipt_is_left_in_peace() -> None:
    client = links()
    client.broadcast(READ_PROC, 0.0)
    client.receipt(ReadProc, RID, 2)
    assert ranks(client.resend(1.0)) == [1, 3]
    assert client.waiting_for(RID) == [1, 2, 3]


def test_an_answer_of_the_other_phase_changes_nothing() -> None:
    client = links()
    client.broadcast(READ_PROC, 0.0)
    client.answered(Ack(2, RID, 0, 1))
    assert ranks(client.resend(1.0)) == [1, 2, 3]
    client.broadcast(WRITE_PROC, 1.0, but=1)
    client.answered(value(2))
    assert ranks(client.resend(2.0)) == [2, 3]


def test_a_late_receipt_of_the_other_phase_changes_nothing() -> None:
    client = links()
    client.broadcast(READ_PROC, 0.0)
    client.broadcast(WRITE_PROC, 0.5, but=1)
    client.receipt(ReadProc, RID, 2)
    assert ranks(client.resend(1.5)) == [2, 3]


def test_a_receipt_for_a_piece_of_a_run_does_not_stop_the_run() -> None:
    client = links()
    client.broadcast(RUN, 0.0)
    client.receipt(ReadProc, RID, 2)
    assert ranks(client.resend(1.0)) == [1, 2, 3]


@pytest.mark.parametrize("late", [value(2, rid=8), Ack(2, 8, 0, 1)])
def test_answers_and_receipts_to_what_is_not_outstanding(late: Value | Ack) -> None:
    client = links()
    client.broadcast(READ_PROC, 0.0)
    client.answered(late)
    client.receipt(ReadProc, 8, 2)
    assert ranks(client.resend(1.0)) == [1, 2, 3]


def test_the_second_phase_replaces_the_first() -> None:
    client = links()
    client.broadcast(READ_PROC, 0.0)
    client.answered(value(2))
    client.broadcast(WRITE_PROC, 0.5, but=1)
    assert len(client) == 1
    assert client.resend(1.0) == []  # the first phase's alarm
    assert client.resend(1.5) == [Tell(2, WRITE_PROC), Tell(3, WRITE_PROC)]


def test_both_phases_at_one_moment_are_sent_again_once() -> None:
    client = links()
    client.broadcast(READ_PROC, 0.0)
    client.broadcast(WRITE_PROC, 0.0, but=1)
    assert client.resend(1.0) == [Tell(2, WRITE_PROC), Tell(3, WRITE_PROC)]


def test_a_new_link_gets_at_once_what_its_node_has_not_answered() -> None:
    client = links()
    client.broadcast(READ_PROC, 0.0)
    client.broadcast(ReadProc(1, 8, 5, 1), 0.0)
    client.answered(value(2, rid=8))
    assert client.link_up(2, 0.0) == [Tell(2, READ_PROC)]
    assert client.link_up(3, 0.0) == [Tell(3, READ_PROC), Tell(3, ReadProc(1, 8, 5, 1))]
    assert client.resent == 3


def test_a_new_link_undoes_receipts() -> None:
    client = links()
    client.broadcast(READ_PROC, 0.0)
    client.receipt(ReadProc, RID, 2)
    client.receipt(ReadProc, RID, 3)
    assert client.link_up(2, 0.0) == [Tell(2, READ_PROC)]
    assert ranks(client.resend(1.0)) == [1, 2]


def test_cancel_forgets() -> None:
    client = links()
    client.broadcast(READ_PROC, 0.0)
    client.cancel(RID)
    client.cancel(RID)
    assert client.next_due() is None
    assert client.resend(100.0) == []
    assert client.link_up(2, 0.0) == []
    assert len(client) == 0 and not client._alarms


def test_a_long_pause_is_one_resend_not_many() -> None:
    client = links()
    client.broadcast(READ_PROC, 0.0)
    assert ranks(client.resend(1000.0)) == [1, 2, 3]
    assert client.next_due() == 1002.0


def test_many_operations_come_due_in_order(rng: random.Random) -> None:
    client = links()
    due_of = {rid: rng.random() * 10 for rid in range(1, 200)}
    for rid, start in due_of.items():
        client.broadcast(ReadProc(1, rid, 0, 1), start)
    gone = set(rng.sample(sorted(due_of), 100))
    for rid in gone:
        client.cancel(rid)
    order = []
    while (due := client.next_due()) is not None and due < 11.0:
        sends = client.resend(due)
        order += [send.message.rid for send in sends if send.rank == 2]  # type: ignore[union-attr]
        for send in sends:
            client.cancel(send.message.rid)  # type: ignore[union-attr]
    assert order == sorted(set(due_of) - gone, key=due_of.__getitem__)
    assert not client._alarms


def test_what_goes_over_a_new_link_is_judged_after_the_first_interval() -> None:
    client = links()
    client.broadcast(READ_PROC, 0.0)
    client.resend(1.0)
    client.resend(3.0)
    client.resend(7.0)
    assert client.next_due() == 15.0
    client.link_up(2, 8.0)
    assert client.next_due() == 9.0
    assert ranks(client.resend(9.0)) == [1, 2, 3]
    assert client.next_due() == 17.0, "the interval has not been forgotten"


def test_a_new_link_delays_nothing() -> None:
    client = links()
    client.broadcast(READ_PROC, 0.0)
    client.link_up(2, 0.5)
    assert client.next_due() == 1.0


def test_the_oldest_goes_first_over_a_new_link() -> None:
    client = links()
    for rid in (9, 3, 5):
        client.broadcast(ReadProc(1, rid, rid, 1), float(rid))
    client.broadcast(WriteProc(1, 9, 9, 1, ZERO_TAG, ZERO_SECTOR), 10.0, but=1)
    assert [send.message.rid for send in client.link_up(2, 11.0)] == [9, 3, 5]  # type: ignore[union-attr]


def test_what_a_node_has_answered_in_an_earlier_life_is_asked_anew_when_its_link_comes_up() -> None:
    client = links()
    client.broadcast(READ_PROC, 0.0)
    order = WRITE_PROC._replace(rid=8)
    client.broadcast(order, 0.0, but=2)
    client.answered(value(2))
    assert client.link_up(2, 0.1) == []
    client.discount(2)
    assert client.link_up(2, 0.2) == [Tell(2, READ_PROC)], "and not the order, which was not for it"
    client.answered(value(2))
    assert client.waiting_for(RID) == [1, 3]
