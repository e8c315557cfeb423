"""The link of a node to another one, as plays: what happens, then what is to be done about it."""

from __future__ import annotations

import math

from dsreg.link.dialing import (
    GREETING_FIRST_S,
    GREETING_S,
    RECONNECT_FIRST_S,
    RECONNECT_MAX_S,
)
from dsreg.link.effects import (
    Close,
    Connect,
    Continue,
    Deliver,
    Effect,
    Features,
    Greeting,
    Greets,
    Introduce,
    Left,
    Level,
    LimitRecords,
    LinkDown,
    LinkUp,
    Log,
    Put,
    SealWith,
    TellLives,
    Told,
    ToldAddresses,
    Unanswered,
)
from dsreg.link.node_line import AWAIT_SEAL_S, CONNECT_S, LIVES_AGAIN_S, Phase
from dsreg.protocol.address import Address, Place
from dsreg.protocol.life import Life
from dsreg.protocol.messages import FEATURE_LIVES, AddressReport, Message, ReadProc
from dsreg.protocol.record_bound import FIRST_BOUND, HEARD_AT_FIRST
from tests.link.node_play import ANSWER, CONTRACT_ANSWER, NOW, RANK, Play, again
from tests.link.parties import STORE, Party, damaged, kinds, plain, report


# --- connecting -----------------------------------------------------------------------------------
def test_what_cannot_be_connected_to_is_tried_again_at_growing_intervals() -> None:
    play, pauses = Play(), []
    play.start()
    for number in range(1, 7):
        assert play.line.connect_failed(number, "refused", play.now) == []
        assert play.line.state == "down"
        pauses.append(round(play.line.next_due - play.now, 3))
        assert play.wait() == [Connect(number + 1)]
    assert pauses == [RECONNECT_FIRST_S, 0.1, 0.2, 0.4, 0.8, RECONNECT_MAX_S]


def test_connecting_may_not_take_for_ever() -> None:
    play = Play()
    play.start()
    assert play.line.next_due == NOW + CONNECT_S
    assert play.wait() == [Close(1)]
    assert play.connected(1) == [], "it came too late"
    assert play.line.next_due == math.inf
    assert play.closed(1) == []
    assert play.wait() == [Connect(2)]


# --- a peer that greets ---------------------------------------------------------------------------
def test_a_peer_that_did_greet_is_greeted_at_once_and_with_little_patience() -> None:
    play = Play()
    play.met(Party(RANK))
    play.closed(2)
    waits = []
    for number in range(3, 8):
        assert kinds(again(play, number)) == [Put, Greeting]
        waits.append(round(play.line.next_due - play.now, 3))
        assert play.wait() == [Unanswered(hung_up=False), Close(number)]
        play.closed(number)
    assert waits == [GREETING_FIRST_S, 0.5, 1.0, GREETING_S, GREETING_S]
    party = Party(RANK)
    play.received(8, party.reply(again(play, 8)))
    assert play.line.state == "sealed"
    play.closed(8)
    again(play, 9)
    assert play.line.next_due == play.now + GREETING_FIRST_S, "an answer ends it"


def test_a_peer_that_has_sealed_is_not_spoken_to_in_clear_text_for_a_while() -> None:
    play = Play()
    play.met(Party(RANK))
    play.closed(2)
    until_s = play.now + AWAIT_SEAL_S
    number, effects = 3, again(play, 3)
    while play.now < until_s:
        assert kinds(effects) == [Put, Greeting]
        assert play.closed(number) == [Unanswered(hung_up=True)]
        assert play.line.next_due == play.now + RECONNECT_FIRST_S
        number += 1
        play.now += 1.0
        assert play.line.tick(play.now) == [Connect(number)]
        effects = play.connected(number)
    assert play.closed(number) == [Unanswered(hung_up=True), Connect(number + 1)]
    assert play.connected(number + 1) == [Connect(number + 2)], "from now on it may speak the contract"


def test_a_peer_that_greets_in_clear_text_may_be_put_back_to_the_contract_at_once() -> None:
    play = Play()
    play.met(Party(RANK, seals=False))
    play.now += RECONNECT_MAX_S
    assert play.closed(2)[-1] == Connect(3), "it has lasted: no pause"
    play.connected(3)
    assert play.closed(3) == [Unanswered(hung_up=True), Connect(4)]
    assert play.connected(4) == [Connect(5)] and play.line.phase is Phase.HELD


def test_a_peer_that_keeps_lives_is_greeted_and_nothing_else() -> None:
    play = Play(keeps=True)
    play.start()
    assert kinds(play.connected(1)) == [Put, Greeting]
    assert play.line.next_due == NOW + GREETING_S
    assert play.closed(1) == [Unanswered(hung_up=True)]
    assert play.line.next_due == NOW + RECONNECT_FIRST_S
    assert kinds(again(play, 2)) == [Put, Greeting]


