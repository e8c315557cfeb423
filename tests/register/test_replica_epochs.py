"""Replica: operations that run under an epoch, or meet a newer one, as plays. Rules: docs/attachments.md."""

from __future__ import annotations

import pytest

from dsreg.constants import NO_OWNER
from dsreg.protocol.messages import Command, CommandKind, Fenced, ReadProc, Response, Status, Value, WriteProc
from dsreg.protocol.tags import ATTACHED, pack_tag, restamped, ts_of
from dsreg.register.effects import Again, Durable, Effect, Fence, NamedFor, Renew, Reply, Reserve, Tell
from dsreg.register.repairs import REFUSED_RETRY_S
from dsreg.register.tag_allocator import PROMISE_STEP
from tests.protocol.values import data, tags
from tests.register.play import CLIENT, NEW, RANK, RID, Play, ask, at, load, ok, own, tell
from tests.register.settled import assert_settled

LOW, HIGH, CHOSEN = tags((3, 2)), tags((4, 2)), tags((5, RANK))
E = 2
READ = Command(CommandKind.READ, 1, 0, 1)
WRITE = Command(CommandKind.WRITE, 1, 0, 1, data=NEW)
TAG = Command(CommandKind.TAG, 1, 0, 1, extended=True)
STORE = Command(CommandKind.STORE, 1, 0, 1, CHOSEN, NEW, True)
LIFE = 2  # of the node, as it stands in tags


def attached(counter: int, wr: int = ATTACHED, life: int = 0) -> bytes:
    return pack_tag(ts_of(E, counter), wr, life, E)


def promise(one: Play, epoch: int = E) -> None:
    """The epoch comes with a question of another node, and is in force here."""
    (fence,) = one.message(ReadProc(3, 900 + epoch, 90, 1, False, b"", epoch))
    one.commit(fence)


def renewal(rid: int = RID, epoch: int = E) -> list[Effect]:
    return [Fence(epoch, NO_OWNER, (Again(Renew(rid)),))]


def refusal(command: Command, status: Status = Status.FENCED, epoch: int = E) -> list[Effect]:
    response = Response(status, command.kind, command.request, extended=command.extended, epoch=epoch)
    return [Reply(CLIENT, response, command)]


# --- rule 3: a newer epoch at one peer ------------------------------------------------------------
def test_a_read_that_meets_a_newer_epoch_promises_it_and_asks_again() -> None:
    one = Play()
    one.have(HIGH, NEW)
    assert one.read() == [*ask(), load()]
    one.load(load())
    assert one.value(2, RID, HIGH, epoch=E) == renewal(), "it is no answer to this question"
    assert one.commit(renewal()[0]) == [*ask(RID + 1, epoch=E), load(RID + 1, epoch=E)]
    assert one.value(3, RID, HIGH) == [], "an answer of the old epoch"
    assert one.load(load(RID + 1, epoch=E)) == []
    assert one.value(2, RID + 1, HIGH, epoch=E) == [ok(READ, value=NEW)]
    assert one.replica.counters["renewed"] == 1
    assert_settled(one.replica, 100.0)


def test_a_write_that_meets_a_newer_epoch_before_its_tag_is_chosen() -> None:
    one = Play()
    one.have(LOW, data(1))
    one.write()
    assert one.value(2, RID, attached(7), epoch=E) == renewal()
    assert one.commit(renewal()[0]) == ask(RID + 1, epoch=E)
    record = own(attached(8, RANK, LIFE), rid=RID + 1)
    assert one.value(2, RID + 1, attached(7), epoch=E) == [record]  # L4, rule 4
    assert one.commit(record) == tell(attached(8, RANK, LIFE), rid=RID + 1)
    assert one.ack(3, RID + 1) == [ok(WRITE)]  # L6
    assert_settled(one.replica, 100.0)


