"""Replica: its part in the operations of other nodes, peers that speak only the contract, and damaged copies."""

from __future__ import annotations

import pytest

from dsreg.constants import MAX_REMEMBERED_UUIDS
from dsreg.protocol.messages import Ack, Command, CommandKind, ReadProc, Receipt, Response, Status, Value, WriteProc
from dsreg.register.contract import Uuids
from dsreg.register.effects import Again, Durable, Effect, Fence, Load, Persist, Renew, Reply, Tell
from dsreg.register.repairs import MAX_REPAIRS, REFUSED_RETRY_S
from dsreg.register.tag_allocator import PROMISE_STEP
from tests.protocol.values import data, tags
from tests.register.play import NEW, PEER, RANK, RID, Play, ask, at, load, ok, own, tell
from tests.register.settled import assert_settled

LOW, HIGH = tags((3, 2)), tags((4, 2))
UUID = bytes(range(16))
READ = Command(CommandKind.READ, 1, 0, 1)


def sent(effects: list[Effect], rank: int) -> list[ReadProc | WriteProc]:
    return [e.message for e in effects if isinstance(e, Tell) and e.rank == rank]  # type: ignore[misc]


def pieces(play: Play, message: ReadProc | WriteProc) -> list[ReadProc | WriteProc]:
    """`message` as a contract peer of the play gets it."""
    made: list[ReadProc | WriteProc] = []
    for i in range(message.count):
        uuid, sector = play.uuids.question(type(message), message.rid, i), message.first + i
        if isinstance(message, ReadProc):
            made.append(ReadProc(RANK, message.rid, sector, 1, True, uuid))
        else:
            tag, value = message.tags[16 * i:][:16], message.data[4096 * i:][:4096]
            made.append(WriteProc(RANK, message.rid, sector, 1, tag, value, uuid))
    return made


# --- questions of other nodes ---------------------------------------------------------------------
def test_read_proc_for_tags_is_answered_at_once() -> None:
    play = Play()
    play.have(tags((3, 2), (4, 1)), data(1, 2))
    answer = Value(RANK, 50, 0, 2, tags((3, 2), (4, 1)), None)
    assert play.message(ReadProc(2, 50, 0, 2, values=False)) == [Reply(PEER, answer)]


def test_read_proc_for_values_loads_first() -> None:
    play = Play()
    play.have(HIGH, NEW)
    question = ReadProc(2, 50, 0, 1)
    assert play.message(question) == [Load(question, PEER)]
    assert play.load(Load(question, PEER)) == [Reply(PEER, Value(RANK, 50, 0, 1, HIGH, NEW))]


def test_what_is_not_durable_is_not_reported() -> None:
    play = Play()
    play.have(LOW, data(1))
    play.message(WriteProc(3, 60, 0, 1, HIGH, NEW))  # its Persist is under way
    assert play.message(ReadProc(2, 50, 0, 1, values=False)) == [Reply(PEER, Value(RANK, 50, 0, 1, LOW, None))]


def test_l5_ack_only_once_it_is_durable() -> None:
    play = Play()
    (persist,) = play.message(WriteProc(2, 50, 0, 1, HIGH, NEW))
    assert persist == Persist(0, 1, HIGH, NEW, (Reply(PEER, Ack(RANK, 50, 0, 1)),))
    assert play.commit(persist) == [Reply(PEER, Ack(RANK, 50, 0, 1))]


def test_l5_a_lower_tag_is_acknowledged_and_not_stored() -> None:
    play = Play()
    play.have(HIGH, NEW)
    (persist,) = play.message(WriteProc(2, 50, 0, 1, LOW, data(1)))
    assert play.commit(persist) == [Reply(PEER, Ack(RANK, 50, 0, 1))]
    assert play.storage.load(0, 1) == (HIGH, NEW, False)


def test_l5_is_not_held_up_by_an_own_operation_on_the_sector() -> None:
    play = Play()
    play.read()
    assert play.message(ReadProc(2, 50, 0, 1, values=False)) != []
    assert play.message(WriteProc(2, 51, 0, 1, HIGH, NEW)) != []


# --- questions of peers that speak the contract ---------------------------------------------------
def test_a_contract_question_is_answered_over_the_link_each_time_under_a_new_uuid() -> None:
    play = Play(contract=(2,))
    play.have(HIGH, NEW)
    question = ReadProc(2, 50, 0, 1, True, UUID)
    (first,) = play.load(play.message(question)[0])
    (again,) = play.load(play.message(question)[0])
    for answer in (first, again):
        assert isinstance(answer, Tell) and isinstance(answer.message, Value) and len(answer.message.uuid) == 16
        assert (answer.rank, answer.message._replace(uuid=b"")) == (2, Value(RANK, 50, 0, 1, HIGH, NEW))
    assert first != again