# --- only sealed connections ----------------------------------------------------------------------
def test_a_silent_peer_is_not_used_where_connections_must_be_sealed() -> None:
    play = Play(required=True)
    play.start()
    play.connected(1)
    effects = play.wait()
    assert kinds(effects) == [Unanswered, Log, Close] and effects[1].level is Level.WARNING  # type: ignore[union-attr]
    play.closed(1)
    assert play.line.state == "silent"
    again(play, 2)
    assert kinds(play.closed(2)) == [Unanswered], "said once"
    assert play.line.next_due == play.now + 2 * RECONNECT_FIRST_S


def test_a_peer_that_does_not_seal_is_not_used_either() -> None:
    play = Play(required=True)
    play.start()
    party = Party(RANK, seals=False)
    effects = play.received(1, party.reply(play.connected(1)))
    assert kinds(effects) == [Greets, Log, Close]
    assert play.line.state == "unsealed"
    assert play.received(1, plain([ANSWER])) == []
    play.closed(1)
    party = Party(RANK)
    assert LinkUp in kinds(play.received(2, party.reply(again(play, 2))))
    assert play.line.state == "sealed"


# --- lives ----------------------------------------------------------------------------------------
def shown(play: Play, party: Party) -> None:
    """The peer has answered a greeting, and has yet to show its directory."""
    play.lives.keeps = True
    play.start()
    effects = play.received(1, party.reply(play.connected(1)))
    assert kinds(effects)[-1] is Introduce and LinkUp not in kinds(effects)
    assert play.line.state == "waiting"


def test_a_peer_that_keeps_lives_is_used_once_it_has_shown_its_directory() -> None:
    play, party = Play(), Party(RANK, lives=True)
    shown(play, party)
    effects = play.received(1, party.say(ANSWER, report(RANK), ANSWER))
    assert effects == [Told(report(RANK)), Continue(1)], "what came before has no effect"
    play.lives.good = True
    assert play.line.review() == [LinkUp(1, True)]
    assert play.line.more(1) == [Deliver(1, [ANSWER])], "what comes behind has"
    assert play.line.more(1) == []


def test_a_report_in_the_name_of_another_rank_has_no_effect() -> None:
    play, party = Play(), Party(RANK, lives=True)
    shown(play, party)
    assert play.received(1, party.say(report(3))) == []


def test_what_is_known_of_lives_is_said_again() -> None:
    play, party = Play(), Party(RANK, lives=True)
    shown(play, party)
    for _ in range(3):
        before = play.now
        assert play.wait() == [TellLives(1)] and play.now == before + LIVES_AGAIN_S
    play.closed(1)
    assert play.wait() == [Connect(2)], "not to a connection that is over"


def test_a_peer_with_another_directory_is_not_used() -> None:
    play, party = Play(), Party(RANK, lives=True)
    shown(play, party)
    play.received(1, party.say(report(RANK), ANSWER))
    play.lives.wrong = "changed"
    assert play.line.review() == [LinkDown(1), Close(1)]
    assert play.line.more(1) == [] and play.received(1, party.say(ANSWER)) == []
    assert play.closed(1) == [LinkDown(1), Left(1)]
    assert play.line.state == "directory changed"
    assert play.line.next_due == NOW + RECONNECT_FIRST_S, "as if it had been of no use"


def test_a_peer_that_does_not_count_any_more_is_greeted_again() -> None:
    play, party = Play(), Party(RANK, lives=True)
    shown(play, party)
    play.lives.good = True
    assert play.line.review() == [LinkUp(1, True)] and play.line.review() == []
    play.lives.good = False
    assert play.line.review() == [LinkDown(1), Close(1)]
    assert play.line.review() == []


def test_a_link_to_an_earlier_life_is_made_anew_and_nothing_more_comes_over_it() -> None:
    play, party = Play(), Party(RANK, lives=True)
    shown(play, party)
    assert play.line.renew() == [], "it is not up yet: this may be the one over which the later life was told"
    play.lives.good = True
    assert play.line.review() == [LinkUp(1, True)]
    assert play.line.renew() == [LinkDown(1), Close(1)]
    assert play.line.review() == [] and play.received(1, party.say(ANSWER)) == []
    assert play.closed(1) == [LinkDown(1), Left(1)] and play.wait() == [Connect(2)]


# --- in use, and its end --------------------------------------------------------------------------
def test_only_answers_are_taken_from_a_link() -> None:
    play, party = Play(), Party(RANK)
    play.met(party)
    question = ReadProc(RANK, 9, 0, 1)
    assert play.received(2, party.say(question, ANSWER)) == [Deliver(2, [ANSWER])]
    assert play.received(2, party.say(question)) == []


