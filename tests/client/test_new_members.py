"""A client that is told of members that its configuration does not have, and that some of its own have left: it
connects to the new ones where they have said that they are, counts them, and asks none that has left."""

from __future__ import annotations

import pytest

from dsreg.client.admission import Admission
from dsreg.client.core import ClientCore
from dsreg.client.engine import Engine
from dsreg.client.events import (
    Completed,
    Connected,
    Disconnected,
    Effect,
    Found,
    Gone,
    Inform,
    Moved,
    Received,
    Sized,
    Start,
)
from dsreg.protocol.address import Address, Place
from dsreg.protocol.choosing import ConfigurationReport
from dsreg.protocol.configuration import Configuration
from dsreg.protocol.life import Life, Stage
from dsreg.protocol.messages import AddressReport, Command, CommandKind, LivesReport, Message, Response, Status
from dsreg.protocol.tags import pack_tag
from dsreg.register.quorum import mask
from tests.client.attached_play import AttachedPlay, puts
from tests.client.play import DATA, Play, commands, ok

pytestmark = pytest.mark.pure

OLD, NEW = mask((1, 2, 3)), mask((1, 2, 3, 4, 5))
FIRST = Configuration(1, 9, OLD, 0, OLD)
JOINT = Configuration(2, 9, OLD, NEW, NEW)
GROWN = Configuration(3, 9, NEW, 0, NEW)
SHRINKS = Configuration(4, 9, NEW, OLD, NEW)
BACK = Configuration(5, 9, OLD, 0, NEW)
LIVES = {rank: Life(1, bytes([rank]) * 16) for rank in (1, 2, 3, 4, 5)}
PLACES = {rank: Place("10.0.0.9", 7000 + rank) for rank in LIVES}
FOUND = [Found(4, PLACES[4]), Found(5, PLACES[5])]


def says(play: Play, rank: int, *messages: Message) -> list[Effect]:
    """What follows, but that the size of the disk is known now."""
    return [effect for effect in play.do(Received(rank, messages)) if not isinstance(effect, Sized)]


def tells(play: Play, configuration: Configuration, *ranks: int) -> list[Effect]:
    return [effect for rank in ranks for effect in says(play, rank, ConfigurationReport(0, True, configuration))]


def lives(rank: int) -> LivesReport:
    others = {other: life for other, life in LIVES.items() if other != rank}
    return LivesReport(0, True, Stage.STARTED, LIVES[rank], others)


def where(*ranks: int) -> AddressReport:
    return AddressReport(0, True, {rank: Address(LIVES[rank], 1, PLACES[rank]) for rank in ranks})


def grown(play: Play, configuration: Configuration = GROWN) -> Play:
    """All five are connected, and have told of it."""
    says(play, 1, lives(1), where(4, 5), ConfigurationReport(0, True, configuration))
    for rank in (4, 5):
        play.do(Connected(rank))
    for rank in (2, 3, 4, 5):
        says(play, rank, lives(rank), ConfigurationReport(0, True, configuration))
    return play


def informs(effects: list[Effect]) -> list[Effect]:
    return [effect for effect in effects if isinstance(effect, Inform)]


# --- that there are more ------------------------------------------------------------------------------
def test_members_that_it_does_not_have_are_found_where_they_have_said_that_they_are() -> None:
    play = Play()
    assert says(play, 1, lives(1), where(1, 4, 5), ConfigurationReport(0, True, JOINT)) == [
        Moved(1, PLACES[1], True), *FOUND
    ]
    assert says(play, 1, lives(1), where(1, 4, 5), ConfigurationReport(0, True, JOINT)) == [], "once"


def test_also_if_the_address_comes_later_and_then_is_another_one() -> None:
    play = Play()
    assert says(play, 1, lives(1)) == tells(play, JOINT, 1) == []
    assert says(play, 1, where(4)) == FOUND[:1]
    elsewhere = Address(LIVES[4], 2, Place("10.0.0.10", 1))
    assert says(play, 1, AddressReport(0, True, {4: elsewhere})) == [Moved(4, elsewhere.place, False)]


def test_who_is_no_member_is_not_looked_for_nor_is_anybody_by_who_keeps_to_its_file() -> None:
    play = Play()
    assert says(play, 1, lives(1), where(4, 5), ConfigurationReport(0, True, FIRST)) == []
    play.core = ClientCore((1, 2, 3), learns=False)
    play.do(Connected(1))
    assert says(play, 1, lives(1), where(4, 5), ConfigurationReport(0, True, JOINT)) == []


