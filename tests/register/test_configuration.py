"""Numbered configurations: what may follow one, how a node votes, and that one is chosen for a number.

The rules: docs/configurations.md; every interleaving in the small: test_configurations_rule.py.
"""

from __future__ import annotations

import itertools
import random

import pytest

from dsreg.protocol.choosing import Ask, Elect, Later, Objection, Outbid, Promised, Voted
from dsreg.protocol.configuration import (
    NO_BALLOT,
    Ballot,
    Configuration,
    Record,
    Vote,
    pack_configuration,
    unpack_configuration,
)
from dsreg.register.configuration import (
    Goal,
    Voter,
    next_for,
    objection,
    quorum_of,
    rejoined,
)
from dsreg.register.proposal import Chosen, Preempted, Proposal, next_round
from dsreg.register.quorum import bit, mask, ranks_in

THREE, FIVE = mask((1, 2, 3)), mask((1, 2, 3, 4, 5))
FIRST = Configuration(1, 100, THREE, 0, THREE)
JOINT = Configuration(2, 100, THREE, FIVE, FIVE)
AFTER = Configuration(3, 100, FIVE, 0, FIVE)
LARGER = Configuration(2, 200, THREE, 0, THREE)


def ballot(round: int, proposer: int = 1) -> Ballot:
    return Ballot(round, bytes([proposer]) * 16)


# --- what may follow ----------------------------------------------------------------------------------
def test_from_three_to_five_and_back_by_joint_sets() -> None:
    grown = Goal(FIVE, 100)
    assert next_for(FIRST, grown) == JOINT and next_for(JOINT, grown) == AFTER and next_for(AFTER, grown) is None
    shrunk = Goal(THREE, 100)
    back = Configuration(4, 100, FIVE, THREE, FIVE)
    assert next_for(AFTER, shrunk) == back and next_for(back, shrunk) == Configuration(5, 100, THREE, 0, FIVE)
    for one, two in itertools.pairwise((FIRST, JOINT, AFTER, back)):
        assert objection(one, two) == ""


def test_what_is_joint_can_be_cancelled() -> None:
    before = next_for(JOINT, Goal(FIVE, 100, cancels=True))
    assert before == Configuration(3, 100, THREE, 0, FIVE) and objection(JOINT, before) == ""
    assert next_for(FIRST, Goal(FIVE, 100, cancels=True)) is None


def test_the_size_changes_at_once() -> None:
    assert next_for(FIRST, Goal(THREE, 200)) == LARGER and objection(FIRST, LARGER) == ""


def test_members_first_then_the_size() -> None:
    assert next_for(FIRST, Goal(FIVE, 200)) == JOINT
    assert next_for(AFTER, Goal(FIVE, 200)) == Configuration(4, 200, FIVE, 0, FIVE)


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        (FIRST, FIRST, "does not follow"),
        (FIRST, AFTER, "does not follow"),
        (FIRST, LARGER._replace(sectors=99), "cannot shrink"),
        (FIRST, Configuration(2, 100, FIVE, 0, FIVE), "by a joint configuration"),
        (FIRST, JOINT._replace(sectors=200), "by itself"),
        (FIRST, JOINT._replace(used=THREE | FIVE | bit(9)), "ever used"),
        (FIRST._replace(used=FIVE), JOINT, "never used again: 4, 5"),
        (AFTER, Configuration(4, 100, FIVE, THREE, THREE), "ever used"),
        (JOINT, AFTER._replace(sectors=200), "nothing else"),
        (JOINT, AFTER._replace(joining=THREE), "nothing else"),
        (JOINT, AFTER._replace(ranks=mask((1, 2))), "one of them"),
    ],
)
def test_objections(before: Configuration, after: Configuration, why: str) -> None:
    assert why in objection(before, after)


def test_who_decides() -> None:
    assert quorum_of(FIRST).decided(mask((1, 3))) and not quorum_of(FIRST).decided(mask((1, 4)))
    assert quorum_of(JOINT).decided(mask((1, 3, 4))) and not quorum_of(JOINT).decided(mask((1, 4, 5)))
    assert not quorum_of(JOINT).decided(mask((1, 2))) and quorum_of(AFTER).decided(mask((1, 4, 5)))


def test_bytes_of_a_configuration() -> None:
    for configuration in (FIRST, JOINT, AFTER, LARGER):
        raw = pack_configuration(configuration)
        assert len(raw) == 112 and unpack_configuration(raw) == configuration


