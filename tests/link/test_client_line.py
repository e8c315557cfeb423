"""A client's connection to one node, as plays: what happens, then what is to be done about it."""

from __future__ import annotations

import math

import pytest

from dsreg.link.client_line import (
    CONNECT_S,
    FOREIGN_S,
    HELLO_MAX_S,
    HELLO_S,
    KEY_QUESTION,
    Ending,
    Phase,
)
from dsreg.link.dialing import RECONNECT_FIRST_S, RECONNECT_MAX_S
from dsreg.link.effects import (
    Close,
    Connect,
    Deliver,
    Down,
    Effect,
    Features,
    Level,
    LimitRecords,
    Log,
    Put,
    SealWith,
    Up,
)
from dsreg.protocol.codec import Keys
from dsreg.protocol.messages import (
    FEATURE_CONFIGURATIONS,
    Hello,
    LivesReport,
    Message,
    Seal,
    StatusReport,
)
from dsreg.protocol.record_bound import FIRST_BOUND, HEARD_AT_FIRST
from tests.link.client_play import ANSWERED, NOW, REPORT, greeting, new_line, refused, up
from tests.link.parties import NODES, SECTORS, Party, damaged, kinds, plain, report


# --- connecting -----------------------------------------------------------------------------------
def test_what_cannot_be_connected_to_is_tried_again_at_growing_intervals() -> None:
    line, now, pauses = new_line(), NOW, []
    effects = line.start(now)
    for number in range(1, 8):
        assert effects == [Connect(number)] and line.next_due == now + CONNECT_S
        assert line.connect_failed(number, "refused", now) == [
            Log(Level.DEBUG, "cannot connect: refused"), Down(number),
        ]
        pauses.append(round(line.next_due - now, 3))
        assert line.tick(line.next_due - 0.001) == []
        now = line.next_due
        effects = line.tick(now)
    assert pauses == [RECONNECT_FIRST_S, 0.1, 0.2, 0.4, 0.8, RECONNECT_MAX_S, RECONNECT_MAX_S]
    assert line.ending is Ending.LOST and line.complaint == ""


def test_connecting_may_not_take_for_ever() -> None:
    line = new_line()
    line.start(NOW)
    assert kinds(line.tick(NOW + CONNECT_S)) == [Log, Close]
    assert line.connected(1, NOW + CONNECT_S) == [], "it came too late"
    assert line.next_due == math.inf, "nothing happens before it is closed"
    assert line.closed(1, 0, NOW + CONNECT_S) == [Down(1)]
    assert line.tick(line.next_due) == [Connect(2)]


# --- greetings that are good ----------------------------------------------------------------------
def test_the_question_about_the_key_goes_behind_the_hello() -> None:
    line = new_line()
    [put] = greeting(line)
    assert isinstance(put, Put) and put.line == 1
    assert kinds(put.messages) == [Hello, type(KEY_QUESTION), Seal]
    assert put.messages[1] is KEY_QUESTION
    assert kinds(greeting(new_line(seals=False))[0].messages) == [Hello, type(KEY_QUESTION)]  # type: ignore[union-attr]


def test_a_node_that_does_not_seal_is_used_in_clear_text() -> None:
    line = new_line()
    assert up(line, Party(0, seals=False)) == [
        Features(1, NODES), Log(Level.INFO, "usable"), Up(1, NODES), Deliver(1, []),
    ]
    assert line.next_due == math.inf


def test_what_comes_right_behind_the_greeting_is_not_lost() -> None:
    line, party = new_line(), Party(0, seals=False)
    data = party.reply(greeting(line)) + party.say(REPORT)
    assert line.received(1, data, NOW)[-1] == Deliver(1, [REPORT])


@pytest.mark.parametrize("cut", [1, 50, 130])
def test_an_answer_may_come_in_parts(cut: int) -> None:
    line, party = new_line(), Party(0)
    data = party.reply(greeting(line)) + party.say(REPORT)
    assert line.received(1, data[:cut], NOW) == [] and line.phase is Phase.GREETING
    effects = line.received(1, data[cut:], NOW)
    assert kinds(effects) == [Features, SealWith, LimitRecords, Put, Log, Up, Deliver]
    assert effects[-1] == Deliver(1, [REPORT])


