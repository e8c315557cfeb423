"""The way of configurations to what somebody wants, and when it is left."""

from __future__ import annotations

from dsreg.protocol.configuration import Configuration
from dsreg.register.configuration import Goal
from dsreg.register.course import Course, goal_of
from dsreg.register.quorum import mask

THREE, FIVE, TWO = mask((1, 2, 3)), mask((1, 2, 3, 4, 5)), mask((1, 2))
FIRST = Configuration(1, 64, THREE, 0, THREE)
JOINT = Configuration(2, 64, THREE, FIVE, FIVE)
ALL = Configuration(3, 64, FIVE, 0, FIVE)
LEFT = Configuration(5, 64, THREE, 0, FIVE)


def test_what_is_wanted() -> None:
    assert goal_of(FIRST, mask((4, 5)), 0) == goal_of(JOINT, mask((4, 5)), 0) == Goal(FIVE, 64)
    assert goal_of(ALL, 0, mask((4, 5))) == Goal(THREE, 64) and goal_of(ALL, mask((4,)), 0) == Goal(FIVE, 64)
    assert "no node would be left" in str(goal_of(FIRST, 0, THREE))
    assert "never used again, and 4 was" in str(goal_of(LEFT, mask((4,)), 0))
    assert isinstance(goal_of(LEFT, mask((6,)), 0), Goal)


def test_while_members_are_changed_only_that_goes_on() -> None:
    for add, remove in ((mask((4,)), 0), (mask((4, 5)), mask((3,))), (0, mask((3,))), (0, 0)):
        assert "from 1 2 3 to 1 2 3 4 5" in str(goal_of(JOINT, add, remove))


def test_the_way_there_and_the_way_back() -> None:
    course = Course(FIRST, Goal(FIVE, 64))
    assert course.following == JOINT and course.chosen(JOINT)
    assert course.following == ALL and course.chosen(ALL) and course.following is None
    back = Course(JOINT, Goal(THREE, 64, cancels=True))
    cancelled = Configuration(3, 64, THREE, 0, FIVE)
    assert back.following == cancelled and back.chosen(cancelled) and back.following is None


def test_another_one_may_have_gone_the_same_way() -> None:
    course = Course(FIRST, Goal(FIVE, 64))
    assert course.chosen(ALL) and course.following is None and course.chosen(ALL)


def test_what_another_one_has_chosen_ends_it() -> None:
    course = Course(FIRST, Goal(TWO, 64))
    assert not course.chosen(JOINT) and not course.chosen(ALL) and not course.chosen(LEFT)
    assert course.current == FIRST
    course = Course(JOINT, Goal(FIVE, 64))
    assert not course.chosen(Configuration(3, 64, THREE, 0, FIVE)) and not course.chosen(FIRST)
