"""The gates of Acceptor: READ_PROC, WRITE_PROC, GET, PUT of an epoch below, at and above what is promised and durable.

Rules 1, 2, 6 and 8 of docs/attachments.md, as plays of a replica.
"""

from __future__ import annotations

import pytest

from dsreg.constants import NO_OWNER, ZERO_TAG
from dsreg.protocol.extents import Extent, encode_extents, map_command
from dsreg.protocol.messages import Ack, Command, CommandKind, Fenced, ReadProc, Response, Status, Value, WriteProc
from dsreg.protocol.tags import ATTACHED, pack_tag, restamped, ts_of
from dsreg.protocol.zeros import zero_command
from dsreg.register.effects import Again, ClientOrder, Effect, Fence, Load, Persist, Reply
from tests.protocol.values import data, tags
from tests.register.play import CLIENT, NEW, PEER, RANK, Play, ask, load

HIGH = tags((4, 2))
UUID = bytes(range(16))
DURABLE = 5
EPOCHS = [0, 4, 5, 6, 7, 8]  # of a message; with 5 durable, and 5 or 7 promised
LATE, SOON = [DURABLE], [DURABLE, 7]  # nothing is being promised; 7 is


def play(promised: list[int]) -> Play:
    """`promised`: epochs; the last one may not be durable yet. The node has HIGH, from before all of them."""
    one = Play()
    one.have(HIGH, data(1))
    one.commit(one.replica.epochs.fence(promised[0], Again(ReadProc(2, 1, 9, 1, False), PEER)))
    for epoch in promised[1:]:
        one.replica.epochs.fence(epoch, Again(ReadProc(2, 1, 9, 1, False), PEER))
    return one


def put_tag(epoch: int) -> bytes:
    return pack_tag(ts_of(epoch, 1), ATTACHED, 0, epoch)


def fence(epoch: int, what: ReadProc | WriteProc | Command, origin: str = PEER) -> list[Effect]:
    return [Fence(epoch, NO_OWNER, (Again(what, origin),))]


def disbelief(command: Command, promised: int) -> list[Effect]:
    return [Reply(CLIENT, Response(Status.DISBELIEVED, command.kind, 9, extended=True, epoch=promised), command)]


# --- rule 2: an answer under an epoch only once it is durable -------------------------------------
@pytest.mark.parametrize("promised", [LATE, SOON])
@pytest.mark.parametrize("epoch", EPOCHS)
def test_read_proc(epoch: int, promised: list[int]) -> None:
    one = play(promised)
    question = ReadProc(2, 50, 0, 1, False, b"", epoch)
    answer = Reply(PEER, Value(RANK, 50, 0, 1, HIGH, None, b"", DURABLE))
    effects = one.message(question)
    if epoch <= DURABLE:
        assert effects == [answer], "under the epoch in force, whatever was asked"
        return
    newest = max(epoch, *promised)
    assert effects == fence(newest, question)
    assert one.replica.epochs.promised == newest
    assert one.commit(effects[0]) == [Reply(PEER, answer.message._replace(epoch=newest))]


@pytest.mark.parametrize("promised", [LATE, SOON])
@pytest.mark.parametrize("epoch", EPOCHS)
@pytest.mark.parametrize("values", [False, True])
def test_get(epoch: int, promised: list[int], values: bool) -> None:
    one = play(promised)
    command = Command(CommandKind.GET, 9, 0, 1, b"", b"", True, epoch, values)
    newest = max(epoch, *promised)
    effects = one.command(command)
    if epoch and epoch < promised[-1]:  # rule 6
        refusal = Response(Status.FENCED, CommandKind.GET, 9, extended=True, epoch=promised[-1])
        assert effects == [Reply(CLIENT, refusal, command)]
        return
    if epoch > promised[-1]:
        assert effects == disbelief(command, promised[-1])
        return
    under = DURABLE
    if epoch > DURABLE:
        assert effects == fence(newest, command, CLIENT)
        effects = one.commit(effects[0])
        under = newest
    response = Response(Status.OK, CommandKind.GET, 9, HIGH, data(1) if values else b"", True, under)
    if values:
        assert effects == [Load(command, CLIENT, under)]
        effects = one.load(effects[0])
    assert effects == [Reply(CLIENT, response, command)]


