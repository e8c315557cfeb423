"""The greeting of a peer that is spoken to by the contract, as plays of the whole link."""

from __future__ import annotations

import pytest

from dsreg.link.dialing import (
    GREET_AGAIN_S,
    GREET_GAP_S,
    GREETING_S,
    RECONNECT_FIRST_S,
)
from dsreg.link.effects import (
    Close,
    Connect,
    Deliver,
    Features,
    Greeting,
    Greets,
    Left,
    Level,
    LimitRecords,
    LinkDown,
    LinkUp,
    Log,
    Put,
    SealWith,
    Unanswered,
)
from dsreg.link.node_line import CONNECT_S, CONTRACT_AFTER_S, Phase
from dsreg.protocol.messages import FEATURE_SEALED, Ack
from tests.link.node_play import ANSWER, CONTRACT_ANSWER, NOW, OWN, RANK, USED_BY_CONTRACT, Play
from tests.link.parties import Party, damaged, kinds, plain


def test_a_peer_gets_not_a_byte_while_it_may_still_answer_the_greeting() -> None:
    play = Play()
    play.start()
    assert play.connected(1) == [Connect(2)]
    effects = play.connected(2)
    assert kinds(effects) == [Put, Greeting] and effects[0].line == 2  # type: ignore[union-attr]
    assert play.line.next_due == NOW + CONTRACT_AFTER_S
    assert play.wait() == USED_BY_CONTRACT
    assert play.line.state == "contract"


def test_a_peer_that_cannot_be_greeted_is_spoken_to_by_the_contract_at_once() -> None:
    play = Play()
    play.by_contract()
    assert play.line.next_due == NOW + GREET_GAP_S


def test_a_peer_that_answers_in_time_is_never_spoken_to_by_the_contract() -> None:
    play = Play()
    effects = play.met(Party(RANK))
    assert kinds(effects) == [Greets, SealWith, LimitRecords, Put, Features, LinkDown, Left, Close, LinkUp]
    assert effects[5:] == [LinkDown(1), Left(1), Close(1), LinkUp(2, True)]
    assert effects[3] == Put(2, (Ack(OWN, 0, 0, 1),)), "a record, as proof"
    assert play.line.state == "sealed"
    assert play.closed(1) == [] and play.line.phase is Phase.SERVING, "the old connection is nobody's"


def test_a_peer_that_answers_late_is_taken_over_from_the_contract() -> None:
    play, party = Play(), Party(RANK, seals=False)
    play.start()
    play.connected(1)
    greeting = play.connected(2)
    play.wait()
    play.now += 1.0
    effects = play.received(2, party.reply(greeting) + party.say(ANSWER))
    assert effects == [Greets(3, 1), Features(2, 3), LinkDown(1), Left(1), Close(1), LinkUp(2, True)]
    assert play.line.state == "extension"
    assert play.received(1, plain([CONTRACT_ANSWER])) == [], "of the old connection"
    assert play.received(2, plain([ANSWER])) == [Deliver(2, [ANSWER])]


def test_what_a_peer_of_the_contract_says_while_it_is_held_is_taken_later() -> None:
    play = Play()
    play.start()
    play.connected(1)
    assert play.received(1, plain([CONTRACT_ANSWER])) == []
    assert play.wait() == USED_BY_CONTRACT
    assert play.received(1, plain([CONTRACT_ANSWER])) == [Deliver(1, [CONTRACT_ANSWER])]


def test_a_connection_that_ends_while_it_is_held_is_made_again() -> None:
    play = Play()
    play.start()
    play.connected(1)
    assert play.closed(1) == [LinkDown(1), Left(1)]
    assert play.line.state == "down" and play.line.next_due == NOW + RECONNECT_FIRST_S
    assert play.wait() == [Connect(3)]
    assert play.connected(3) == [LinkUp(3, False)], "it has waited once"


def test_a_greeting_has_to_be_answered_in_time() -> None:
    play = Play()
    play.start()
    play.connected(1)
    play.connected(2)
    play.wait()
    assert play.line.next_due == NOW + GREETING_S
    assert play.wait() == [Unanswered(hung_up=False), Close(2)]
    assert play.received(2, plain([Party(RANK).answer])) == [], "too late"
    play.closed(2)
    assert play.line.next_due == play.now + GREET_AGAIN_S


@pytest.mark.parametrize(("heard", "wait_s"), [(True, GREET_AGAIN_S), (False, GREET_GAP_S)])
def test_silence_proves_that_it_speaks_only_the_contract_if_it_said_something(heard: bool, wait_s: float) -> None:
    play = Play()
    play.start()
    play.connected(1)
    play.connected(2)
    play.wait()
    if heard:
        play.heard_s = play.now + 0.1
    play.wait()
    play.closed(2)
    ended_s = play.now
    assert play.closed(1) == [LinkDown(1), Left(1), Connect(3)], "it has lasted: no pause"
    play.connected(3)
    assert play.line.next_due == ended_s + wait_s


def test_a_greeting_that_is_hung_up_on_or_damaged_is_tried_again_soon() -> None:
    play = Play()
    play.by_contract()
    assert play.wait() == [Connect(3)]
    play.connected(3)
    assert play.closed(3) == [Unanswered(hung_up=True)]
    assert play.line.next_due == play.now + 2 * GREET_GAP_S
    assert play.wait() == [Connect(4)]
    greeting = play.connected(4)
    effects = play.received(4, damaged(Party(RANK).reply(greeting)))
    log = Log(Level.INFO, "handshake failed: data corrupted in transit")
    assert effects == [Greets(FEATURE_SEALED | 3, 1), log, Close(4)]
    play.closed(4)
    assert play.line.next_due == play.now + 4 * GREET_GAP_S


def test_a_second_connection_may_not_take_for_ever() -> None:
    play = Play()
    play.start()
    play.connected(1)
    play.wait()
    assert play.line.next_due == NOW + CONNECT_S
    assert play.wait() == [Close(2)]
    play.closed(2)
    assert play.line.next_due == play.now + GREET_GAP_S


def test_a_peer_that_has_greeted_this_node_is_greeted_at_once() -> None:
    play = Play()
    play.by_contract()
    assert play.line.greet_soon() == []
    assert play.line.next_due < play.now
    assert play.line.tick(play.now) == [Connect(3)]


def test_a_peer_of_the_contract_that_comes_to_keep_lives_is_greeted_with_the_pauses_of_attempts() -> None:
    play = Play()
    play.by_contract()
    play.lives.keeps = True
    assert play.line.review() == [LinkDown(1), Close(1)], "it has to show its directory"
    assert play.line.tick(play.now) == [Connect(3)]
    play.closed(1)
    play.line.connect_failed(3, "refused", play.now)
    assert play.line.next_due <= play.now + 2 * RECONNECT_FIRST_S