def test_a_new_member_counts_once_it_tells_of_the_latest_one() -> None:
    play = AttachedPlay()
    says(play, 1, lives(1), where(4, 5), ConfigurationReport(0, True, GROWN))
    for rank in (2, 3):
        says(play, rank, lives(rank), ConfigurationReport(0, True, GROWN))
    play.do(Connected(4))
    assert 4 not in puts(play), "it has told nothing yet"
    says(play, 4, lives(4), ConfigurationReport(0, True, GROWN))
    sent = puts(play, 6)
    assert set(sent) == {1, 2, 3, 4}
    assert play.do(ok(sent[1], 1)) == [] and play.do(ok(sent[2], 2)) == [], "two of five"
    assert Completed(6, b"") in play.do(ok(sent[4], 4))


def test_with_two_of_the_old_ones_gone_for_good_the_others_decide() -> None:
    play = AttachedPlay()
    grown(play)
    for rank in (1, 2):
        play.do(Disconnected(rank))
    sent = puts(play)
    assert set(sent) == {3, 4, 5}
    assert play.do(ok(sent[3], 3)) == play.do(ok(sent[4], 4)) == []
    assert Completed(5, b"") in play.do(ok(sent[5], 5))


# --- that some have left ------------------------------------------------------------------------------
def test_one_that_was_found_and_has_left_is_not_connected_to_any_more() -> None:
    play = AttachedPlay()
    grown(play)
    tells(play, SHRINKS, 1, 2, 3, 4, 5)
    assert tells(play, BACK, 1) == [Gone(4), Gone(5), *(Inform(rank, BACK) for rank in (2, 3))]
    tells(play, BACK, 2, 3)
    assert set(puts(play)) == {1, 2, 3} and play.core.ranks == [1, 2, 3]


def test_what_it_was_asked_is_asked_of_others() -> None:
    play = Play()
    grown(play)
    rank, tag = 0, None
    for operation in range(1, 60):
        rank, tag = play.tag(operation, first=256 * operation)
        if rank == 4:
            break
    assert rank == 4 and tag is not None
    tells(play, SHRINKS, 1, 2, 3, 4, 5)
    effects = tells(play, BACK, 1)
    assert Gone(4) in effects
    again = [(to, command) for to, command in commands(effects) if command.request == tag.request]
    assert [to for to, _ in again] == [1] and again[0][1].kind is CommandKind.TAG


def test_one_of_its_file_that_has_left_is_kept_and_not_asked() -> None:
    play = AttachedPlay()
    tells(play, Configuration(2, 9, OLD, mask((1, 2)), OLD), 1, 2, 3)
    two = Configuration(3, 9, mask((1, 2)), 0, OLD)
    assert Gone(3) not in tells(play, two, 1, 2, 3)
    assert set(puts(play)) == {1, 2} and play.core.ranks == [1, 2]
    play.do(Disconnected(3))
    play.do(Connected(3))
    assert set(puts(play, 6)) == {1, 2}


def test_nor_is_work_left_to_it() -> None:
    play = Play()
    tells(play, Configuration(3, 9, mask((1, 2)), 0, OLD), 1, 2, 3)
    assert {play.tag(operation, first=256 * operation)[0] for operation in range(6)} == {1, 2}


def test_a_list_that_is_out_of_date_is_enough_to_find_those_that_decide() -> None:
    play = Play(1, 9, up=(9,))
    moved = Configuration(7, 9, mask((4, 5)), 0, NEW | mask((9,)))
    told = says(play, 9, LivesReport(0, True, Stage.STARTED, Life(1, b"9" * 16), LIVES), where(4, 5),
                ConfigurationReport(0, True, moved))
    assert told == FOUND
    for rank in (4, 5):
        play.do(Connected(rank))
        says(play, rank, lives(rank), ConfigurationReport(0, True, moved))
    asked = dict(commands(play.do(Start(1, 0, 1))))
    assert set(asked) == {4, 5}, "9 has left"


# --- a list that has more than there are --------------------------------------------------------------
def test_who_the_first_one_does_not_have_is_not_asked_though_the_file_lists_it() -> None:
    play = Play(1, 2, 3, 4, 5, up=(1, 2, 3, 4, 5))
    tells(play, FIRST, 1, 2, 3)
    asked = dict(commands(play.do(Start(1, 0, 1))))
    assert len(asked) == 2 and set(asked) <= {1, 2, 3}
    [first, second] = asked
    assert play.do(ok(asked[first], first)) == [] and Completed(1, DATA) in play.do(ok(asked[second], second))


def test_of_two_of_one_number_the_first_that_was_told_counts() -> None:
    play = AttachedPlay()
    tells(play, FIRST, 1, 2)
    tells(play, FIRST._replace(ranks=NEW, used=NEW), 3)
    assert set(puts(play)) == {1, 2}