def test_a_write_that_is_fenced_by_one_peer_keeps_its_place() -> None:
    one = Play()
    one.have(LOW, data(1))
    one.write()
    (record,) = one.value(2, RID, HIGH)
    assert one.commit(record) == tell(CHOSEN)
    assert one.message(Fenced(3, RID, 0, 1, E)) == renewal()
    assert one.commit(renewal()[0]) == [*ask(RID + 1, values=True, epoch=E), load(RID + 1, values=True, epoch=E)]
    assert one.ack(2, RID) == [], "it may have been given before that peer made its promise, or never reach a majority"
    assert one.load(load(RID + 1, values=True, epoch=E)) == []
    # Somebody has restamped what was there before this write, without seeing it: by its name this one is the higher.
    assert one.value(3, RID + 1, restamped(HIGH, E), data(4), epoch=E) == [
        *tell(restamped(CHOSEN, E), rid=RID + 1), own(restamped(CHOSEN, E), rid=RID + 1)
    ]
    one.commit(own(restamped(CHOSEN, E), rid=RID + 1))
    assert one.ack(3, RID + 1) == [ok(WRITE)]
    assert one.storage.load(0, 1) == (restamped(CHOSEN, E), NEW, False)
    assert_settled(one.replica, 100.0)


def test_a_write_that_comes_after_one_of_the_attachment_stores_that() -> None:
    one = Play()
    one.store(CHOSEN)
    one.message(Fenced(3, RID, 0, 1, E))
    one.commit(renewal()[0])
    one.load(load(RID + 1, values=True, epoch=E))
    effects = one.value(3, RID + 1, attached(1), data(6), epoch=E)
    assert effects == [*tell(attached(1), data(6), RID + 1), own(attached(1), data(6), RID + 1)]
    one.commit(effects[-1])
    assert one.ack(3, RID + 1) == [ok(STORE)]
    assert one.storage.load(0, 1) == (attached(1), data(6), False)


def test_a_newer_epoch_that_comes_while_the_promise_is_made_is_asked_under_at_once() -> None:
    one = Play()
    one.read()
    (first,) = one.value(2, RID, HIGH, epoch=E)
    (second,) = one.value(3, RID, HIGH, epoch=E + 1)
    assert second == renewal(epoch=E + 1)[0]
    assert one.commit(second) == [*ask(RID + 1, epoch=E + 1), load(RID + 1, epoch=E + 1)]
    assert one.commit(first) == [], "it has gone on already"
    assert one.value(2, RID + 1, HIGH, epoch=E) == [], "an answer under an older epoch is none"


def test_what_is_told_twice_or_too_late_renews_nothing() -> None:
    one = Play()
    promise(one)
    one.write()
    assert one.message(Fenced(3, RID, 0, 1, E)) == [] == one.message(Fenced(3, RID, 0, 1, E - 1))
    assert one.message(Fenced(3, RID + 50, 0, 1, E + 1)) == [], "nobody waits for that"
    assert one.message(Fenced(3, RID, 0, 1, 1 << 20)) == [], "absurd"
    assert one.replica.epochs.promised == E


# --- rule 1: of its own part ----------------------------------------------------------------------
def test_a_node_stores_nothing_of_its_own_below_its_promise() -> None:
    """Another node's question has made it promise while it waited for answers under the old epoch."""
    one = Play()
    one.have(LOW, data(1))
    one.write()
    promise(one)
    assert one.value(2, RID, HIGH) == renewal(), "the tag is chosen, and goes on under the new epoch"
    assert one.commit(renewal()[0]) == [*ask(RID + 1, values=True, epoch=E), load(RID + 1, values=True, epoch=E)]
    assert one.storage.tags(0, 1) == LOW