def test_a_node_that_seals_gets_a_record_at_once() -> None:
    """What it has had so far may have been recorded by somebody."""
    line = new_line()
    effects = up(line, Party(0))
    assert kinds(effects) == [Features, SealWith, LimitRecords, Put, Log, Up, Deliver]
    assert effects[2:4] == [LimitRecords(1, FIRST_BOUND), Put(1, (KEY_QUESTION,))]


def test_a_node_that_keeps_lives_is_used_once_it_has_told_of_them() -> None:
    line, party = new_line(), Party(0, lives=True)
    told = line.received(1, party.reply(greeting(line)), NOW)
    assert Up not in kinds(told) and line.phase is Phase.AWAITING_LIVES
    assert line.received(1, party.say(REPORT), NOW) == []
    effects = line.received(1, party.say(report(0)), NOW)
    assert effects[0] == Up(1, NODES)
    assert isinstance(effects[1], Deliver) and kinds(effects[1].messages) == [StatusReport, LivesReport]


def test_a_node_that_does_not_tell_of_lives_is_not_used() -> None:
    line, party = new_line(), Party(0, lives=True)
    line.received(1, party.reply(greeting(line)), NOW)
    assert line.tick(NOW + HELLO_S - 0.001) == []
    assert kinds(line.tick(NOW + HELLO_S)) == [Log, Close]
    assert line.received(1, party.say(report(0)), NOW + HELLO_S) == [], "too late"
    assert line.closed(1, 0, NOW + HELLO_S) == [Down(1)] and line.ending is Ending.LOST


def test_a_node_that_hangs_up_before_it_has_told_of_lives_is_lost() -> None:
    line, party = new_line(), Party(0, lives=True)
    line.received(1, party.reply(greeting(line)), NOW)
    assert line.closed(1, 0, NOW) == [Down(1)]


def test_what_is_corrupted_before_lives_have_come_ends_the_connection() -> None:
    line, party = new_line(), Party(0, lives=True)
    line.received(1, party.reply(greeting(line)), NOW)
    assert line.received(1, damaged(party.say(report(0))), NOW) == [Close(1)]


# --- greetings that are not -----------------------------------------------------------------------
def test_silence_is_believed_when_it_comes_twice_and_gets_more_time_each_time() -> None:
    line, now, waits, levels = new_line(), NOW, [], []
    for number in range(1, 6):
        greeting(line, number, now)
        waits.append(line.next_due - now)
        now = line.next_due
        effects = line.tick(now)
        assert effects[-1] == Close(number)
        levels += [effect.level for effect in effects if isinstance(effect, Log)]
        line.closed(number, 0, now)
        assert line.ending is (Ending.SILENT if number > 1 else Ending.LOST)
    assert waits == [HELLO_S, 4.0, 8.0, HELLO_MAX_S, HELLO_MAX_S]
    assert levels == [Level.INFO, Level.WARNING], "said once"
    assert line.complaint == "does not answer the HELLO"


def test_an_answer_ends_the_longer_wait_and_the_suspicion() -> None:
    line = new_line()
    greeting(line)
    line.tick(line.next_due)
    line.closed(1, 0, NOW)
    up(line, Party(0), 2)
    assert line.closed(2, 0, NOW) == [Log(Level.INFO, "the connection has ended"), Down(2)]
    greeting(line, 3)
    assert line.next_due == NOW + HELLO_S
    line.tick(line.next_due)
    line.closed(3, 0, NOW)
    assert line.ending is Ending.LOST, "the first silence since"


def test_a_node_of_the_contract_is_told_from_one_that_is_stuck() -> None:
    line = new_line()
    for number, ending in ((1, Ending.LOST), (2, Ending.FOREIGN)):
        greeting(line, number)
        assert line.received(number, plain([ANSWERED]), NOW) == []
        assert line.next_due == NOW + FOREIGN_S
        assert line.received(number, plain([ANSWERED]), NOW + 0.1) == []
        assert line.next_due == NOW + FOREIGN_S, "it is not put off"
        assert line.tick(line.next_due)[-1] == Close(number)
        line.closed(number, 0, NOW)
        assert line.ending is ending


