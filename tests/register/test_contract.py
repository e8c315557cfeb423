"""ContractPeer: runs in single-sector messages and back. Uuids: repeated with the message, led back to it."""

from __future__ import annotations

import random

from dsreg.constants import SECTOR_SIZE, UUID_SIZE
from dsreg.protocol.messages import Ack, ReadProc, Value, WriteProc
from dsreg.protocol.tags import pack_tag
from dsreg.register.contract import ContractPeer, Uuids
from dsreg.register.intervals import Intervals

RID = 9
TAGS = b"".join(pack_tag(ts, 1) for ts in (5, 6, 7))
DATA = b"".join(bytes([fill]) * SECTOR_SIZE for fill in (1, 2, 3))
READ_RUN = ReadProc(1, RID, 10, 3, values=False)
WRITE_RUN = WriteProc(1, RID, 10, 3, TAGS, DATA)


def peer() -> ContractPeer:
    return ContractPeer(Uuids(1, 0xABCD), Intervals(1.0, 8.0, lambda: 1.0))


def value(sector: int, *, rid: int = RID, again: bool = False) -> Value:
    """What rank 2 answers for one sector of the run; `again`: with a newer value than the first time."""
    tag = pack_tag(sector + 100 * again, 2)
    return Value(2, rid, sector, 1, tag, bytes([sector + 100 * again]) * SECTOR_SIZE, bytes(UUID_SIZE))


def ack(sector: int, rid: int = RID) -> Ack:
    return Ack(2, rid, sector, 1, bytes(UUID_SIZE))


# --- Uuids ----------------------------------------------------------------------------------------
def test_a_question_has_one_uuid_however_often_it_is_sent() -> None:
    uuids = Uuids(1, 5)
    first = uuids.question(ReadProc, RID, 0)
    assert len(first) == UUID_SIZE
    assert uuids.question(ReadProc, RID, 0) == first
    others = {
        uuids.question(WriteProc, RID, 0), uuids.question(ReadProc, RID, 1), uuids.question(ReadProc, RID + 1, 0),
        Uuids(2, 5).question(ReadProc, RID, 0), Uuids(1, 6).question(ReadProc, RID, 0),
    }
    assert len(others) == 5 and first not in others


def test_every_answer_has_a_uuid_of_its_own() -> None:
    uuids = Uuids(1, 5)
    made = {uuids.answer(kind) for kind in (Value, Ack) for _ in range(100)}
    assert len(made) == 200


def test_a_receipt_leads_back_to_the_question() -> None:
    uuids = Uuids(1, 5)
    assert uuids.question_of(uuids.question(ReadProc, RID, 0)) == (ReadProc, RID, 0)
    assert uuids.question_of(uuids.question(WriteProc, RID, 3)) == (WriteProc, RID, 3)


def test_a_receipt_for_anything_else_leads_nowhere() -> None:
    uuids = Uuids(1, 5)
    assert uuids.question_of(uuids.answer(Value)) is None
    assert uuids.question_of(uuids.answer(Ack)) is None
    assert uuids.question_of(Uuids(2, 5).question(ReadProc, RID, 0)) is None
    assert uuids.question_of(Uuids(1, 4).question(ReadProc, RID, 0)) is None  # an earlier incarnation's
    assert uuids.question_of(bytes(UUID_SIZE)) is None


# --- split ----------------------------------------------------------------------------------------
def test_a_single_sector_stays_one_message() -> None:
    contract = peer()
    (single,) = contract.split(ReadProc(1, RID, 10, 1, values=False), 0.0)
    assert single == ReadProc(1, RID, 10, 1, True, single.uuid)
    assert len(single.uuid) == UUID_SIZE
    assert contract.join(value(10), 0.0) == value(10)
    assert not contract._runs


