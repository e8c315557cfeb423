"""Marks: what is heard of the states of directories, and what follows from it for a node's own."""

from __future__ import annotations

from dsreg.protocol.life import Life, Stage
from dsreg.protocol.messages import LivesReport
from dsreg.register.lives import Lives
from dsreg.register.marks import DirectoryCheck, Marks
from dsreg.register.quorum import majority_of

OWN, LATER = Life(1, b"a" * 16), Life(2, b"z" * 16)


def life(rank: int) -> Life:
    return Life(1, bytes([rank]) * 16)


class Play:
    """The node 1 of `nodes`, whose directory has the mark `mark`."""

    def __init__(self, mark: int, *, nodes: int = 3) -> None:
        ranks = range(1, nodes + 1)
        self.lives = Lives(1, {rank: life(rank) for rank in ranks if rank != 1})
        self.check = DirectoryCheck(1, majority_of(ranks), OWN, mark)

    def told(
        self, rank: int, mark: int, stage: Stage = Stage.STARTED, *, own: Life | None = None, of: Life | None = OWN,
        its: int = 1, configures: bool = False,
    ) -> None:
        """The node `rank`, with the mark `its`, has heard of this mark of the life `of` of node 1. `configures`: it is
        yet to say which nodes decide."""
        known = {} if of is None else {1: of}
        report = LivesReport(rank, True, stage, own or life(rank), known, its, {1: mark} if mark else {})
        self.lives.take(rank, stage, report.own, report.known)
        self.check.told(report, self.lives, configures=configures)

    @property
    def outcome(self) -> str:
        return "older" if self.check.is_older else "serves" if self.check.is_passed else "waits"


def test_it_serves_once_a_majority_with_it_knows_of_no_later_state() -> None:
    play = Play(5, nodes=5)
    assert play.outcome == "waits"
    play.told(2, 5)
    play.told(2, 4)
    assert play.outcome == "waits"
    play.told(3, 0)  # it has heard of no mark
    assert play.outcome == "serves"


def test_who_is_to_say_which_nodes_decide_counts_once_it_has_and_is_one_of_them() -> None:
    play = Play(5)
    play.told(2, 5, configures=True)
    assert play.outcome == "waits" and "0 of them have, 1 must" in play.check.waits_for()
    play.check.reconfigured(majority_of(range(1, 6)))  # it says that there are five
    play.check.told_configuration(2)
    assert play.outcome == "waits" and "1 of them have, 2 must" in play.check.waits_for()
    play.check.reconfigured(majority_of((1, 3, 4)))
    assert play.outcome == "waits" and "0 of them have, 1 must" in play.check.waits_for()
    play.told(3, 5, configures=True)
    play.check.told_configuration(3)
    assert play.outcome == "serves"


def test_one_that_has_heard_of_a_later_state_is_enough_at_any_time() -> None:
    play = Play(5)
    play.told(2, 6)
    assert play.outcome == "older"
    late = Play(5)
    late.told(2, 5)
    assert late.outcome == "serves"
    late.told(3, 6)
    assert late.outcome == "older", "the one that was asked had not heard of it"


def test_who_waits_itself_tells_as_well() -> None:
    play = Play(5)
    play.told(2, 5, Stage.ASKING)
    assert play.outcome == "serves"


def test_who_has_forgotten_what_it_heard_does_not_count() -> None:
    empty = Life(1, b"e" * 16)
    for stage, own in ((Stage.ASKING, empty), (Stage.CLAIMING, Life(2, b"e" * 16)), (Stage.CLAIMING, life(2))):
        play = Play(5)
        play.told(2, 0, stage, own=own, of=None, its=0)
        assert play.outcome == "waits", (stage, own)


def test_who_was_never_met_counts_once_it_has_served_with_its_directory() -> None:
    play = Play(5)
    play.lives.known.clear()
    play.told(2, 0, Stage.ASKING, its=0)
    assert play.outcome == "waits", "it may be new, or empty"
    play.told(2, 0, Stage.ASKING, its=3)
    assert play.outcome == "serves"


def test_marks_of_another_life_say_nothing() -> None:
    play = Play(5)
    play.told(2, 9, of=Life(1, b"b" * 16))
    assert play.outcome == "serves"


def test_nodes_that_speak_the_contract_have_heard_nothing() -> None:
    play = Play(5)
    play.check.speaks_contract(3)
    assert play.outcome == "serves"


def test_one_node_alone_asks_nobody() -> None:
    assert Play(5, nodes=1).outcome == "serves"


def test_of_a_new_life_nothing_was_heard() -> None:
    play = Play(5)
    play.told(2, 6)
    play.check.claims(LATER)
    play.told(2, 5, of=LATER)
    assert play.outcome == "serves"
    play.told(2, 6, of=LATER)
    assert play.outcome == "older"


# --- of others ------------------------------------------------------------------------------------
def test_the_highest_mark_of_each_life_is_kept_and_passed_on() -> None:
    marks, known = Marks(1, {}), {2: life(2), 3: life(3)}
    assert marks.take(LivesReport(2, True, Stage.STARTED, life(2), {1: OWN, 3: life(3)}, 7, {1: 9, 3: 4}), known)
    assert marks.told(known) == {2: 7, 3: 4}
    assert not marks.take(LivesReport(2, True, Stage.STARTED, life(2), {3: life(3)}, 6, {3: 4}), known)
    assert marks.take(LivesReport(3, True, Stage.STARTED, life(3), {}, 5, {}), known)
    assert marks.told(known) == {2: 7, 3: 5}
    assert Marks(1, marks.heard).told(known) == {2: 7, 3: 5}


def test_a_later_life_has_marks_of_its_own() -> None:
    marks = Marks(1, {2: (life(2), 7)})
    known = {2: LATER}
    assert marks.told(known) == {}
    assert not marks.take(LivesReport(3, True, Stage.STARTED, life(3), {2: life(2)}, 0, {2: 9}), known)
    assert marks.take(LivesReport(2, True, Stage.STARTED, LATER, {}, 1, {}), known)
    assert marks.told(known) == {2: 1}