@pytest.mark.parametrize("fence_first", [False, True])
def test_a_node_stores_nothing_below_its_promise_though_it_promised_its_tag_before_that(fence_first: bool) -> None:
    """Else: asked under E, this node and node 2 know of nothing, and what they have is restamped. Then the own copy is
    durable here, node 3, which has not heard of E, acknowledges it: the write has returned, and is not to be seen."""
    one = Play(promised=0)
    one.write()
    (reserve,) = one.value(2, RID, LOW)
    assert isinstance(reserve, Reserve)
    question = ReadProc(3, 900, 0, 1, False, b"", E)
    (fence,) = one.message(question)
    if fence_first:
        (value,) = one.commit(fence)
        assert isinstance(value, Reply) and isinstance(value.message, Value) and value.message.epoch == E
        renew = one.commit(reserve)
    else:
        renew = one.commit(reserve)
        one.commit(fence)
    assert renew == renewal()
    assert one.storage.tags(0, 1) == tags((0, 0))
    assert one.commit(renew[0])[: len(ask())] == ask(RID + 1, values=True, epoch=E)


def test_a_write_without_room_that_has_met_a_newer_epoch_goes_on_under_that() -> None:
    one = Play()
    one.write()
    (record,) = one.value(2, RID, HIGH)
    promise(one)
    one.storage.full = True
    assert one.commit(record) == renewal()
    one.commit(renewal()[0])
    one.storage.full = False
    again = [*ask(RID + 1, values=True, epoch=E), load(RID + 1, values=True, epoch=E)]
    assert one.tick(REFUSED_RETRY_S) == again, "no copy of the old epoch any more"


def test_a_write_without_room_under_an_epoch_takes_another_tag_and_needs_no_promise() -> None:
    one = Play()
    promise(one)
    one.write()
    (record,) = one.value(2, RID, attached(7), epoch=E)
    assert record == own(attached(8, RANK, LIFE))
    one.storage.full = True
    renamed = attached(9, RANK, LIFE)
    then = one.commit(record)
    assert then == [Durable(NamedFor(RID, renamed))]
    assert one.replica.durable(then[0].what, one.at()) == [*tell(renamed), own(renamed)]  # type: ignore[union-attr]


# --- rule 4: names by TAG -------------------------------------------------------------------------
def test_a_tag_without_an_attachment_is_promised_and_under_one_is_not() -> None:
    one = Play()
    one.tag()
    (reserve,) = one.value(2, RID, LOW)
    assert reserve.ts == PROMISE_STEP  # type: ignore[union-attr]
    one.commit(reserve)
    promise(one)
    one.tag()
    assert one.value(2, RID + 1, LOW, epoch=E) == [ok(TAG, tags=attached(1, RANK, LIFE))]


def test_a_write_after_a_tag_under_an_epoch_is_above_it() -> None:
    """The STORE with that tag may be at no node yet: one tag would name two writes."""
    one = Play()
    promise(one)
    one.tag()
    assert one.value(2, RID, LOW, epoch=E) == [ok(TAG, tags=attached(1, RANK, LIFE))]
    one.write()
    assert one.value(2, RID + 1, LOW, epoch=E) == [own(attached(2, RANK, LIFE), rid=RID + 1)]


def test_a_tag_that_another_of_a_newer_epoch_has_overtaken_is_believed() -> None:
    """Both answers of epoch 0 were on their way when this node promised E and named a tag in it."""
    one = Play(nodes=5)
    one.tag()
    one.value(2, RID, LOW)
    promise(one)
    one.tag(first=5)
    one.value(2, RID + 1, tags((0, 0)), first=5, epoch=E)
    assert one.value(3, RID + 1, tags((0, 0)), first=5, epoch=E) == [
        ok(TAG._replace(first=5), tags=attached(1, RANK, LIFE))
    ]
    (answer,) = one.value(3, RID, LOW)
    assert isinstance(answer, Reply) and answer == ok(TAG, tags=attached(2, RANK, LIFE))
    tag = attached(2, RANK, LIFE)
    assert one.store(tag, request=2)[0] == Tell(2, WriteProc(RANK, RID + 2, 0, 1, tag, NEW))


# --- STORE ----------------------------------------------------------------------------------------
def test_a_store_whose_tags_are_of_an_older_epoch_asks_first() -> None:
    one = Play()
    promise(one)
    assert one.store(CHOSEN) == [*ask(values=True, epoch=E), load(values=True, epoch=E)]
    one.load(load(values=True, epoch=E))
    assert one.value(2, RID, HIGH, data(4), epoch=E) == [*tell(restamped(CHOSEN, E)), own(restamped(CHOSEN, E))]


