"""Where to connect to: the address of the file, what was learned, and which of the two next."""

from __future__ import annotations

from dsreg.link.destinations import Destinations
from dsreg.protocol.address import Place

FILE, LEARNED, NEWER = Place("file", 1), Place("learned", 2), Place("newer", 3)


def following(destinations: Destinations, count: int = 4) -> list[Place]:
    return [destinations.next() for _ in range(count)]


def test_without_news_it_is_the_file() -> None:
    destinations = Destinations(FILE)
    assert destinations.current == FILE and following(destinations) == [FILE] * 4


def test_what_was_learned_comes_first_and_the_file_in_turn() -> None:
    destinations = Destinations(FILE, LEARNED)
    assert following(destinations) == [LEARNED, FILE, LEARNED, FILE]


def test_what_has_worked_comes_first_from_then_on() -> None:
    destinations = Destinations(FILE, LEARNED)
    following(destinations, 2)
    destinations.worked()
    assert following(destinations) == [FILE, LEARNED, FILE, LEARNED]


def test_news_is_followed_at_once() -> None:
    destinations = Destinations(FILE)
    destinations.next()
    assert destinations.learn(LEARNED, is_first=True), "nothing has worked yet"
    assert following(destinations, 3) == [LEARNED, FILE, LEARNED]
    destinations.worked()
    assert destinations.learn(NEWER, is_first=False)
    assert following(destinations, 3) == [NEWER, FILE, NEWER]


def test_the_first_word_does_not_end_a_connection_that_works() -> None:
    """It may go through a tunnel."""
    destinations = Destinations(FILE)
    destinations.next()
    destinations.worked()
    assert not destinations.learn(LEARNED, is_first=True)
    assert following(destinations) == [FILE, LEARNED, FILE, LEARNED]


def test_what_is_said_of_the_place_that_is_in_use_changes_nothing() -> None:
    destinations = Destinations(FILE)
    destinations.next()
    assert not destinations.learn(FILE, is_first=True) and not destinations.learn(FILE, is_first=False)
    assert following(destinations) == [FILE] * 4


def test_back_to_where_the_file_has_it() -> None:
    destinations = Destinations(FILE, LEARNED)
    destinations.next()
    destinations.worked()
    assert destinations.learn(FILE, is_first=False)
    assert following(destinations) == [FILE] * 4


def test_who_does_not_learn_keeps_to_the_file() -> None:
    destinations = Destinations(FILE, LEARNED, learns=False)
    assert not destinations.learn(NEWER, is_first=False) and following(destinations) == [FILE] * 4