@pytest.mark.parametrize(
    "impossible",
    [
        FIRST._replace(number=0), FIRST._replace(sectors=0), FIRST._replace(sectors=2**63),
        FIRST._replace(ranks=0), FIRST._replace(used=mask((1, 2))), JOINT._replace(joining=THREE),
        FIRST._replace(ranks=THREE | 1, used=THREE | 1), FIRST._replace(used=THREE | 1 << 255),
    ],
)
def test_what_no_configuration_can_be_is_not_taken(impossible: Configuration) -> None:
    assert unpack_configuration(pack_configuration(impossible)) is None


# --- one node -----------------------------------------------------------------------------------------
def test_a_promise_refuses_lower_ballots_and_tells_the_vote() -> None:
    voter = Voter(1, Record(FIRST))
    record, answer = voter.ask(FIRST, ballot(2))
    assert (record, answer) == (Record(FIRST, ballot(2)), Promised(None))
    voter.record = record
    assert voter.ask(FIRST, ballot(1)) == (record, Outbid(ballot(2)))
    assert voter.vote(FIRST, ballot(1), JOINT, has_learned=True) == (record, Outbid(ballot(2)))
    voted, answer = voter.vote(FIRST, ballot(2), JOINT, has_learned=True)
    assert (voted, answer) == (Record(FIRST, ballot(2), Vote(ballot(2), JOINT)), Voted())
    voter.record = voted
    assert voter.ask(FIRST, ballot(3)) == (voted._replace(promised=ballot(3)), Promised(Vote(ballot(2), JOINT)))


def test_the_same_again_is_answered_the_same() -> None:
    voter = Voter(1, Record(FIRST, ballot(2), Vote(ballot(2), JOINT)))
    assert voter.vote(FIRST, ballot(2), JOINT, has_learned=True) == (voter.record, Voted())
    assert voter.ask(FIRST, ballot(2)) == (voter.record, Promised(voter.record.voted))


def test_questions_about_another_number() -> None:
    voter = Voter(1, Record(JOINT))
    assert voter.ask(FIRST, ballot(9)) == (Record(JOINT), Later(JOINT))
    with pytest.raises(AssertionError, match="hear of it first"):
        voter.ask(AFTER, ballot(9))


def test_who_was_made_for_another_number_one_does_not_vote() -> None:
    voter = Voter(1, Record(FIRST._replace(sectors=99)))
    for record, answer in (voter.ask(FIRST, ballot(9)), voter.vote(FIRST, ballot(9), JOINT, has_learned=True)):
        assert record == voter.record and isinstance(answer, Objection) and "cluster.toml differs" in answer.reason


def test_what_was_promised_is_for_one_number() -> None:
    voter = Voter(1, Record(FIRST, ballot(7), Vote(ballot(7), LARGER)))
    assert voter.heard(JOINT) == Record(JOINT)
    assert voter.heard(FIRST) is None


def test_a_new_member_votes_for_the_new_ones_alone_once_it_has_learned() -> None:
    for rank in (3, 4):
        voter = Voter(rank, Record(JOINT))
        record, answer = voter.vote(JOINT, ballot(1), AFTER, has_learned=False)
        assert record == voter.record and isinstance(answer, Objection) and "data" in answer.reason
        assert voter.vote(JOINT, ballot(1), AFTER, has_learned=True)[1] == Voted()


def test_who_is_a_member_of_before_alone_need_not_learn_nor_who_cancels() -> None:
    leaving = Configuration(2, 100, FIVE, THREE, FIVE)
    alone = Configuration(3, 100, THREE, 0, FIVE)
    assert Voter(5, Record(leaving)).vote(leaving, ballot(1), alone, has_learned=False)[1] == Voted()
    assert isinstance(Voter(3, Record(leaving)).vote(leaving, ballot(1), alone, has_learned=False)[1], Objection)
    back = alone._replace(ranks=FIVE)
    assert Voter(3, Record(leaving)).vote(leaving, ballot(1), back, has_learned=False)[1] == Voted()


def test_who_is_no_member_does_not_vote() -> None:
    assert isinstance(Voter(4, Record(FIRST)).ask(FIRST, ballot(1))[1], Objection)
    assert isinstance(Voter(4, Record(FIRST)).vote(FIRST, ballot(1), LARGER, has_learned=True)[1], Objection)