def test_a_late_hello_after_the_answer_to_the_question_is_good() -> None:
    line, party = new_line(), Party(0)
    reply = party.reply(greeting(line))
    line.received(1, plain([ANSWERED]), NOW)
    assert Up in kinds(line.received(1, reply, NOW + FOREIGN_S / 2))


def test_another_client_key_is_believed_when_it_is_seen_twice() -> None:
    line = new_line(keys=Keys(bytes(32), b""))
    other = plain([ANSWERED])
    assert refused(line, other, 1)[0] == Log(Level.INFO, "has another client key, apparently: asking again")
    assert line.ending is Ending.LOST and line.complaint == ""
    assert refused(line, other, 2)[0] == Log(Level.WARNING, "has another client key")
    assert line.ending is Ending.KEY_REFUSED and line.complaint == "has another client key"


def test_two_different_doubts_in_a_row_prove_nothing() -> None:
    line = new_line()
    refused(line, damaged(plain([ANSWERED])), 1)
    assert line.ending is Ending.LOST
    refused(line, plain([REPORT]) + damaged(plain([ANSWERED])), 2)  # something good has come: not the key
    assert line.ending is Ending.LOST and line.complaint == ""


def test_a_handshake_that_is_not_authentic_is_believed_when_it_is_seen_twice() -> None:
    line = new_line()
    for number, ending in ((1, Ending.LOST), (2, Ending.CHANGED)):
        effects = greeting(line, number)
        reply = Party(0)
        sealed = reply.reply(effects)
        forged = plain([reply.answer._replace(incarnation=9)]) + sealed[len(plain([reply.answer])) :]
        assert line.received(number, forged, NOW)[-1] == Close(number)
        line.closed(number, 0, NOW)
        assert line.ending is ending
    assert line.complaint == "handshake failed: data corrupted in transit"


def test_a_handshake_that_somebody_withholds_is_damage_and_not_silence() -> None:
    line = new_line()
    for number in (1, 2):
        greeting(line, number)
        assert line.received(number, plain([Party(0).answer]), NOW) == []
        assert line.next_due == NOW + HELLO_S
        line.tick(line.next_due)
        line.closed(number, 0, NOW)
    assert line.ending is Ending.CHANGED


def test_another_disk_is_refused_at_once() -> None:
    line = new_line()
    greeting(line)
    effects = line.received(1, plain([Party(0, seals=False, sectors=2 * SECTORS).answer]), NOW)
    assert effects == [
        Log(Level.WARNING, f"has a disk of another size ({2 * SECTORS} sectors, not {SECTORS})"), Close(1),
    ]
    assert line.closed(1, 0, NOW) == [Down(1)]
    assert line.ending is Ending.OTHER_DISK and line.node_sectors == 2 * SECTORS


def test_a_disk_of_another_size_is_used_where_the_node_tells_of_its_configuration() -> None:
    """The size comes with that: the file of the client is older."""
    line = new_line()
    greeting(line)
    answer = Party(0, seals=False, sectors=2 * SECTORS).answer
    effects = line.received(1, plain([answer._replace(features=answer.features | FEATURE_CONFIGURATIONS)]), NOW)
    assert any(isinstance(effect, Up) for effect in effects) and line.ending is not Ending.OTHER_DISK


def test_clear_text_is_refused_where_connections_must_be_sealed() -> None:
    line = new_line(required=True)
    refused(line, plain([Party(0, seals=False).answer]), 1)
    assert line.ending is Ending.UNSEALED
    up(line, Party(0), 2)
    assert line.complaint == ""


def test_a_node_that_hangs_up_on_the_greeting_is_lost() -> None:
    line = new_line()
    greeting(line)
    assert line.closed(1, 0, NOW) == [
        Log(Level.INFO, "closes the connection instead of answering the HELLO"), Down(1),
    ]
    assert line.complaint == "closes the connection instead of answering the HELLO"


# --- in use, and its end --------------------------------------------------------------------------
def test_bytes_without_a_message_are_told_as_well() -> None:
    line, party = new_line(), Party(0)
    up(line, party)
    data = party.say(REPORT)
    assert line.received(1, data[:5], NOW) == [Deliver(1, [])]
    assert line.received(1, data[5:], NOW) == [Deliver(1, [REPORT])]