def test_corrupted_data_ends_the_connection() -> None:
    play, party = Play(), Party(RANK)
    play.met(party)
    effects = play.received(2, party.say(ANSWER) + damaged(party.say(ANSWER)))
    assert kinds(effects) == [Deliver, Log, LinkDown, Close]
    assert play.closed(2) == [LinkDown(2), Left(2)]
    assert play.received(2, party.say(ANSWER)) == []


def test_records_grow_with_what_is_heard_and_shrink_with_a_break() -> None:
    play, party = Play(), Party(RANK)
    play.met(party)

    def limits(number: int) -> list[Effect]:
        heard = [effect for _ in range(HEARD_AT_FIRST) for effect in play.received(number, party.say(ANSWER))]
        return [effect for effect in heard if isinstance(effect, LimitRecords)]

    assert limits(2) == [LimitRecords(2, 2 * FIRST_BOUND)]
    play.closed(2, 2 * FIRST_BOUND)
    party = Party(RANK)
    play.received(3, party.reply(again(play, 3)))
    assert limits(3) == [], "what broke the last connection is approached slowly"


def test_connections_that_bring_nothing_are_made_ever_more_seldom() -> None:
    play, pauses = Play(), []
    play.met(Party(RANK, seals=False))
    for number in range(2, 8):
        play.closed(number)
        pauses.append(round(play.line.next_due - play.now, 3))
        party = Party(RANK, seals=False)
        play.received(number + 1, party.reply(again(play, number + 1)))
    assert pauses == [RECONNECT_FIRST_S, 0.1, 0.2, 0.4, 0.8, RECONNECT_MAX_S]


def test_a_connection_that_brought_something_is_made_again_soon() -> None:
    play, party = Play(), Party(RANK, seals=False)
    play.start()
    for number in range(1, 6):
        play.line.connect_failed(number, "refused", play.now)
        play.wait()
    play.connected(6)
    play.received(7, party.reply(play.connected(7)))
    play.received(7, party.say(ANSWER))
    play.closed(7)
    assert play.line.next_due == play.now + RECONNECT_FIRST_S


def test_late_events_of_old_connections_have_no_effect() -> None:
    play, party = Play(), Party(RANK)
    play.met(party)
    message: list[Message] = [CONTRACT_ANSWER]
    assert play.connected(1) == play.received(1, plain(message)) == play.closed(1) == play.line.more(1) == []
    assert play.line.connect_failed(1, "late", play.now) == []
    assert play.line.phase is Phase.SERVING


def test_a_peer_that_shows_lives_gets_no_proof_but_the_report() -> None:
    play, party = Play(keeps=True), Party(RANK, lives=True)
    assert party.answer.features & FEATURE_LIVES
    play.start()
    effects = play.received(1, party.reply(play.connected(1)))
    assert kinds(effects) == [Greets, SealWith, LimitRecords, Features, Introduce]


# --- the peer is elsewhere ------------------------------------------------------------------------
def test_what_is_told_of_addresses_is_passed_on_before_the_peer_counts() -> None:
    play, party = Play(keeps=True), Party(RANK, lives=True)
    play.start()
    play.received(1, party.reply(play.connected(1)))
    told = AddressReport(RANK, True, {3: Address(Life(1, STORE), 2, Place("c", 3))})
    assert play.received(1, party.say(ANSWER, told)) == [ToldAddresses(told)]
    assert play.received(1, party.say(report(RANK), told)) == [Told(report(RANK)), Continue(1)]
    assert play.line.more(1) == [ToldAddresses(told)]


def test_news_of_another_address_ends_what_is_under_way() -> None:
    play, party = Play(keeps=True), Party(RANK, lives=True)
    play.start()
    assert play.line.redial(play.now) == [Close(1)] and play.line.redial(play.now) == []
    assert play.closed(1) == []
    assert play.line.redial(play.now) == [Connect(2)], "no pause"
    play.connected(2)
    assert play.line.redial(play.now) == [Close(2)] and play.line.phase is Phase.REFUSED
    play.closed(2)
    assert play.wait() == [Connect(3)]
    play.received(3, party.reply(play.connected(3)))
    play.lives.good = True
    assert LinkUp(3, True) in play.line.review()
    assert play.line.redial(play.now) == [LinkDown(3), Close(3)]
    assert kinds(play.closed(3))[:2] == [LinkDown, Left]
    assert play.wait() == [Connect(4)] and play.line.next_due > play.now + RECONNECT_FIRST_S


def test_what_the_peer_can_do_is_told_with_the_introduction() -> None:
    play, party = Play(keeps=True), Party(RANK, lives=True)
    play.start()
    assert Introduce(1, party.answer.features) in play.received(1, party.reply(play.connected(1)))