def test_what_must_not_follow_has_no_vote() -> None:
    voter = Voter(1, Record(FIRST))
    record, answer = voter.vote(FIRST, ballot(1), LARGER._replace(sectors=1), has_learned=True)
    assert record == voter.record and answer == Objection("a disk cannot shrink, from 100 sectors to 1")


def test_what_a_node_takes_over_that_has_lost_its_directory() -> None:
    before = Record(FIRST, ballot(9), Vote(ballot(9), LARGER))
    one = Record(JOINT, ballot(4), Vote(ballot(1), AFTER))
    two = Record(JOINT, ballot(3), Vote(ballot(2), AFTER))
    assert rejoined([before, one, two]) == Record(JOINT, ballot(4), Vote(ballot(2), AFTER))
    assert rejoined([Record(FIRST)]) == Record(FIRST, NO_BALLOT, None)


# --- a proposal ---------------------------------------------------------------------------------------
def test_both_phases_of_a_proposal() -> None:
    proposal = Proposal(FIRST, Goal(FIVE, 100), 3, b"p" * 16)
    tried = Ballot(3, b"p" * 16)
    assert proposal.question == Ask(FIRST, tried) and proposal.unanswered == THREE
    assert proposal.answer(1, Ask(FIRST, tried), Promised(None)) is None and proposal.unanswered == mask((2, 3))
    assert proposal.answer(2, Ask(FIRST, tried), Promised(None)) is None
    elect = Elect(FIRST, tried, JOINT)
    assert proposal.question == elect and proposal.unanswered == THREE
    assert proposal.answer(3, Ask(FIRST, tried), Promised(None)) is None, "late, and of the phase before"
    assert proposal.answer(3, elect, Voted()) is None
    assert proposal.answer(1, elect, Voted()) == Chosen(JOINT)


def test_it_goes_on_with_the_vote_of_the_highest_ballot() -> None:
    proposal = Proposal(FIRST, Goal(FIVE, 100), 3, b"p" * 16)
    other = LARGER._replace(sectors=300)
    proposal.answer(1, proposal.question, Promised(Vote(ballot(1), other)))
    proposal.answer(3, proposal.question, Promised(Vote(ballot(2), LARGER)))
    assert proposal.question == Elect(FIRST, Ballot(3, b"p" * 16), LARGER)


def test_who_knows_more_ends_it() -> None:
    proposal = Proposal(FIRST, Goal(FIVE, 100), 3, b"p" * 16)
    assert proposal.answer(1, proposal.question, Later(AFTER)) == Chosen(AFTER)
    assert proposal.answer(1, proposal.question, Outbid(ballot(8))) == Preempted(ballot(8))
    assert next_round(ballot(8)) == 9
    assert proposal.unanswered == THREE


def test_an_objection_is_kept_for_people_until_the_node_votes() -> None:
    proposal = Proposal(JOINT, Goal(FIVE, 100), 1, b"p" * 16)
    for rank in (1, 2, 4):
        proposal.answer(rank, proposal.question, Promised(None))
    proposal.answer(4, proposal.question, Objection("not yet"))
    assert proposal.objections == {4: "not yet"} and proposal.unanswered == FIVE
    proposal.answer(4, proposal.question, Voted())
    assert proposal.objections == {} and proposal.unanswered == mask((1, 2, 3, 5))


def test_what_a_lost_directory_has_answered_does_not_count() -> None:
    proposal = Proposal(FIRST, Goal(FIVE, 100), 1, b"p" * 16)
    proposal.answer(1, proposal.question, Promised(Vote(ballot(0, 9), LARGER)))
    proposal.discount(1)
    for rank in (2, 3):
        proposal.answer(rank, proposal.question, Promised(None))
    assert proposal.question == Elect(FIRST, Ballot(1, b"p" * 16), JOINT)
    proposal.answer(1, proposal.question, Voted())
    proposal.discount(1)
    assert proposal.answer(2, proposal.question, Voted()) is None
    assert proposal.answer(3, proposal.question, Voted()) == Chosen(JOINT)