def test_a_repeated_write_proc_is_acknowledged_without_a_second_persist() -> None:
    play = Play(contract=(2,))
    message = WriteProc(2, 50, 0, 1, HIGH, NEW, UUID)
    (persist,) = play.message(message)
    assert isinstance(persist, Persist) and isinstance(persist.then[0], Durable)
    assert play.message(message) == [], "not before it is durable"
    (ack,) = play.commit(persist)
    (again,) = play.message(message)
    for effect in (ack, again):
        assert isinstance(effect, Tell) and isinstance(effect.message, Ack)
        assert (effect.rank, effect.message._replace(uuid=b"")) == (2, Ack(RANK, 50, 0, 1))


def test_a_refused_write_proc_is_not_taken_for_done() -> None:
    play = Play(contract=(2,))
    message = WriteProc(2, 50, 0, 1, HIGH, NEW, UUID)
    play.storage.full = True
    assert play.commit(play.message(message)[0]) == []
    play.storage.full = False
    (persist,) = play.message(message)
    assert isinstance(persist, Persist)
    assert len(play.commit(persist)) == 1


def test_memory_of_repeats_is_bounded() -> None:
    play = Play(contract=(2,))
    for number in range(MAX_REMEMBERED_UUIDS + 10):
        play.message(WriteProc(2, 50, 0, 1, HIGH, NEW, number.to_bytes(16, "big")))
    assert len(play.replica._acceptor._repeats._peers[2]) == MAX_REMEMBERED_UUIDS


# --- own operations with peers that speak the contract --------------------------------------------
def test_a_run_goes_to_a_contract_peer_in_single_sectors() -> None:
    play = Play(contract=(2,))
    effects = play.read(count=3)
    assert sent(effects, 3) == [ReadProc(RANK, RID, 0, 3, False)]
    assert sent(effects, 2) == pieces(play, ReadProc(RANK, RID, 0, 3))


def test_answers_of_a_contract_peer_are_joined_and_get_receipts() -> None:
    play = Play(contract=(2,))
    play.have(LOW * 2, data(1, 1))
    play.read(count=2)
    play.load(load(count=2))
    receipt = Tell(2, Receipt(RANK, 4, UUID))
    assert play.message(Value(2, RID, 1, 1, HIGH, NEW, UUID)) == [receipt]
    assert play.message(Value(2, RID, 1, 1, HIGH, NEW, UUID)) == [receipt], "again, to make the peer stop"
    highest, newest = LOW + HIGH, data(1, 9)
    write_proc = WriteProc(RANK, RID, 0, 2, highest, newest)
    assert play.message(Value(2, RID, 0, 1, LOW, data(1), UUID)) == [
        receipt, *(Tell(2, single) for single in pieces(play, write_proc)), Tell(3, write_proc),
        own(highest, newest),
    ]
    receipt = Tell(2, Receipt(RANK, 6, UUID))
    assert play.message(Ack(2, RID, 0, 1, UUID)) == [receipt]
    assert play.message(Ack(2, RID, 1, 1, UUID)) == [receipt]
    assert play.ack(3, RID, count=2) == [ok(READ._replace(count=2), value=newest)]
    assert play.message(Ack(2, RID, 1, 1, UUID)) == [receipt], "also when all is over"
    assert_settled(play.replica, 100.0)


def test_sending_again_repeats_the_uuid() -> None:
    play = Play(contract=(2,))
    first = sent(play.store(HIGH), 2)
    assert first == pieces(play, WriteProc(RANK, RID, 0, 1, HIGH, NEW))
    assert sent(play.tick(0.5), 2) == first
    assert sent(play.replica.link_up(2, False, at(1.0)), 2) == first


def test_a_receipt_stops_the_sending_until_the_link_is_new() -> None:
    play = Play(contract=(2, 3))
    (question,) = sent(play.store(HIGH), 2)
    assert play.replica.message(None, Receipt(2, 5, question.uuid), at(0.0)) == []
    assert sent(play.tick(0.5), 2) == []
    assert play.links.waiting_for(RID) == [2, 3]
    assert sent(play.replica.link_up(2, False, at(0.6)), 2) == [question]
    assert sent(play.tick(2.0), 2) == [question]


def test_a_receipt_for_the_first_phase_that_comes_in_the_second_stops_nothing() -> None:
    play = Play(contract=(2,))
    (question,) = sent(play.write(), 2)
    (persist,) = play.value(3, RID, LOW)
    (write_proc,) = sent(play.commit(persist), 2)
    play.replica.message(None, Receipt(2, 3, question.uuid), at(0.0))
    assert sent(play.tick(0.5), 2) == [write_proc]


