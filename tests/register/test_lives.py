"""Lives and FirstStart, by plays."""

from __future__ import annotations

import pytest

from dsreg.protocol.life import Life, Stage
from dsreg.register.lives import PATIENCE_S, FirstStart, Lives
from dsreg.register.quorum import majority_of

A, B, C, OTHER = (Life(1, bytes([number]) * 16) for number in (1, 2, 3, 9))
ASKING, CLAIMING, STARTED = Stage


def first(ranks: int = 3, *, begun: bool = False, strict: bool = False, new: bool = False) -> FirstStart:
    return FirstStart(1, majority_of(range(1, ranks + 1)), A, begun=begun, strict=strict, new=new)


# --- a first start --------------------------------------------------------------------------------
def test_alone_it_begins_at_once() -> None:
    start = first(1)
    assert start.due(0) is CLAIMING
    start.stage = CLAIMING
    assert start.due(0) is STARTED


@pytest.mark.parametrize(
    ("ranks", "strict", "needed"),
    [(1, False, 0), (2, False, 1), (3, False, 1), (4, False, 2), (5, False, 2), (7, False, 3),
     (1, True, 0), (2, True, 1), (3, True, 2), (4, True, 2), (5, True, 3), (7, True, 4)],
)
def test_how_many_have_to_answer_and_then_to_remember(ranks: int, strict: bool, needed: int) -> None:
    start = first(ranks, strict=strict)
    assert start.needed == needed
    for stage in (ASKING, CLAIMING):
        assert start.stage is stage
        for other in range(2, needed + 2):
            assert start.due(0) is None, (stage, other)
            start.told(other, None if stage is ASKING else A)
        assert start.due(0) == stage + 1
        start.stage = Stage(stage + 1)
    assert start.due(0) is None


def test_an_answer_is_no_confirmation_and_one_node_counts_once() -> None:
    start = first(5)
    for _ in range(3):
        start.told(2, None)
    assert start.due(0) is None
    start.told(3, None)
    assert start.due(0) is CLAIMING
    start.stage = CLAIMING
    assert start.due(0) is None
    start.told(2, A)
    start.told(3, A)
    start.told(3, None)  # its directory was lost meanwhile
    assert start.due(0) is None
    start.told(4, A)
    assert start.due(0) is STARTED


@pytest.mark.parametrize("new", [False, True])
@pytest.mark.parametrize("stage", [ASKING, CLAIMING, STARTED])
def test_who_has_heard_of_another_directory_is_never_overruled(stage: Stage, new: bool) -> None:
    start = first(5, new=new)
    start.stage = stage
    for other in (2, 3, 4):
        start.told(other, A)
    start.told(5, OTHER)
    assert start.denied == (5, OTHER)
    assert start.due(0) is None and start.due(1e9) is None


def test_a_later_number_of_the_same_directory_is_another_life() -> None:
    """As where the directory was put back as it was before it had claimed that."""
    start = first(3)
    start.told(2, Life(2, A.store))
    assert start.denied == (2, Life(2, A.store)) and start.due(0) is None


def test_it_may_begin_again_where_it_was_killed_while_it_claimed() -> None:
    start = first(3)
    start.told(2, A)
    assert start.due(0) is CLAIMING
    start.stage = CLAIMING
    assert start.due(0) is STARTED


def test_nodes_of_the_contract_count_as_answers() -> None:
    start = first(3, strict=True)
    start.speaks_contract(2)
    assert start.due(0) is None
    start.told(3, None)
    assert start.due(0) is CLAIMING
    start.stage = CLAIMING
    start.told(3, A)
    assert start.due(0) is STARTED


def test_new_stands_in_for_answers_that_do_not_come() -> None:
    start = first(3, strict=True, new=True)
    assert start.due(100) is None and start.next_due == 100 + PATIENCE_S
    assert start.due(100 + PATIENCE_S - 0.1) is None
    assert start.due(100 + PATIENCE_S) is CLAIMING
    start.stage = CLAIMING
    assert start.due(200) is None
    assert start.due(200 + PATIENCE_S) is STARTED
    assert first(3).next_due == float("inf") and first(3).due(1e9) is None