# --- rule 1: nothing is stored of an epoch below what is promised ---------------------------------
@pytest.mark.parametrize("promised", [LATE, SOON])
@pytest.mark.parametrize("epoch", EPOCHS)
def test_write_proc(epoch: int, promised: list[int]) -> None:
    one = play(promised)
    order = WriteProc(2, 50, 0, 1, restamped(HIGH, epoch), NEW)
    effects = one.message(order)
    if epoch < promised[-1]:
        assert effects == [Reply(PEER, Fenced(RANK, 50, 0, 1, promised[-1]))]
        return
    if epoch > DURABLE:
        assert effects == fence(epoch, order)
        effects = one.commit(effects[0])
    assert effects == [Persist(0, 1, restamped(HIGH, epoch), NEW, (Reply(PEER, Ack(RANK, 50, 0, 1)),))]
    one.commit(effects[0])
    assert one.storage.load(0, 1) == (restamped(HIGH, epoch), NEW, False)


def let_in(one: Play, command: Command, promised: int) -> list[Effect] | None:
    """The effects of the command once its epoch is durable; None if the epoch is refused, as it has to be then."""
    effects = one.command(command)
    if 0 < command.epoch < promised:
        refusal = Response(Status.FENCED, command.kind, command.request, extended=True, epoch=promised)
        assert effects == [Reply(CLIENT, refusal, command)]
        return None
    if command.epoch > promised:
        assert effects == disbelief(command, promised), "ATTACH alone raises what is promised"
        assert one.replica.epochs.promised == promised
        return None
    if command.epoch > DURABLE:
        assert effects == fence(command.epoch, command, CLIENT)
        effects = one.commit(effects[0])
    return effects


@pytest.mark.parametrize("promised", [LATE, SOON])
@pytest.mark.parametrize("epoch", EPOCHS[1:])
def test_put(epoch: int, promised: list[int]) -> None:
    one = play(promised)
    command = Command(CommandKind.PUT, 9, 0, 2, put_tag(epoch) * 2, NEW * 2, True, epoch)
    if (effects := let_in(one, command, promised[-1])) is None:
        return
    answer = Reply(CLIENT, Response(Status.OK, CommandKind.PUT, 9, extended=True), command)
    assert effects == [Persist(0, 2, put_tag(epoch) * 2, NEW * 2, (answer,), origin=ClientOrder(CLIENT, command))]
    assert one.commit(effects[0]) == [answer], "once it is durable"
    assert one.storage.load(0, 2) == (put_tag(epoch) * 2, NEW * 2, False)


@pytest.mark.parametrize("promised", [LATE, SOON])
@pytest.mark.parametrize("epoch", EPOCHS[1:])
def test_zero(epoch: int, promised: list[int]) -> None:
    one = play(promised)
    command = zero_command(9, 0, 512, put_tag(epoch), epoch)
    if (effects := let_in(one, command, promised[-1])) is None:
        return
    answer = Reply(CLIENT, Response(Status.OK, CommandKind.ZERO, 9, extended=True), command)
    assert effects == [Persist(0, 512, put_tag(epoch), b"", (answer,), origin=ClientOrder(CLIENT, command))]
    assert one.commit(effects[0]) == [answer], "once it is durable"
    assert one.storage.load(0, 2) == (put_tag(epoch) * 2, bytes(8192), False)


@pytest.mark.parametrize("promised", [LATE, SOON])
@pytest.mark.parametrize("epoch", EPOCHS)
def test_map(epoch: int, promised: list[int]) -> None:
    """As GET: nothing of an older epoch may come in after the answer."""
    one = play(promised)
    one.storage.damage(600, tag_too=True)
    command = map_command(9, 0, 1024, epoch)
    if (effects := let_in(one, command, promised[-1])) is None:
        return
    data, blank = Extent(1, None), Extent(1, ZERO_TAG)
    content = encode_extents([data, blank, data, blank])  # HIGH, and what is lost
    assert effects == [
        Reply(CLIENT, Response(Status.OK, CommandKind.MAP, 9, b"", content, True, max(epoch, DURABLE)), command)
    ]