def test_a_receipt_for_one_sector_of_a_run_does_not_stop_the_others() -> None:
    play = Play(contract=(2,))
    questions = sent(play.read(count=3), 2)
    play.replica.message(None, Receipt(2, 3, questions[0].uuid), at(0.0))
    assert sent(play.tick(0.5), 2) == questions[1:]
    assert sent(play.replica.link_up(2, False, at(0.6)), 2) == questions, "a new link undoes receipts"


def test_only_what_is_not_answered_of_a_run_is_sent_again() -> None:
    play = Play(contract=(2,))
    questions = sent(play.store(HIGH * 3, data(1, 2, 3)), 2)
    play.message(Ack(2, RID, 0, 1, UUID))
    play.message(Ack(2, RID, 2, 1, UUID))
    assert sent(play.tick(0.5), 2) == [questions[1]]
    assert play.replica.next_due() == 1.5
    assert sent(play.replica.link_up(2, False, at(0.6)), 2) == [questions[1]]
    play.commit(own(HIGH * 3, data(1, 2, 3)))
    play.message(Ack(2, RID, 1, 1, UUID))
    assert_settled(play.replica, 100.0)


def test_nothing_of_a_run_is_sent_again_once_an_epoch_is_in_force() -> None:
    play = Play(contract=(2,))
    play.read(count=3)
    attach = Command.attach(1, 1, bytes(64))
    play.replica.epochs.fence(1, Again(Renew(RID)))
    assert isinstance(play.command(attach)[0], Reply)
    assert sent(play.tick(0.5), 2) == []


@pytest.mark.parametrize(
    "uuid", [UUID, Uuids(2, 77).question(ReadProc, RID, 0), Uuids(1, 78).question(ReadProc, RID, 0)]
)
def test_foreign_receipts_stop_nothing(uuid: bytes) -> None:
    play = Play(contract=(2,))
    questions = sent(play.read(), 2)
    play.replica.message(None, Receipt(2, 3, uuid), at(0.0))
    play.replica.message(None, Receipt(RANK, 3, questions[0].uuid), at(0.0))
    assert sent(play.tick(0.5), 2) == questions


def test_a_peer_that_comes_back_with_the_extension_is_spoken_to_in_it() -> None:
    play = Play(contract=(2,))
    play.have(HIGH * 2, data(9, 9))
    play.read(count=2)
    assert play.replica.link_up(2, True, at(0.1)) == ask(count=2, to=(2,))
    play.message(Value(2, RID, 0, 1, HIGH, NEW, UUID))  # late, from the old link
    play.load(load(count=2))
    assert play.value(2, RID, HIGH * 2) == [ok(READ._replace(count=2), value=data(9, 9))]
    assert_settled(play.replica, 100.0)


# --- damaged copies -------------------------------------------------------------------------------
def test_read_with_a_damaged_own_copy_asks_the_others_and_repairs() -> None:
    play = Play()
    play.have(LOW, data(1))
    play.storage.damage(0)
    assert play.read() == [*ask(), load()]
    assert play.load(load()) == []
    play.value(2, RID, HIGH)
    assert play.value(3, RID, HIGH) == [*ask(RID + 1, values=True), load(RID + 1, values=True)]
    play.load(load(RID + 1, values=True))
    play.value(2, RID + 1, HIGH, NEW)
    repair = own(HIGH, NEW, RID + 1, repair=True)
    assert play.value(3, RID + 1, HIGH, NEW) == [*tell(HIGH, NEW, RID + 1), repair]
    play.ack(2, RID + 1)
    assert play.commit(repair) == [ok(READ, value=NEW)]
    assert play.storage.missing(0, 1) == []


def test_write_and_tag_count_a_tag_whose_value_is_lost() -> None:
    play = Play()
    play.have(HIGH, NEW)
    play.storage.damage(0)
    play.write()
    assert play.value(2, RID, LOW) == [own(tags((5, RANK)))]


def test_write_and_tag_go_without_an_own_tag_that_is_lost() -> None:
    play = Play()
    play.have(LOW, NEW)
    play.storage.damage(0, tag_too=True)
    play.write()
    assert play.value(2, RID, LOW) == []
    above_all = tags((PROMISE_STEP, RANK))  # that this node can have chosen
    repair = own(above_all, repair=True)
    promise, = play.value(3, RID, HIGH)
    assert play.commit(promise) == [repair]
    assert play.commit(repair) == tell(above_all)
    play.storage.damage(1, tag_too=True)
    play.tag(first=1)
    assert play.value(2, RID + 1, LOW, first=1) == []
    assert play.value(3, RID + 1, LOW, first=1) != []


