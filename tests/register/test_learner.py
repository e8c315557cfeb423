"""When a node that learns has something to do; what it learns: test_learning.py."""

from __future__ import annotations

import math

import pytest

from dsreg.constants import MAX_RUN_SECTORS
from dsreg.protocol.messages import Digests
from dsreg.register.digests import UNKNOWN
from dsreg.register.learner import RETRY_S
from dsreg.runs import Runs
from tests.register.heal_play import CHUNKS, SECTORS
from tests.register.learning_play import Learning, new_learner


def test_nothing_is_due_while_what_was_found_is_being_looked_at() -> None:
    """Who is called again and again until it is known does nothing else."""
    learner, _ = new_learner()
    assert learner.due([2, 3], True, 0.0) == (0, CHUNKS)
    for rank in (2, 3):
        learner.answered(Digests(rank, 1, 0, CHUNKS, CHUNKS, {0: bytes(16)}), 0.0)
    assert learner.next({}) == 0 and learner.left
    assert learner.due([2, 3], False, 0.0) is None and learner.next_due() == math.inf
    assert learner.due([2, 3], True, 0.0) is None and learner.next_due() == RETRY_S


@pytest.mark.parametrize("beyond", [bytes(16), UNKNOWN])
def test_nothing_is_learned_of_chunks_that_one_has_not_told_of(beyond: bytes) -> None:
    """One answers for more chunks than the other; what it has there says nothing of those before."""
    learner, learned = new_learner(10 * MAX_RUN_SECTORS)
    assert learner.due([2, 3], True, 0.0) == (0, 10)
    learner.answered(Digests(2, 1, 0, 10, 10, {8: beyond}), 0.0)
    learner.answered(Digests(3, 1, 0, 4, 4, {}), 0.0)
    assert learned.chunks(0) == (4, 10) and learner.left == 6 * MAX_RUN_SECTORS
    assert learner.next({}) is None
    assert learner.due([2, 3], True, 0.0) == (4, 6)


def test_what_one_has_answered_before_is_no_answer_to_the_next_question() -> None:
    learner, learned = new_learner(10 * MAX_RUN_SECTORS)
    assert learner.due([2, 3], True, 0.0) == (0, 10)
    learner.answered(Digests(2, 1, 0, 4, 4, {}), 0.0)
    learner.answered(Digests(3, 1, 0, 4, 10, {}), 0.0)
    assert learner.due([2, 3], True, 0.0) == (4, 6)
    learner.answered(Digests(2, 2, 4, 6, 10, {}), 0.0)
    learner.unanswered(3, 0.0)
    assert learned.chunks(0) == (4, 10) and learner.next_due() == RETRY_S


def test_a_node_whose_directory_turns_out_to_be_lost_learns_as_well_and_compares_then() -> None:
    play = Learning(teach=(2, 3))
    play.storage.learning.learned(0, SECTORS)
    assert not play.left
    play.storage.learning.know(Runs())
    play.link(2, 3)
    play.all()
    assert not play.left and play.in_sync(2, 3)