def test_zeros_that_meet_a_later_write_of_the_attachment_are_overtaken() -> None:
    one = play(LATE)
    late = zero_command(9, 256, 512, put_tag(DURABLE), DURABLE)
    newer = pack_tag(ts_of(DURABLE, 5), ATTACHED, 0, DURABLE)
    (persist,) = one.command(Command(CommandKind.PUT, 8, 3000, 1, newer, NEW, True, DURABLE))
    one.commit(persist)
    assert told(one.command(late)).status is Status.OK, "elsewhere"
    (persist,) = one.command(Command(CommandKind.PUT, 8, 600, 1, newer, NEW, True, DURABLE))
    one.commit(persist)
    assert told(one.command(late)).status is Status.OVERTAKEN


def test_zeros_that_are_refused_are_answered() -> None:
    one = play(LATE)
    one.storage.full = True
    command = zero_command(9, 0, 512, put_tag(DURABLE), DURABLE)
    (persist,) = one.command(command)
    answer = told(one.commit(persist))
    assert answer.status in (Status.REFUSED, Status.NO_SPACE) and answer.kind is CommandKind.ZERO


def told(effects: list[Effect]) -> Response:
    """The answer, or that to be given once it is durable."""
    (effect,) = effects
    (reply,) = effect.then if isinstance(effect, Persist) else (effect,)
    assert isinstance(reply, Reply) and isinstance(reply.message, Response)
    return reply.message


def test_what_waited_for_a_promise_is_judged_again_by_a_newer_one() -> None:
    """Between its being asked for and its being durable, another has been made."""
    one = play(LATE)
    order = WriteProc(2, 50, 0, 1, restamped(HIGH, 6), NEW)
    command = Command(CommandKind.PUT, 9, 0, 1, put_tag(6), NEW, True, 6)
    (waiting,), (waiting_put,) = one.message(order), one.command(command)
    one.message(ReadProc(3, 51, 0, 1, False, b"", 7))
    assert one.commit(waiting) == [Reply(PEER, Fenced(RANK, 50, 0, 1, 7))]
    (answer,) = one.commit(waiting_put)
    assert isinstance(answer, Reply) and answer.message.status is Status.FENCED
    assert one.storage.tags(0, 1) == HIGH


# --- damaged and full -----------------------------------------------------------------------------
def test_a_get_of_a_damaged_copy_is_refused_and_repaired() -> None:
    one = play(LATE)
    one.storage.damage(0)
    command = Command(CommandKind.GET, 9, 0, 1, b"", b"", True, DURABLE, True)
    (get,) = one.command(command)
    effects = one.load(get)
    refusal = Response(Status.REFUSED, CommandKind.GET, 9, extended=True, epoch=DURABLE)
    assert effects[0] == Reply(CLIENT, refusal, command)
    assert one.replica.counters["repairs"] == 1


def test_a_get_of_tags_that_are_lost_is_refused_and_repaired() -> None:
    one = play(LATE)
    one.storage.damage(0, tag_too=True)
    command = Command(CommandKind.GET, 9, 0, 1, b"", b"", True, DURABLE)
    refusal = Response(Status.REFUSED, CommandKind.GET, 9, extended=True, epoch=DURABLE)
    assert one.command(command) == [Reply(CLIENT, refusal, command), *ask(epoch=DURABLE), load(epoch=DURABLE)]


def test_a_put_without_room_is_refused_and_says_so() -> None:
    one = play(LATE)
    one.storage.full = True
    command = Command(CommandKind.PUT, 9, 0, 1, put_tag(DURABLE), NEW, True, DURABLE)
    (persist,) = one.command(command)
    effects = one.commit(persist)
    refusal = Response(Status.NO_SPACE, CommandKind.PUT, 9, extended=True, epoch=DURABLE)
    assert effects == [Reply(CLIENT, refusal, command)]
    assert one.storage.tags(0, 1) == HIGH


def test_a_put_on_a_damaged_copy_is_not_for_want_of_room() -> None:
    one = play(LATE)
    one.storage.damage(0, tag_too=True)
    command = Command(CommandKind.PUT, 9, 0, 1, put_tag(DURABLE), NEW, True, DURABLE)
    (persist,) = one.command(command)
    answer = one.commit(persist)[0]
    assert isinstance(answer, Reply) and isinstance(answer.message, Response)
    assert answer.message.status is Status.REFUSED