# --- who is counted -------------------------------------------------------------------------------
def test_what_is_heard_first_is_kept_and_what_differs_does_not_count() -> None:
    lives = Lives(1, {1: A})
    assert lives.known == {} and not lives.keeps_lives(2) and not lives.counts(2)
    assert lives.take(2, STARTED, B, {1: A}).lives == {2: B}
    assert lives.counts(2) and lives.keeps_lives(2) and not lives.fault(2)
    assert lives.take(2, STARTED, B, {}).lives == {}
    assert lives.take(2, STARTED, OTHER, {}).lives == {}
    assert not lives.counts(2) and "has changed" in lives.fault(2) and lives.known == {2: B}
    lives.take(2, STARTED, B, {})
    assert lives.counts(2) and lives.faults() == {}


def test_a_rank_that_has_been_heard_of_keeps_lives_whether_it_has_shown_its_own_or_not() -> None:
    lives = Lives(1, {2: B})
    assert lives.keeps_lives(2) and not lives.keeps_lives(3)
    lives.take(3, ASKING, C, {})
    assert 3 not in lives.known and lives.keeps_lives(3)


def test_another_number_is_another_life() -> None:
    lives = Lives(1, {2: Life(2, B.store)})
    lives.take(2, STARTED, B, {})
    assert not lives.counts(2)


def test_a_node_that_asks_is_not_remembered_one_that_claims_is_and_neither_counts() -> None:
    lives = Lives(1, {})
    assert lives.take(2, ASKING, B, {}).lives == {}
    assert not lives.counts(2) and lives.keeps_lives(2)
    assert lives.take(2, CLAIMING, B, {}).lives == {2: B}
    assert not lives.counts(2)
    lives.take(2, STARTED, B, {})
    assert lives.counts(2)


def test_a_word_from_before_its_claim_was_accepted_is_no_fault() -> None:
    lives = Lives(1, {2: B})
    lives.take(2, ASKING, OTHER, {})
    assert "another, empty directory" in lives.faults()[2]
    lives.accept(2, Life(2, OTHER.store))
    lives.take(2, ASKING, OTHER, {})
    assert lives.faults() == {} and not lives.counts(2)


def test_a_stranger_with_a_known_rank_does_not_put_the_known_node_out() -> None:
    lives = Lives(1, {2: B})
    lives.take(2, STARTED, B, {})
    assert lives.take(2, ASKING, OTHER, {3: C}).lives == {} and lives.known == {2: B}
    assert lives.counts(2) and "another, empty directory" in lives.faults()[2]
    lives.take(2, STARTED, B, {})
    assert lives.faults() == {}


def test_what_others_tell_is_kept_as_well() -> None:
    lives = Lives(1, {})
    assert lives.take(2, STARTED, B, {1: OTHER, 3: C}).lives == {2: B, 3: C}
    assert not lives.counts(3), "it has not shown its directory itself"
    lives.take(3, STARTED, OTHER, {})
    assert "has changed" in lives.fault(3) and not lives.counts(3)


def test_a_node_that_others_know_otherwise_does_not_count_until_they_agree() -> None:
    lives = Lives(1, {})
    lives.take(3, STARTED, C, {})
    lives.take(2, STARTED, B, {3: OTHER})
    assert lives.faults() == {3: f"its directory is not known for sure: node 2 knows {OTHER}, not {C}"}
    assert not lives.counts(3) and lives.counts(2)
    lives.take(2, STARTED, B, {})
    assert lives.counts(3)


def test_a_client_knows_nothing_to_begin_with() -> None:
    lives = Lives(0, {})
    lives.take(1, STARTED, A, {2: B})
    lives.take(2, STARTED, OTHER, {1: A})
    assert lives.counts(1) and not lives.counts(2)


# --- a later life of a rank -----------------------------------------------------------------------
LATER = Life(2, OTHER.store)