# --- all of them, in any order ------------------------------------------------------------------------
class Election:
    """Voters, and proposers with goals that exclude each other. Messages are lost, late, and come twice."""

    GOALS = (
        Goal(FIVE, 100), Goal(mask((1, 2, 6)), 100), Goal(THREE, 300), Goal(THREE, 200), Goal(FIVE, 100, cancels=True)
    )

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.first = self.random.choice((FIRST, JOINT))
        self.voters = {rank: Voter(rank, Record(self.first)) for rank in ranks_in(FIVE | bit(6))}
        self.chosen = {self.first.number: self.first}
        self.proposals: list[Proposal] = []
        self.sent: list[tuple[Proposal, int, Ask | Elect]] = []
        self.answers: list[tuple[Proposal, int, Ask | Elect, object]] = []

    def step(self) -> None:
        what = self.random.random()
        if what < 0.05 or not self.proposals:
            self._propose()
        elif what < 0.4:
            proposal = self.random.choice(self.proposals)
            self.sent += [(proposal, rank, proposal.question) for rank in ranks_in(proposal.unanswered)]
        elif what < 0.7 and self.sent:
            self._deliver(*self._picked(self.sent))
        elif self.answers:
            proposal, rank, question, answer = self._picked(self.answers)
            outcome = proposal.answer(rank, question, answer)
            if isinstance(outcome, Chosen):
                self._is_chosen(outcome.configuration)
            if outcome is not None and proposal in self.proposals:
                self.proposals.remove(proposal)
        if what > 0.97:
            voter = self.random.choice(list(self.voters.values()))
            voter.record = voter.heard(self.random.choice(list(self.chosen.values()))) or voter.record

    def _picked(self, messages: list) -> tuple:
        at = self.random.randrange(len(messages))
        return messages[at] if self.random.random() < 0.3 else messages.pop(at)

    def _propose(self) -> None:
        base = self.random.choice(list(self.chosen.values()))
        goal = self.random.choice(self.GOALS)
        wish = next_for(base, goal)
        if wish is not None and not objection(base, wish):
            self.proposals.append(Proposal(base, goal, self.random.randrange(1, 9), self.random.randbytes(16)))

    def _deliver(self, proposal: Proposal, rank: int, question: Ask | Elect) -> None:
        voter = self.voters[rank]
        voter.record = voter.heard(question.base) or voter.record
        if isinstance(question, Ask):
            voter.record, answer = voter.ask(question.base, question.ballot)
        else:
            voter.record, answer = voter.vote(
                question.base, question.ballot, question.following, has_learned=self.random.random() < 0.7
            )
        self.answers.append((proposal, rank, question, answer))

    def _is_chosen(self, configuration: Configuration) -> None:
        before = self.chosen.setdefault(configuration.number, configuration)
        assert before == configuration, f"{before} and {configuration}"


def played(seeds: range) -> int:
    """How many configurations were chosen."""
    chosen = 0
    for seed in seeds:
        election = Election(seed)
        try:
            for _ in range(500):
                election.step()
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error
        chosen += len(election.chosen) - 1
    return chosen


def test_one_configuration_is_chosen_for_a_number() -> None:
    assert played(range(150)) > 100


@pytest.mark.parametrize("bug", ["lower ballots", "votes not heeded", "promise not kept", "one side"])
def test_each_rule_of_choosing_is_needed(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if bug == "lower ballots":
        refusal = Voter._refusal
        monkeypatch.setattr(Voter, "_refusal", lambda self, base, ballot: (
            None if isinstance(found := refusal(self, base, ballot), Outbid) else found
        ))
    elif bug == "votes not heeded":
        ask = Voter.ask
        monkeypatch.setattr(Voter, "ask", lambda self, base, ballot: (
            (found := ask(self, base, ballot))[0],
            Promised(None) if isinstance(found[1], Promised) else found[1],
        ))
    elif bug == "promise not kept":
        ask_and_keep = Voter.ask
        monkeypatch.setattr(
            Voter, "ask", lambda self, base, ballot: (self.record, ask_and_keep(self, base, ballot)[1])
        )
    else:
        monkeypatch.setattr("dsreg.register.proposal.quorum_of", _Any)
    with pytest.raises(AssertionError, match="seed"):
        played(range(400))


class _Any:
    """A majority of either set."""

    def __init__(self, base: Configuration) -> None:
        sets = (base.ranks, base.joining or base.ranks)
        self.sides = [quorum_of(base._replace(ranks=ranks, joining=0)) for ranks in sets]

    def decided(self, answers: int) -> bool:
        return any(side.decided(answers) for side in self.sides)