@pytest.mark.parametrize("tag_too", [False, True])
def test_a_question_about_a_damaged_copy_is_not_answered_and_starts_its_repair(tag_too: bool) -> None:
    play = Play(promised=PROMISE_STEP)  # what goes on above it need not promise anything before the repair
    play.have(HIGH, NEW)
    play.storage.damage(0, tag_too=tag_too)
    question = ReadProc(2, 50, 0, 1, values=not tag_too)
    effects = play.message(question)
    if not tag_too:
        effects = play.load(effects[0])
    assert effects == [*ask(), load()]
    assert play.message(ReadProc(3, 51, 0, 1, values=False)) == ([] if tag_too else [
        Reply(PEER, Value(RANK, 51, 0, 1, HIGH, None))]), "one repair at a time; a tag that is known is told"
    play.load(load())
    play.value(2, RID, HIGH, NEW)
    repair = own(HIGH, NEW, repair=True)
    assert play.value(3, RID, HIGH, NEW) == [repair], "the others have it"
    assert play.commit(repair) == [], "nobody to answer"
    assert_settled(play.replica, 100.0)
    assert play.message(ReadProc(2, 52, 0, 1, values=False)) == [Reply(PEER, Value(RANK, 52, 0, 1, HIGH, None))]


def test_repairs_are_bounded_and_the_rest_gets_its_turn() -> None:
    play = Play()
    count = MAX_REPAIRS + 10
    for sector in range(count):
        play.storage.damage(sector, tag_too=True)
    question = ReadProc(2, 50, 0, count, values=False)
    assert len(sent(play.message(question), 2)) == MAX_REPAIRS
    assert play.message(question) == []
    play.replica.loaded(load(), bytes(16), data(0), True, at(0.0))
    for rank in (2, 3):
        play.value(rank, RID, HIGH, NEW)
    play.commit(own(HIGH, repair=True))
    play.ack(2, RID)  # the first is done
    assert sent(play.message(question), 2) == [ReadProc(RANK, RID + MAX_REPAIRS, MAX_REPAIRS, 1, False)]


def test_a_store_to_a_sector_whose_tag_is_lost_starts_its_repair_beside_it() -> None:
    play = Play(promised=PROMISE_STEP)
    play.storage.damage(0, tag_too=True)
    play.store(HIGH)
    assert play.commit(own(HIGH)) == [*ask(RID + 1), load(RID + 1)]
    play.load(load(RID + 1))
    play.value(2, RID + 1, LOW, data(1))
    repair = own(LOW, data(1), RID + 1, repair=True)
    assert play.value(3, RID + 1, LOW, data(1))[-1] == repair
    play.commit(repair)
    assert own(HIGH) in play.tick(REFUSED_RETRY_S)
    play.commit(own(HIGH))
    assert play.ack(2, RID) != []
    assert play.storage.load(0, 1) == (HIGH, NEW, False)


def test_a_write_proc_to_a_sector_whose_tag_is_lost_is_not_acknowledged() -> None:
    play = Play()
    play.storage.damage(0, tag_too=True)
    assert play.commit(play.message(WriteProc(2, 50, 0, 1, HIGH, NEW))[0]) == [*ask(), load()]


def test_all_own_questions_that_come_due_together_are_asked_again() -> None:
    """Two reads whose own copies were damaged and have been repaired since by another node's write."""
    play = Play()
    for sector in (0, 1):
        play.storage.damage(sector)
        play.load(play.read(first=sector)[-1])
    play.have(HIGH * 2, data(9, 9))
    loads = [effect for effect in play.tick(0.5) if isinstance(effect, Load)]
    assert loads == [load(RID, 0), load(RID + 1, 1)]
    for again in loads:
        play.load(again)
    assert play.value(2, RID, HIGH) == [ok(READ, value=NEW)]
    assert play.value(2, RID + 1, HIGH, first=1) == [ok(READ._replace(first=1), value=NEW)]


# --- who speaks only the contract -------------------------------------------------------------------
def test_a_peer_that_was_killed_in_its_greeting_is_not_taken_for_one_of_the_contract() -> None:
    """It neither answers the greeting nor says anything else. No disk could be attached until it was back."""
    play = Play()
    attach = Command.attach(1, 1, bytes(64))
    play.replica.link_up(3, False, at(0.0))
    [refused] = play.command(attach)
    assert isinstance(refused, Reply) and isinstance(refused.message, Response)
    assert refused.message.status is Status.UNSUPPORTED, "as long as it stays there and is silent"
    play.replica.link_down(3, 0.5)
    assert isinstance(play.command(attach)[0], Fence)


def test_a_peer_that_has_spoken_the_contract_is_one_of_it_until_it_greets() -> None:
    play = Play()
    attach = Command.attach(1, 1, bytes(64))
    play.replica.link_up(3, False, at(0.0))
    play.message(ReadProc(3, 50, 0, 1, uuid=UUID))
    for _ in range(2):
        play.replica.link_down(3, 0.5)
        assert isinstance(play.command(attach)[0], Reply)
        play.replica.link_up(3, False, at(1.0))
    play.replica.link_up(3, True, at(2.0))
    play.replica.link_down(3, 0.5)
    assert isinstance(play.command(attach)[0], Fence)
