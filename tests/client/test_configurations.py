"""Configurations as a client is told them: answers of one number only are counted together, by the quorum of that."""

from __future__ import annotations

import pytest

from dsreg.client.events import Attached, Completed, Connected, Disconnected, Effect, Inform, Received, Sized, Start
from dsreg.errors import NotBelieved, Outcome
from dsreg.protocol.choosing import ConfigurationReport
from dsreg.protocol.configuration import Configuration
from dsreg.protocol.messages import Command, CommandKind, Status
from dsreg.protocol.tags import pack_tag
from dsreg.register.quorum import mask
from tests.client.attached_play import OWNER, AttachedPlay, attach_answer, errors, gets, puts
from tests.client.play import DATA, Play, answered, commands, ok

pytestmark = pytest.mark.pure

FIRST = Configuration(1, 9, mask((1, 2, 3)), 0, mask((1, 2, 3)))
JOINT = Configuration(2, 9, mask((1, 2, 3)), mask((1, 2)), mask((1, 2, 3)))
TWO = Configuration(3, 9, mask((1, 2)), 0, mask((1, 2, 3)))
ONLY = Configuration(2, 9, mask((1, 2, 3)), mask((3,)), mask((1, 2, 3)))
PUT, GET, STORE = CommandKind.PUT, CommandKind.GET, CommandKind.STORE


def tells(play: Play, configuration: Configuration, *ranks: int) -> list[Effect]:
    """What follows, but that the size of the disk is known now."""
    return [effect for effect in all_of(play, configuration, *ranks) if not isinstance(effect, Sized)]


def all_of(play: Play, configuration: Configuration, *ranks: int) -> list[Effect]:
    return [
        effect for rank in ranks
        for effect in play.do(Received(rank, (ConfigurationReport(0, True, configuration),)))
    ]


def test_the_first_one_changes_nothing() -> None:
    play = AttachedPlay()
    assert tells(play, FIRST, 1, 2, 3) == []
    sent = puts(play)
    assert play.do(ok(sent[1], 1)) == [] and Completed(5, b"") in play.do(ok(sent[2], 2))


def test_a_write_is_stored_again_under_the_same_tags_and_what_was_answered_before_does_not_count() -> None:
    play = AttachedPlay()
    sent = puts(play)
    assert play.do(ok(sent[1], 1)) == []
    [(rank, store)] = [each for each in commands(tells(play, JOINT, 3)) if each[1].kind is not PUT]
    assert store.kind is STORE and (store.tags, store.data) == (sent[1].tags, sent[1].data)
    assert play.do(ok(sent[2], 2)) == [], "an answer of before"
    assert Completed(5, b"") in play.do(ok(store, rank))


def test_a_read_asks_again_whom_it_may_count() -> None:
    play = AttachedPlay()
    assert commands(tells(play, ONLY, 1, 3)) == [], "2 has not told anything yet"
    asked = gets(play)
    assert set(asked) == {1, 3}
    tells(play, ONLY, 2)
    assert play.do(ok(asked[1], 1)) == []
    again = [each for each in commands(tells(play, TWO, 1)) if each[1].kind is not GET]
    [(rank, read)] = again
    assert read.kind is CommandKind.READ and play.do(ok(asked[3], 3)) == []
    assert Completed(5, DATA) in play.do(ok(read, rank, b""))


def test_both_sets_have_to_answer_as_long_as_they_are_joint() -> None:
    play = AttachedPlay()
    tells(play, ONLY, 1, 2, 3)
    sent = puts(play)
    assert set(sent) == {1, 2, 3}
    assert play.do(ok(sent[1], 1)) == [] and play.do(ok(sent[2], 2)) == [], "3 alone is the later set"
    assert Completed(5, b"") in play.do(ok(sent[3], 3))


def test_who_has_left_is_not_counted() -> None:
    play = AttachedPlay()
    tells(play, TWO, 1, 2, 3)
    sent = puts(play)
    assert set(sent) == {1, 2}, "nor asked"
    assert play.do(ok(sent[1], 1)) == []
    assert Completed(5, b"") in play.do(ok(sent[2], 2))


def test_a_node_that_has_not_told_the_latest_one_is_not_counted_also_after_it_was_connected_again() -> None:
    play = AttachedPlay()
    tells(play, JOINT, 1, 2, 3)
    tells(play, FIRST._replace(number=3), 1, 2)
    assert set(puts(play)) == {1, 2}
    play.do(Disconnected(2))
    play.do(Connected(2))
    [(_, command)] = commands(play.do(Start(6, 0, 1)))
    assert command.kind is CommandKind.READ, "with 1 alone nothing can be counted"
    tells(play, FIRST._replace(number=3), 2)
    assert set(gets(play, 7)) == {1, 2}


def test_a_read_that_needs_all_does_not_ask_who_is_behind() -> None:
    play = AttachedPlay()
    tells(play, FIRST._replace(number=2), 1, 2)
    sent = gets(play)
    tags = pack_tag(7, 1)
    assert set(sent) == {1, 2} and play.do(ok(sent[1], 1, tags)) == []
    for _, command in commands(play.do(ok(sent[2], 2, tags))):
        assert command.kind is not GET