@pytest.mark.parametrize(("wr", "status"), [(ATTACHED, Status.OVERTAKEN), (2, Status.OK)])
def test_a_put_that_is_behind_changes_nothing(wr: int, status: Status) -> None:
    one = play(LATE)
    newer = restamped(pack_tag(ts_of(DURABLE, 9), wr), DURABLE)
    one.have(newer, NEW)
    command = Command(CommandKind.PUT, 9, 0, 1, put_tag(DURABLE), data(3), True, DURABLE)
    (persist,) = one.command(command)
    (answer,) = one.commit(persist)
    assert isinstance(answer, Reply) and answer.message.status is status
    assert one.storage.load(0, 1) == (newer, NEW, False)


def test_gets_and_puts_wait_for_no_operation_on_the_sector() -> None:
    one = play(LATE)
    assert one.write() == ask(epoch=DURABLE)
    assert one.command(Command(CommandKind.GET, 9, 0, 1, extended=True)) != []
    assert one.command(Command(CommandKind.PUT, 9, 0, 1, put_tag(DURABLE), NEW, True, DURABLE)) != []


# --- rule 9: the contract knows no epochs ---------------------------------------------------------
def test_rule_9_of_contract_messages_nothing_is_heeded_once_there_is_an_epoch() -> None:
    one = play(LATE)
    assert one.message(ReadProc(2, 50, 0, 1, True, UUID)) == []
    assert one.message(WriteProc(2, 50, 0, 1, HIGH, NEW, UUID)) == []
    assert one.replica.counters["dishonest_epoch"] == 2
    assert one.storage.load(0, 1) == (HIGH, data(1), False)


def test_rule_9_not_even_while_the_first_promise_is_being_made() -> None:
    one = Play()
    one.message(ReadProc(2, 50, 0, 1, False, b"", 1))
    assert one.message(WriteProc(3, 51, 0, 1, HIGH, NEW, UUID)) == []


# --- belief ---------------------------------------------------------------------------------------
def test_absurd_epochs_change_nothing() -> None:
    one = play(LATE)
    absurd = 1 << 20
    assert one.message(ReadProc(2, 50, 0, 1, False, b"", absurd)) == []
    assert one.message(WriteProc(2, 50, 0, 1, restamped(HIGH, absurd), NEW)) == []
    get = Command(CommandKind.GET, 9, 0, 1, extended=True, epoch=absurd)
    put = Command(CommandKind.PUT, 9, 0, 1, put_tag(absurd), NEW, True, absurd)
    for command in (get, put):
        (answer,) = one.command(command)
        assert isinstance(answer, Reply) and answer.message.status is Status.DISBELIEVED
    assert one.replica.epochs.promised == DURABLE


def test_a_write_of_a_newer_epoch_than_its_copy_is_nothing_honest() -> None:
    one = play(LATE)
    assert one.message(WriteProc(2, 50, 0, 1, pack_tag(ts_of(6, 1), 2, 0, 5), NEW)) == []
    put = Command(CommandKind.PUT, 9, 0, 1, pack_tag(ts_of(6, 1), ATTACHED, 0, 5), NEW, True, 5)
    (answer,) = one.command(put)
    assert isinstance(answer, Reply) and answer.message.status is Status.DISBELIEVED


# --- a load that takes its time -------------------------------------------------------------------
@pytest.mark.parametrize("own", [False, True])
def test_a_load_that_finds_a_newer_epoch_is_answered_under_that(own: bool) -> None:
    """It was asked for under 5, and read when 6 was in force and a value of it stored."""
    one = play(LATE)
    newer = restamped(HIGH, 6)
    if own:
        one.read()
        begun = load(epoch=DURABLE)
    else:
        question = ReadProc(2, 50, 0, 1, True, b"", DURABLE)
        (begun,) = one.message(question)  # type: ignore[assignment]
        assert begun == Load(question, PEER, DURABLE)
    (promise,) = one.message(WriteProc(3, 60, 0, 1, newer, NEW))
    one.commit(*one.commit(promise))
    effects = one.load(begun)
    if own:
        assert [type(effect) for effect in effects] == [Fence], "the own operation has to go on under it"
    else:
        assert effects == [Reply(PEER, Value(RANK, 50, 0, 1, newer, NEW, b"", 6))]