def test_read_proc_of_a_run_becomes_one_for_each_sector_and_wants_values() -> None:
    singles = peer().split(READ_RUN, 0.0)
    assert [single._replace(uuid=b"") for single in singles] == [
        ReadProc(1, RID, 10, 1, True), ReadProc(1, RID, 11, 1, True), ReadProc(1, RID, 12, 1, True),
    ]
    assert len({single.uuid for single in singles}) == 3


def test_write_proc_of_a_run_becomes_one_for_each_sector() -> None:
    singles = peer().split(WRITE_RUN, 0.0)
    assert [single._replace(uuid=b"") for single in singles] == [
        WriteProc(1, RID, 10 + i, 1, pack_tag(5 + i, 1), bytes([1 + i]) * SECTOR_SIZE) for i in range(3)
    ]


def test_sending_again_repeats_the_uuids() -> None:
    contract = peer()
    assert contract.split(READ_RUN, 0.0) == contract.split(READ_RUN, 0.0)
    assert contract.split(WRITE_RUN, 0.0) == contract.split(WRITE_RUN, 0.0)


# --- join -----------------------------------------------------------------------------------------
def test_values_in_any_order_make_the_run(rng: random.Random) -> None:
    contract = peer()
    contract.split(READ_RUN, 0.0)
    order = rng.sample([10, 11, 12], 3)
    assert contract.join(value(order[0]), 0.0) is None
    assert contract.join(value(order[1]), 0.0) is None
    whole = contract.join(value(order[2]), 0.0)
    assert whole == Value(
        2, RID, 10, 3, b"".join(value(s).tags for s in (10, 11, 12)), b"".join(value(s).data for s in (10, 11, 12))
    )
    assert not contract._runs


def test_a_value_that_comes_twice_counts_once_and_tag_and_data_stay_together() -> None:
    contract = peer()
    contract.split(READ_RUN, 0.0)
    assert contract.join(value(10), 0.0) is None
    assert contract.join(value(10, again=True), 0.0) is None
    assert contract.join(value(11), 0.0) is None
    whole = contract.join(value(12), 0.0)
    assert isinstance(whole, Value) and whole.data is not None
    assert whole.tags[:16] == value(10, again=True).tags
    assert whole.data[:SECTOR_SIZE] == value(10, again=True).data


def test_acks_make_the_run() -> None:
    contract = peer()
    contract.split(WRITE_RUN, 0.0)
    assert contract.join(ack(12), 0.0) is None
    assert contract.join(ack(12), 0.0) is None
    assert contract.join(ack(10), 0.0) is None
    assert contract.join(ack(11), 0.0) == Ack(2, RID, 10, 3)
    assert not contract._runs


def test_sending_again_keeps_what_has_come() -> None:
    contract = peer()
    contract.split(READ_RUN, 0.0)
    contract.join(value(10), 0.0)
    contract.join(value(11), 0.0)
    contract.split(READ_RUN, 0.0)
    assert contract.join(value(12), 0.0) is not None


def test_what_belongs_to_the_other_phase_or_to_no_part_of_the_run_changes_nothing() -> None:
    contract = peer()
    contract.split(READ_RUN, 0.0)
    for foreign in (ack(10), value(9), value(13), ack(13)):
        assert contract.join(foreign, 0.0) is None
    contract.split(WRITE_RUN, 0.0)  # the second phase under the same rid
    assert contract.join(ack(10), 0.0) is None
    assert contract.join(ack(11), 0.0) is None
    assert contract.join(value(12), 0.0) is None
    assert contract.join(ack(12), 0.0) == Ack(2, RID, 10, 3)


def test_an_answer_to_another_operation_is_handed_on_as_it_came() -> None:
    contract = peer()
    contract.split(READ_RUN, 0.0)
    assert contract.join(value(10, rid=RID + 1), 0.0) == value(10, rid=RID + 1)


def test_forget() -> None:
    contract = peer()
    contract.split(READ_RUN, 0.0)
    contract.join(value(10), 0.0)
    contract.forget(RID)
    contract.forget(RID)
    assert not contract._runs
