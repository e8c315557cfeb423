"""Where nodes are: whose word is taken, and which of two."""

from __future__ import annotations

import random

from dsreg.protocol.address import Address, Place
from dsreg.protocol.life import Life
from dsreg.register.addresses import MAX_CORRECTIONS, Addresses, Moved

ONE, TWO, OTHER, LATER = Life(1, b"1" * 16), Life(1, b"2" * 16), Life(1, b"x" * 16), Life(2, b"3" * 16)
A, B, C = Place("a", 1), Place("b", 2), Place("c", 3)


def at(place: Place, sequence: int = 1, life: Life = TWO) -> Address:
    return Address(life, sequence, place)


def test_the_highest_sequence_of_a_life_holds_in_whatever_order_it_is_heard(rng: random.Random) -> None:
    words = [at(A, 1), at(B, 2), at(C, 3), at(A, 4)]
    for _ in range(50):
        rng.shuffle(words)
        addresses = Addresses(1, {})
        for word in words:
            addresses.take({2: word}, {2: TWO})
        assert addresses.known == {2: at(A, 4)}
        assert not addresses.take({2: at(B, 2)}, {2: TWO}), "an older one"


def test_what_is_new_is_told_once_and_the_first_as_such() -> None:
    addresses = Addresses(0, {})
    assert addresses.take({2: at(A)}, {2: TWO}) == {2: Moved(at(A), True)}
    assert addresses.take({2: at(A)}, {2: TWO}) == {}
    assert addresses.take({2: at(B, 2)}, {2: TWO}) == {2: Moved(at(B, 2), False)}
    assert Addresses(0, {2: at(A)}).take({2: at(B, 2)}, {2: TWO}) == {2: Moved(at(B, 2), False)}


def test_only_the_directory_that_the_rank_is_known_by_is_believed() -> None:
    addresses = Addresses(1, {2: at(A)})
    assert not addresses.take({2: at(B, 9, OTHER)}, {2: TWO}), "an impostor with the rank of a node"
    assert not addresses.take({2: at(B, 9, LATER)}, {2: TWO}), "a claim that nobody has accepted"
    assert not addresses.take({2: at(B, 9), 3: at(C, 1)}, {}), "a rank that nobody has heard of"
    assert addresses.known == {2: at(A)}


def test_a_later_life_begins_anew_and_the_lost_directory_is_not_heard_any_more() -> None:
    addresses = Addresses(1, {2: at(A, 7)})
    assert addresses.take({2: at(B, 1, LATER)}, {2: LATER}) == {2: Moved(at(B, 1, LATER), False)}
    assert not addresses.take({2: at(A, 8)}, {2: LATER})
    assert addresses.known == {2: at(B, 1, LATER)}


def test_nobody_tells_a_node_where_it_is() -> None:
    addresses = Addresses(1, {})
    assert addresses.take({1: at(B, 9, ONE)}, {1: ONE}) == {} and not addresses.known


def test_an_address_that_differs_from_the_recorded_one_is_the_next() -> None:
    addresses = Addresses(1, {})
    assert addresses.announced(ONE, A) == at(A, 1, ONE)
    addresses = Addresses(1, {1: at(A, 3, ONE)})
    assert addresses.announced(ONE, A) == at(A, 3, ONE)
    assert addresses.announced(ONE, B) == at(B, 4, ONE)
    assert addresses.announced(LATER, A) == at(A, 1, LATER), "a new directory"


def test_a_directory_that_was_put_back_overtakes_what_was_said_since() -> None:
    addresses = Addresses(1, {1: at(A, 2, ONE)})
    assert addresses.corrected({1: at(A, 2, ONE)}) is None and addresses.corrected({1: at(C, 1, ONE)}) is None
    assert addresses.corrected({}) is None and addresses.corrected({1: at(B, 9, OTHER)}) is None
    assert addresses.corrected({1: at(B, 2, ONE)}) == at(A, 3, ONE)
    assert addresses.corrected({1: at(B, 5, ONE)}) == at(A, 6, ONE)


def test_two_processes_with_copies_of_a_directory_do_not_outbid_each_other_for_ever() -> None:
    ours, theirs = Addresses(1, {1: at(A, 1, ONE)}), Addresses(1, {1: at(B, 1, ONE)})
    said = 0
    for _ in range(10 * MAX_CORRECTIONS):
        for party, other in ((ours, theirs), (theirs, ours)):
            if (word := party.corrected(other.known)) is not None:
                party.known[1] = word
                said += 1
    assert said == 2 * MAX_CORRECTIONS and ours.contested == B