# --- attaching ----------------------------------------------------------------------------------------
def test_who_has_the_disk_is_asked_again_and_answers_of_before_do_not_count() -> None:
    play = AttachedPlay(held=False)
    assert play.do(attach_answer(play.asked[1], 1)) == []
    again = dict(commands(tells(play, JOINT, 2)))
    assert set(again) == {1, 2, 3} and all(command.epoch == 0 for command in again.values())
    for rank in (1, 3):
        assert play.do(attach_answer(again[rank], rank)) == [], "they answer under the first one"
    tells(play, JOINT, 1, 3)
    assert play.do(attach_answer(again[2], 2)) == []
    claims = dict(commands(play.do(attach_answer(again[1], 1))))
    assert {command.epoch for command in claims.values()} == {1}


def test_an_acceptance_of_before_does_not_count() -> None:
    play = AttachedPlay(held=False)
    play.do(attach_answer(play.asked[1], 1))
    claims = dict(commands(play.do(attach_answer(play.asked[2], 2))))
    assert play.do(attach_answer(claims[1], 1, 1, OWNER, True)) == []
    again = dict(commands(tells(play, JOINT, 1)))
    assert set(again) == {1, 2, 3} and all(command.epoch == 1 for command in again.values())
    tells(play, JOINT, 2, 3)
    assert play.do(attach_answer(again[3], 3, 1, OWNER, True)) == []
    assert play.do(attach_answer(again[2], 2, 1, OWNER, True)) == [], "2 and 3, of before; but not both of 1 2"
    assert play.do(attach_answer(again[1], 1, 1, OWNER, True)) == [Attached(1)]


def test_a_write_that_waits_for_clearance_asks_again_who_has_the_disk() -> None:
    play = Play()
    rank, tag = play.tag(5)
    asked = dict(commands(play.do(ok(tag, rank, pack_tag(2 << 40, 1, 0, 2)))))
    assert {command.kind for command in asked.values()} == {CommandKind.ATTACH}
    assert play.do(attach_answer(asked[1], 1)) == []
    again = dict(commands(tells(play, JOINT, 2)))
    assert set(again) == {1, 2, 3} and again[1].request != asked[1].request
    assert play.do(attach_answer(asked[3], 3)) == []


# --- the size of the disk -------------------------------------------------------------------------------
LARGER = Configuration(2, 300, mask((1, 2, 3)), 0, mask((1, 2, 3)))


def test_the_size_is_that_of_the_latest_configuration() -> None:
    """Whoever tells it, and whoever tells an older one later."""
    play = AttachedPlay()
    assert Sized(9) in all_of(play, FIRST, 1)
    assert all_of(play, FIRST, 2) == []
    assert Sized(300) in all_of(play, LARGER, 2)
    assert not any(isinstance(effect, Sized) for effect in all_of(play, FIRST, 3))
    assert play.core.configuration == LARGER
    assert not any(isinstance(effect, Sized) for effect in all_of(play, LARGER._replace(number=3), 1))


def test_what_is_beyond_the_smaller_size_is_asked_of_those_that_know_the_larger_one() -> None:
    """Others would refuse it. Here it is a majority; the third one is told."""
    play = AttachedPlay()
    tells(play, FIRST, 1, 2, 3)
    effects = tells(play, LARGER, 1, 2)
    assert Inform(3, LARGER) in effects
    sent = {rank: command for rank, command in commands(play.do(Start(5, 200, 1, DATA)))}
    assert set(sent) == {1, 2} and {command.kind for command in sent.values()} == {PUT}
    assert play.do(ok(sent[1], 1)) == []
    assert Completed(5, b"") in play.do(ok(sent[2], 2))


def doubted_by_one_that_is_needed() -> tuple[AttachedPlay, dict[CommandKind, tuple[int, Command]]]:
    """Nodes 1 and 2 have accepted the attachment. Since then 3 is needed for each write, and does not take one. What is
    sent then."""
    play = AttachedPlay()
    tells(play, ONLY, 1, 2, 3)
    put = puts(play)[3]
    sent = commands(play.do(answered(put, 3, Status.DISBELIEVED, epoch=0)))
    return play, {command.kind: (rank, command) for rank, command in sent}


def test_a_node_that_is_needed_and_was_not_told_of_the_attachment_is_told_and_fails_no_write() -> None:
    play, sent = doubted_by_one_that_is_needed()
    rank, told = sent[CommandKind.ATTACH]
    assert (rank, told.epoch) == (3, 1)
    rank, store = sent[STORE]
    assert rank != 3, "another one sees to it"
    assert Completed(5, b"") in play.do(ok(store, rank))


@pytest.mark.parametrize("status", [Status.OK, Status.DISBELIEVED])
def test_one_that_was_told_and_does_not_believe_it_fails_the_write(status: Status) -> None:
    """As its clock is wrong."""
    play, sent = doubted_by_one_that_is_needed()
    rank, told = sent[CommandKind.ATTACH]
    play.do(attach_answer(told, rank, 1, OWNER, True, status))
    rank, store = sent[STORE]
    effects = play.do(Disconnected(rank))
    [(rank, store)] = [(to, command) for to, command in commands(effects) if command.kind is STORE]
    while rank != 3:
        effects = play.do(Disconnected(rank))
        [(rank, store)] = [(to, command) for to, command in commands(effects) if command.kind is STORE]
    effects = play.do(answered(store, 3, Status.DISBELIEVED))
    assert errors(effects) == {5: (NotBelieved, Outcome.MAY_HAVE_HAPPENED)}