def test_records_grow_with_what_is_heard_and_shrink_with_a_break() -> None:
    line, party = new_line(), Party(0)
    up(line, party)
    grown: list[Effect] = []
    for _ in range(HEARD_AT_FIRST):
        grown += line.received(1, party.say(REPORT), NOW)
    assert [effect for effect in grown if isinstance(effect, LimitRecords)] == [LimitRecords(1, 2 * FIRST_BOUND)]
    line.closed(1, 2 * FIRST_BOUND, NOW)
    party = Party(0)
    up(line, party, 2)
    slow = [effect for _ in range(HEARD_AT_FIRST) for effect in line.received(2, party.say(REPORT), NOW)]
    assert LimitRecords not in kinds(slow), "what broke the last connection is approached slowly"


def test_a_connection_that_was_of_use_is_made_again_soon() -> None:
    line, number = new_line(), 0
    for number in range(1, 4):
        up(line, Party(0, seals=False), number)
        line.closed(number, 0, NOW)
        assert line.next_due - NOW == pytest.approx(RECONNECT_FIRST_S * 2 ** (number - 1)), "of no use: ever later"
    up(line, Party(0, seals=False), number + 1)
    line.received(number + 1, plain([REPORT]), NOW)
    line.closed(number + 1, 0, NOW)
    assert line.next_due - NOW == pytest.approx(RECONNECT_FIRST_S)


def test_corrupted_data_ends_the_connection() -> None:
    line, party = new_line(), Party(0)
    up(line, party)
    effects = line.received(1, damaged(party.say(REPORT)), NOW)
    assert effects == [Deliver(1, []), Log(Level.INFO, "data corrupted in transit"), Close(1)]
    assert line.closed(1, 0, NOW)[-1] == Down(1)


def test_nothing_of_an_old_connection_reaches_the_client() -> None:
    line, party = new_line(), Party(0, seals=False)
    up(line, party)
    line.closed(1, 0, NOW)
    late: list[Message] = [REPORT]
    up(line, party, 2)
    assert line.received(1, plain(late), NOW) == line.closed(1, 0, NOW) == line.connected(1, NOW) == []
    assert line.connect_failed(1, "late", NOW) == []
    assert line.received(2, plain(late), NOW) == [Deliver(2, late)]


def test_a_complaint_is_said_again_after_the_node_was_of_use() -> None:
    line = new_line(required=True)
    data = plain([Party(0, seals=False).answer])
    assert Level.WARNING in [effect.level for effect in refused(line, data, 1) if isinstance(effect, Log)]
    assert kinds(refused(line, data, 2)) == [Close, Down]
    up(line, Party(0), 3)
    line.closed(3, 0, NOW)
    assert Level.WARNING in [effect.level for effect in refused(line, data, 4) if isinstance(effect, Log)]


# --- the node is elsewhere ------------------------------------------------------------------------
def test_news_of_another_address_ends_an_attempt_and_its_pauses() -> None:
    line = new_line()
    line.start(NOW)
    assert line.redial(NOW) == [Close(1)] and line.phase is Phase.CLOSING
    assert line.redial(NOW) == [], "it is being closed"
    assert line.connected(1, NOW) == [] and line.closed(1, 0, NOW) == [Down(1)]
    assert line.next_due == NOW + RECONNECT_FIRST_S
    for number in range(2, 8):  # the pauses grow
        line.tick(line.next_due)
        line.connect_failed(number, "refused", NOW)
    assert line.redial(NOW) == [Connect(8)]
    line.connect_failed(8, "refused", NOW)
    assert line.next_due == NOW + RECONNECT_FIRST_S, "and begin anew"


@pytest.mark.parametrize("phase", [Phase.GREETING, Phase.AWAITING_LIVES])
def test_news_ends_a_greeting(phase: Phase) -> None:
    line = new_line()
    effects = greeting(line)
    if phase is Phase.AWAITING_LIVES:
        line.received(1, Party(0, lives=True).reply(effects), NOW)
    assert line.phase is phase
    assert line.redial(NOW) == [Close(1)] and line.closed(1, 0, NOW) == [Down(1)]


def test_news_ends_a_connection_in_use() -> None:
    line, party = new_line(), Party(0)
    up(line, party)
    assert line.redial(NOW) == [Close(1)]
    assert kinds(line.closed(1, 0, NOW)) == [Log, Down] and line.next_due == NOW + RECONNECT_FIRST_S