def test_a_store_whose_tags_are_of_an_epoch_that_is_not_promised_is_for_others() -> None:
    """A majority knows of that epoch, as it has named the tags; and what clients send raises nothing but by ATTACH."""
    one = Play()
    command = Command(CommandKind.STORE, 1, 0, 1, attached(5, 2), NEW, True)
    assert one.command(command) == refusal(command, Status.DISBELIEVED, epoch=0)
    assert one.replica.epochs.promised == 0


def test_a_store_that_waits_for_a_promise_is_dropped_with_its_client() -> None:
    one = Play()
    one.message(ReadProc(2, 900, 90, 1, False, b"", E))
    (fence,) = one.store(attached(5, 2))
    commands, _ = one.replica.disconnected(CLIENT, at(0.0))
    assert [command.kind for command in commands] == [CommandKind.STORE]
    assert one.commit(fence) == []
    assert_settled(one.replica, 100.0)


# --- rules 5 and 6: commands of an attachment -----------------------------------------------------
@pytest.mark.parametrize("kind", [CommandKind.READ, CommandKind.STORE, CommandKind.TAG])
def test_a_command_of_a_fenced_attachment_is_refused_and_the_queue_goes_on(kind: CommandKind) -> None:
    one = Play()
    promise(one, E + 1)
    tag, written = (attached(1), NEW) if kind is CommandKind.STORE else (b"", b"")
    command = Command(kind, 1, 0, 1, tag, written, True, E)
    assert one.command(command) == refusal(command, epoch=E + 1)
    assert one.read() == [*ask(epoch=E + 1), load(epoch=E + 1)]


@pytest.mark.parametrize(
    ("kind", "how"),
    [(CommandKind.READ, "value"), (CommandKind.READ, "fenced"), (CommandKind.READ, "own"),
     (CommandKind.STORE, "value"), (CommandKind.STORE, "fenced")],  # a STORE's own copy was accepted before the promise
)
def test_one_that_is_fenced_on_the_way_ends(kind: CommandKind, how: str) -> None:
    one = Play()
    promise(one)
    stored = kind is CommandKind.STORE
    command = Command(kind, 1, 0, 1, *((attached(1), NEW) if stored else (b"", b"")), True, E)
    one.command(command)
    one.read(request=2)
    if how == "fenced":
        effects = one.message(Fenced(3, RID, 0, 1, E + 1))
    elif how == "value":
        effects = one.value(3, RID, HIGH, NEW, epoch=E + 1)
    else:
        one.load(load(epoch=E))
        one.have(HIGH, NEW)
        promise(one, E + 1)
        effects = one.value(2, RID, HIGH, epoch=E)  # asks for values under E
        effects = one.load(load(RID + 1, values=True, epoch=E + 1))
    assert effects[0] == refusal(command, epoch=E + 1)[0]
    assert not one.replica.is_under_way(RID) and one.replica.unfinished() == 1, "the read behind it runs"


def test_rule_6_plain_commands_are_never_refused_for_an_epoch() -> None:
    one = Play()
    promise(one, E + 1)
    for effects in (one.read(), one.write(first=1), one.tag(first=2), one.store(attached(1, 2), first=3)):
        assert not any(isinstance(effect, Reply) for effect in effects)


def test_rules_5_and_10_a_read_of_an_attachment_stores_nothing_and_tells_the_tags_of_what_is_not_raised() -> None:
    one = Play()
    promise(one)
    one.have(HIGH, NEW)
    command = Command(CommandKind.READ, 1, 0, 1, extended=True, epoch=E)
    assert one.command(command) == [*ask(epoch=E), load(epoch=E)]
    one.load(load(epoch=E))
    assert one.value(2, RID, HIGH, epoch=E) == [ok(command, tags=HIGH, value=NEW)]
    assert one.storage.load(0, 1) == (HIGH, NEW, False)
    assert_settled(one.replica, 100.0)
    one.have(restamped(HIGH, E), NEW)  # the attachment has stored it
    assert one.command(command) == [*ask(RID + 1, epoch=E), load(RID + 1, epoch=E)]
    one.load(load(RID + 1, epoch=E))
    assert one.value(2, RID + 1, restamped(HIGH, E), epoch=E) == [ok(command, value=NEW)], "no tags: done"