# --- who has not heard yet ----------------------------------------------------------------------------
def test_who_is_behind_is_told_and_neither_asked_nor_given_tags_that_it_does_not_know() -> None:
    play = Play()
    tells(play, FIRST, 1, 2, 3)
    assert informs(tells(play, JOINT, 1)) == [Inform(2, JOINT), Inform(3, JOINT)]
    for operation in range(3):
        rank, _ = play.tag(operation, first=256 * operation)
        assert rank == 1
    play.do(Disconnected(1))
    assert commands(play.do(Start(9, 4096, 1, DATA))) == []
    assert {command.kind for _, command in commands(tells(play, JOINT, 2))} == {CommandKind.TAG}


def test_one_that_comes_back_behind_is_told_and_one_of_an_older_version_is_not() -> None:
    play = Play()
    tells(play, JOINT, 1)
    assert tells(play, FIRST, 2) == [Inform(2, JOINT)], "3 has told none"


def test_one_that_refuses_as_it_has_left_is_not_asked_until_it_is_connected_again() -> None:
    play = AttachedPlay()
    sent = puts(play)
    message = Response(Status.STOPPING, CommandKind.PUT, sent[1].request, extended=True)
    says(play, 1, message)
    assert set(puts(play, 6, 256)) == {2, 3}


def test_one_that_has_refused_before_it_was_a_member_is_asked_once_it_is_one() -> None:
    play = Play(1, 2, 3, 4, up=(1, 2, 3, 4))
    refused = next(tag for operation in range(9) if (tag := play.tag(operation, first=256 * operation))[0] == 4)[1]
    says(play, 4, Response(Status.STOPPING, CommandKind.TAG, refused.request, extended=True))
    tells(play, FIRST, 1, 2, 3, 4)
    assert 4 not in {play.tag(operation, first=256 * operation)[0] for operation in range(20, 29)}
    tells(play, JOINT, 1, 2, 3, 4)
    assert 4 in {play.tag(operation, first=256 * operation)[0] for operation in range(30, 39)}


def test_the_tags_that_a_new_member_has_chosen_are_stored() -> None:
    play = Play()
    grown(play)
    for operation in range(1, 60):
        rank, tag = play.tag(operation, first=256 * operation)
        if rank == 5:
            break
    to, store = play.sends(ok(tag, 5, pack_tag(3, 5)))
    assert to == 5 and store.kind is CommandKind.STORE and isinstance(store, Command)


# --- what the engine makes of it ----------------------------------------------------------------------
class Seen:
    """A shell, and the connections that it makes."""

    def __init__(self) -> None:
        self.said: list[tuple[object, ...]] = []
        core = ClientCore((1, 2, 3))
        self.engine = Engine(
            core, (1, 2, 3), lambda rank, engine: SeenConnection(rank, self.said), self,  # type: ignore[arg-type]
            lambda: 0.0, Admission(16, 1 << 20),
        )
        self.engine.open()
        for rank in (1, 2, 3):
            self.engine.connected(rank, 3)
        self.said.clear()

    def __getattr__(self, name: str) -> object:
        return lambda *args: self.said.append((name, *args))

    def sized(self, sectors: int) -> None:
        """Of another test."""


class SeenConnection:
    def __init__(self, rank: int, said: list[tuple[object, ...]]) -> None:
        said.append(("connect", rank))
        self._rank = rank
        self._said = said

    def tell(self, report: ConfigurationReport) -> None:
        self._said.append(("tell", self._rank, report.configuration.number))

    def __getattr__(self, name: str) -> object:
        return lambda *args: self._said.append((name, self._rank))


def test_the_engine_connects_and_ends_connections_and_hears_nothing_of_who_has_left() -> None:
    seen = Seen()
    said, engine = seen.said, seen.engine
    engine.received(1, [lives(1), where(4), ConfigurationReport(0, True, GROWN)])
    assert said == [("found", 4, PLACES[4]), ("connect", 4)]
    engine.connected(4, 5)
    engine.received(4, [lives(4), ConfigurationReport(0, True, GROWN)])
    engine.received(2, [lives(2), ConfigurationReport(0, True, FIRST)])
    assert [each for each in said if each[0] in ("tell", "flush", "up")] == [("up", 4), ("tell", 2, 3), ("flush", 2)]
    said.clear()
    engine.received(1, [ConfigurationReport(0, True, SHRINKS), ConfigurationReport(0, True, BACK)])
    assert ("gone", 4) in said and not [each for each in said if each[0] == "connect"]
    said.clear()
    engine.connected(4, 5)
    engine.received(4, [ConfigurationReport(0, True, GROWN)])
    engine.disconnected(Disconnected(4))
    assert said == []
