"""Claim, by plays: docs/lives.md, rules 9 to 16."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from dsreg.constants import NO_OWNER, NO_OWNER_ANY_MORE
from dsreg.protocol.configuration import Ballot, Configuration, Record, Vote
from dsreg.protocol.life import Life, Stage
from dsreg.protocol.messages import Accepted
from dsreg.register.claim import Adopted, Claim, adopted_promise
from dsreg.register.lives import Lives
from dsreg.register.quorum import Joint, Quorum, majority_of, mask

ASKING, CLAIMING, STARTED = Stage
A, B = b"a" * 64, b"b" * 64
NEW = Life(1, b"n" * 16)


def life(rank: int, number: int = 1) -> Life:
    return Life(number, bytes([rank, number]) * 8)


class Play:
    """The node 1 of `nodes`, with a new directory; the others know its rank by another one."""

    def __init__(self, nodes: int = 3, *, claimed: Life | None = None, quorum: Quorum | None = None) -> None:
        self.ranks = range(1, nodes + 1)
        self.known = life(1)
        self.lives = Lives(1, {})
        self.claim = Claim(
            1, quorum or majority_of(self.ranks), claimed or NEW, self.lives, claimed=claimed is not None,
            promise=(0, NO_OWNER),
        )

    def tells(
        self, rank: int, own: Life | None = None, stage: Stage = STARTED, knows: Life | None = None,
        others: Mapping[int, Life] | None = None,
    ) -> None:
        if others is None:
            others = {other: life(other) for other in self.ranks if other not in (1, rank)}
        self.lives.take(rank, stage, own or life(rank), {**others, 1: knows or self.known})

    def accepts(
        self, rank: int, own: Life | None = None, epoch: int = 0, owner: bytes = NO_OWNER, incarnation: int = 3,
        what: Life | None = None, record: Record | None = None,
    ) -> None:
        accepted = what or self.claim.own
        self.tells(rank, own, knows=accepted)
        self.claim.accepted(Accepted(rank, 1, accepted, own or life(rank), epoch, owner, incarnation, record))

    def claims(self) -> None:
        self.claim.claims(self.claim.due())

    def asked(self) -> Play:
        """As soon as it has claimed."""
        for rank in self.ranks[1:]:
            self.tells(rank)
        self.claims()
        return self


@pytest.mark.parametrize(("nodes", "needed"), [(2, 1), (3, 2), (4, 2), (5, 3), (7, 4)])
def test_so_many_have_to_tell_and_so_many_to_accept(nodes: int, needed: int) -> None:
    play = Play(nodes)
    for rank in range(2, needed + 2):
        assert play.claim.due() == 0 and str(needed) in play.claim.waits_for()
        play.tells(rank)
    assert play.claim.due() == 2
    play.claims()
    assert play.claim.stage is CLAIMING and play.claim.own == Life(2, NEW.store)
    for rank in range(2, needed + 2):
        assert play.claim.adopted() is None and "accepted its life 2" in play.claim.waits_for()
        play.accepts(rank)
    assert play.claim.adopted() == Adopted(0, NO_OWNER, 3) and play.claim.due() == 0


def test_alone_there_is_nobody_to_learn_from() -> None:
    play = Play(1)
    assert play.claim.due() == 0 and "no other node" in play.claim.waits_for()


def test_the_number_is_above_all_that_they_tell() -> None:
    play = Play(5)
    for rank, number in ((2, 3), (3, 7), (4, 1)):
        play.tells(rank, knows=life(1, number))
    assert play.claim.due() == 8


@pytest.mark.parametrize("stage", [ASKING, CLAIMING])
def test_only_those_that_have_started_are_heard(stage: Stage) -> None:
    play = Play()
    play.tells(2)
    play.tells(3, stage=stage)
    assert play.claim.due() == 0
    play.tells(3)
    assert play.claim.due() == 2
    play.tells(2, stage=stage, own=life(2, 1))
    assert play.claim.due() == 0, "what it knows it may have forgotten"


def test_what_an_earlier_life_has_told_does_not_count() -> None:
    play = Play()
    play.tells(2)
    play.tells(3)
    play.lives.accept(3, life(3, 2))
    assert play.claim.due() == 0
    play.tells(3, own=life(3, 2))
    assert play.claim.due() == 2


def test_nor_that_of_a_rank_whose_directory_is_not_sure() -> None:
    play = Play()
    play.tells(2)
    play.tells(3, others={2: Life(1, b"?" * 16)})
    assert play.claim.due() == 0


def test_a_rank_that_is_not_known_to_keep_lives_forbids_it() -> None:
    play = Play(5)
    for rank in (2, 3, 4):
        play.tells(rank, others={2: life(2), 3: life(3)} if rank == 4 else {})
    assert play.claim.without_lives() == [5] and play.claim.due() == 0 and "node 5 " in play.claim.waits_for()
    play.tells(4, others={5: life(5)})
    assert play.claim.without_lives() == [] and play.claim.due() == 2


def test_the_own_rank_need_not_be_known_any_more() -> None:
    """Who had heard of it has lost its own directory since."""
    play = Play()
    for rank in (2, 3):
        play.lives.take(rank, STARTED, life(rank), {5 - rank: life(5 - rank)})
    assert play.claim.without_lives() == [] and play.claim.due() == 2


def test_an_acceptance_of_an_earlier_life_does_not_count() -> None:
    play = Play().asked()
    play.accepts(2)
    play.lives.accept(2, life(2, 2))
    play.accepts(3)
    assert play.claim.adopted() is None
    play.accepts(2, own=life(2, 2))
    assert play.claim.adopted() is not None
    play.lives.accept(3, life(3, 2))
    assert play.claim.adopted() is None, "until it begins it may hear so"


def test_an_acceptance_of_another_directory_with_the_same_number_does_not_count() -> None:
    """Both have claimed the number, and the one that has accepted did not get it."""
    play = Play().asked()
    play.accepts(2)
    play.lives.accept(3, life(3, 2))
    play.tells(3, own=life(3, 2), knows=play.claim.own)
    play.claim.accepted(Accepted(3, 1, play.claim.own, Life(2, b"?" * 16), 0, NO_OWNER, 3))
    assert play.claim.adopted() is None
    play.accepts(3, own=life(3, 2))
    assert play.claim.adopted() is not None


def test_an_acceptance_is_of_a_life_and_an_id_and_of_a_rank() -> None:
    play = Play().asked()
    play.accepts(2)
    for what in (Life(1, NEW.store), Life(3, NEW.store), life(1, 2)):
        play.claim.accepted(Accepted(3, 1, what, life(3), 0, NO_OWNER, 3))
    play.claim.accepted(Accepted(3, 2, play.claim.own, life(3), 0, NO_OWNER, 3))
    assert play.claim.adopted() is None


def test_an_acceptance_before_its_lives_were_recorded_does_not_count() -> None:
    play = Play().asked()
    play.accepts(2)
    heard = play.lives.take(3, STARTED, life(3, 2), {})
    play.lives.not_written(heard.lives)
    play.claim.accepted(Accepted(3, 1, play.claim.own, life(3, 2), 0, NO_OWNER, 3))
    assert play.claim.adopted() is None


@pytest.mark.parametrize("number", [2, 3, 9])
def test_its_number_under_another_id_makes_it_claim_the_next_one(number: int) -> None:
    play = Play().asked()
    play.accepts(2)
    play.tells(3, knows=life(1, number))
    assert play.claim.adopted() is None and play.claim.due() == number + 1
    play.claims()
    play.tells(3, knows=life(1, number))
    assert play.claim.due() == 0, "that is below what it claims now"
    play.claim.accepted(Accepted(2, 1, Life(2, NEW.store), life(2), 0, NO_OWNER, 3))
    play.accepts(3)
    assert play.claim.adopted() is None, "one has accepted the number of before"
    play.accepts(2)
    assert play.claim.adopted() is not None


def test_a_claim_goes_on_where_it_was_killed() -> None:
    play = Play(claimed=Life(4, NEW.store))
    assert play.claim.stage is CLAIMING and play.claim.due() == 0
    play.accepts(2)
    play.accepts(3)
    assert play.claim.adopted() is not None


def test_what_is_promised_is_the_highest_and_what_one_says_of_the_owner() -> None:
    play = Play(5).asked()
    for rank, epoch, owner in ((2, 4, A), (3, 5, NO_OWNER), (4, 5, B)):
        play.accepts(rank, epoch=epoch, owner=owner, incarnation=rank)
    assert play.claim.adopted() == Adopted(5, B, 4)


def test_two_owners_of_the_highest_epoch_leave_nobody() -> None:
    play = Play(5).asked()
    for rank, owner in ((2, A), (3, NO_OWNER), (4, B)):
        play.accepts(rank, epoch=5, owner=owner)
    assert play.claim.adopted() == Adopted(5, NO_OWNER_ANY_MORE, 3)


@pytest.mark.parametrize(
    ("own", "told", "adopted"),
    [
        ((7, A), [(5, B)], (7, A)),
        ((5, A), [(5, B)], (5, NO_OWNER_ANY_MORE)),
        ((5, A), [(6, B), (5, A)], (6, B)),
        ((5, NO_OWNER), [(5, NO_OWNER)], (5, NO_OWNER)),
        ((0, NO_OWNER), [(5, NO_OWNER_ANY_MORE), (5, NO_OWNER)], (5, NO_OWNER_ANY_MORE)),
        ((0, NO_OWNER), [(5, NO_OWNER_ANY_MORE), (5, A)], (5, NO_OWNER_ANY_MORE)),
    ],
)
def test_adopted_promises(own: tuple[int, bytes], told: list[tuple[int, bytes]], adopted: tuple[int, bytes]) -> None:
    assert adopted_promise(own, told) == adopted


@pytest.mark.parametrize(("incarnation", "number"), [(1, 2), (4094, 2), (4095, 3), (20_000, 6), (0, 16), (70_000, 2)])
def test_a_life_whose_names_the_first_one_may_have_used_is_passed_over(incarnation: int, number: int) -> None:
    play = Play().asked()
    for rank in (2, 3):
        play.accepts(rank, incarnation=incarnation if rank == 2 else min(incarnation, 1))
    if number > 2:
        assert play.claim.adopted() is None and play.claim.due() == number
        play.claims()
        for rank in (2, 3):
            play.accepts(rank, incarnation=incarnation)
    assert play.claim.own.number == number and play.claim.due() == 0 and play.claim.adopted() is not None


@pytest.mark.parametrize(("one_set", "both"), [((2, 3), 4), ((3, 4, 5), 2)])
def test_while_members_are_changed_it_is_asked_of_each_set(one_set: tuple[int, ...], both: int) -> None:
    play = Play(5, quorum=Joint(majority_of((1, 2, 3)), majority_of(range(1, 6))))
    for rank in one_set:
        play.tells(rank)
        assert play.claim.due() == 0 and "3 must" in play.claim.waits_for()
    play.tells(both)
    play.claims()
    for rank in one_set:
        play.accepts(rank)
        assert play.claim.adopted() is None and "3 must" in play.claim.waits_for()
    play.accepts(both)
    assert play.claim.adopted() == Adopted(0, NO_OWNER, 3)


# --- configurations: docs/configurations.md, rule 10 -----------------------------------------------------
_FIRST = Configuration(1, 9, mask((1, 2, 3)), 0, mask((1, 2, 3)))
_JOINT = Configuration(2, 9, mask((1, 2, 3)), mask((1, 4, 5)), mask((1, 2, 3, 4, 5)))
_AFTER = Configuration(3, 9, mask((1, 4, 5)), 0, mask((1, 2, 3, 4, 5)))
_WITHOUT = Configuration(3, 9, mask((2, 3)), 0, mask((1, 2, 3)))
_LOW, _HIGH = Ballot(1, b"l" * 16), Ballot(2, b"h" * 16)


def test_each_set_of_the_latest_configuration_that_it_is_told_of_has_to_accept() -> None:
    play = Play(5, quorum=majority_of((1, 2, 3))).asked()
    play.accepts(2, record=Record(_FIRST))
    play.accepts(3, record=Record(_JOINT))
    assert play.claim.adopted() is None, "nobody of the later set but this node"
    play.accepts(4, record=Record(_FIRST))
    play.accepts(5, record=Record(_JOINT))
    adopted = play.claim.adopted()
    assert adopted is not None and adopted.record == Record(_JOINT)


def test_also_those_of_the_configuration_in_force_here_have_to() -> None:
    play = Play(5, quorum=majority_of((1, 2, 3))).asked()
    play.accepts(2, record=Record(_FIRST))
    play.accepts(3, record=Record(_FIRST))
    assert play.claim.adopted() is not None
    play.claim.reconfigured(majority_of((1, 4, 5)))
    assert play.claim.adopted() is None
    for rank in (4, 5):
        play.accepts(rank, record=Record(_FIRST))
    assert play.claim.adopted() is not None
    assert play.claim.adopted().record == Record(_FIRST)  # type: ignore[union-attr]


def test_it_takes_over_the_latest_and_the_highest_ballot_and_vote_of_those_that_know_it() -> None:
    play = Play(3).asked()
    vote = Vote(_LOW, _JOINT)
    play.accepts(2, record=Record(_FIRST, _HIGH))
    play.accepts(3, record=Record(_FIRST, _LOW, vote))
    assert play.claim.adopted() == Adopted(0, NO_OWNER, 3, Record(_FIRST, _HIGH, vote))


def test_what_a_lost_directory_had_voted_for_is_not_taken_over() -> None:
    four = _FIRST._replace(ranks=mask((1, 2, 3, 4)), used=mask((1, 2, 3, 4)))
    play = Play(4).asked()
    play.accepts(2, record=Record(four, _HIGH))
    play.tells(4, others={2: life(2, 2), 3: life(3)})
    play.accepts(3, record=Record(four))
    assert play.claim.adopted() is None
    play.accepts(4, record=Record(four, _LOW))
    assert play.claim.adopted() == Adopted(0, NO_OWNER, 3, Record(four, _LOW))


def test_who_is_no_member_any_more_rejoins_no_more() -> None:
    play = Play(3).asked()
    for rank in (2, 3):
        play.accepts(rank, record=Record(_WITHOUT))
    assert play.claim.adopted() is None
    play.claim.reconfigured(majority_of((2, 3)))
    assert play.claim.adopted() is None and "no member of the cluster" in play.claim.waits_for()