@pytest.mark.parametrize("is_claimed", [False, True])
def test_a_later_life_supersedes_the_one_that_was_known(is_claimed: bool) -> None:
    lives = Lives(1, {})
    lives.take(2, STARTED, B, {})
    if is_claimed:
        assert lives.take(2, CLAIMING, LATER, {}) == ({}, []), "it is not accepted yet"
        assert lives.known == {2: B} and not lives.counts(2) and not lives.fault(2)
    assert (lives.accept(2, LATER) if is_claimed else lives.take(2, STARTED, LATER, {})) == ({2: LATER}, [2])
    assert lives.known == {2: LATER} and lives.counts(2) is not is_claimed
    assert lives.take(2, STARTED, LATER, {}) == ({}, []) and lives.counts(2)
    lives.take(2, STARTED, B, {})
    assert not lives.counts(2) and lives.known == {2: LATER}
    assert not lives.fault(2), "it is told that it is superseded, and ends; nobody has to do anything"


def test_others_tell_of_a_later_life_and_what_shows_the_earlier_one_does_not_count() -> None:
    lives = Lives(1, {})
    lives.take(2, STARTED, B, {})
    assert lives.take(3, STARTED, C, {2: LATER}) == ({3: C, 2: LATER}, [2])
    assert not lives.counts(2) and lives.counts(3)
    lives.take(2, STARTED, LATER, {})
    assert lives.counts(2)


def test_who_has_not_heard_of_a_later_life_puts_nobody_out() -> None:
    lives = Lives(1, {2: LATER})
    lives.take(2, STARTED, LATER, {})
    assert lives.take(3, STARTED, C, {2: B}) == ({3: C}, [])
    assert lives.counts(2) and lives.known[2] == LATER


def test_two_directories_with_the_same_number_count_neither() -> None:
    lives = Lives(1, {2: LATER})
    lives.take(2, STARTED, LATER, {})
    assert lives.take(3, STARTED, C, {2: Life(2, B.store)}).superseded == []
    assert not lives.counts(2) and "not known for sure" in lives.fault(2)
    assert lives.take(2, STARTED, Life(3, A.store), {}) == ({2: Life(3, A.store)}, [2]) and lives.counts(2)


def test_a_node_whose_own_life_is_not_accepted_accepts_no_claim_but_merges_what_others_have() -> None:
    lives = Lives(1, {2: B})
    assert lives.take(2, CLAIMING, LATER, {}) == ({}, [])
    assert lives.known == {2: B} and not lives.counts(2)
    assert lives.take(3, STARTED, C, {2: LATER}) == ({3: C, 2: LATER}, [2])


@pytest.mark.parametrize("known", [LATER, Life(3, B.store), Life(2, B.store)])
def test_a_life_that_is_not_above_the_known_one_is_not_accepted_but_the_same_is_again(known: Life) -> None:
    lives = Lives(1, {2: known})
    assert lives.accept(2, LATER) == (({}, []) if known == LATER else None)
    assert lives.known == {2: known}


def test_who_teaches_has_heard_of_this_life_and_counts() -> None:
    lives = Lives(1, {})
    lives.take(2, STARTED, B, {1: A})
    assert not lives.may_teach(2, LATER) and not lives.may_teach(3, LATER)
    lives.take(2, STARTED, B, {1: LATER})
    assert lives.may_teach(2, LATER)
    lives.take(3, STARTED, C, {2: Life(2, OTHER.store)})
    assert not lives.may_teach(2, LATER)


def test_a_node_that_asks_with_an_empty_directory_supersedes_nothing() -> None:
    lives = Lives(1, {2: B})
    assert lives.take(2, ASKING, LATER, {}) == ({}, []) and lives.known == {2: B}


def test_a_later_life_that_could_not_be_written_does_not_count_and_the_earlier_one_neither() -> None:
    lives = Lives(1, {2: B})
    lives.take(2, STARTED, B, {})
    heard = lives.take(2, STARTED, LATER, {})
    lives.not_written(heard.lives)
    assert lives.known == {2: B} and not lives.counts(2)
    lives.take(2, STARTED, B, {})
    assert not lives.counts(2)
    assert lives.take(2, STARTED, LATER, {}) == ({2: LATER}, [2]) and lives.counts(2)


def test_a_node_is_denied_by_who_knows_a_later_life_and_not_by_who_knows_an_earlier_one() -> None:
    start = FirstStart(1, majority_of(range(1, 4)), LATER, begun=True)
    start.told(2, A)
    assert start.denied is None
    start.told(3, Life(3, C.store))
    assert start.denied == (3, Life(3, C.store))