def test_a_command_of_an_attachment_waits_for_the_promise_and_is_not_taken_before_there_is_one() -> None:
    one = Play()
    command = Command(CommandKind.READ, 1, 0, 1, extended=True, epoch=E)
    assert one.command(command) == refusal(command, Status.DISBELIEVED, epoch=0)
    one.command(Command.attach(1, E, bytes(64)))
    command = Command(CommandKind.READ, 1, 0, 1, extended=True, epoch=E)
    (fence,) = one.command(command)
    assert isinstance(fence, Fence) and (fence.epoch, fence.owner) == (E, NO_OWNER)
    assert one.commit(fence) == [*ask(epoch=E), load(epoch=E)]


# --- repairs --------------------------------------------------------------------------------------
@pytest.mark.parametrize("tag_too", [False, True])
def test_a_repair_under_an_epoch(tag_too: bool) -> None:
    one = Play()
    promise(one)
    one.have(restamped(LOW, E), data(1))
    one.storage.damage(0, tag_too=tag_too)
    question = ReadProc(2, 50, 0, 1, not tag_too, b"", E)
    effects = one.message(question)
    if not tag_too:
        effects = one.load(effects[0])
    assert effects == [*ask(epoch=E), load(epoch=E)], "no answer, and a read of its own"
    assert one.load(load(epoch=E)) == []
    one.value(2, RID, HIGH, epoch=E)
    one.value(3, RID, restamped(LOW, E), epoch=E)
    one.load(load(RID + 1, values=True, epoch=E))
    one.value(2, RID + 1, HIGH, NEW, epoch=E)
    effects = one.value(3, RID + 1, restamped(LOW, E), data(1), epoch=E)
    repair = own(restamped(LOW, E), data(1), RID + 1, repair=True)
    assert effects == [repair], "rule 10: it restamps nothing, and tells nobody"
    assert one.commit(repair) == []
    assert one.storage.load(0, 1) == (restamped(LOW, E), data(1), False)
    assert_settled(one.replica, 100.0)


def test_a_repair_that_meets_a_newer_epoch_goes_on_under_it() -> None:
    one = Play()
    one.have(LOW, data(1))
    one.storage.damage(0, tag_too=True)
    one.message(ReadProc(2, 50, 0, 1, False))
    one.load(load())
    assert one.value(2, RID, HIGH, epoch=E) == renewal()
    assert one.commit(renewal()[0]) == [*ask(RID + 1, epoch=E), load(RID + 1, epoch=E)]
    one.load(load(RID + 1, epoch=E))
    assert one.value(2, RID + 1, HIGH, NEW, epoch=E) == []
    assert one.value(3, RID + 1, HIGH, NEW, epoch=E) == [own(HIGH, NEW, RID + 1, repair=True)]
    one.commit(own(HIGH, NEW, RID + 1, repair=True))
    assert one.storage.load(0, 1) == (HIGH, NEW, False), "as it is elsewhere"
    assert_settled(one.replica, 100.0)


# --- hostile answers ------------------------------------------------------------------------------
def test_an_answer_with_a_tag_of_a_newer_epoch_than_its_own_is_none() -> None:
    """Of it would come tags that nobody believes, and so an operation without end."""
    one = Play()
    one.write()
    assert one.value(2, RID, attached(1)) == []
    assert one.links.waiting_for(RID) == [2, 3] and one.replica.counters["implausible_tags"] == 1
    assert one.value(3, RID, HIGH) == [own(CHOSEN)]
