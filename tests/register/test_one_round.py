"""The rule for reads of one round."""

from __future__ import annotations

import pytest

from dsreg.protocol.tags import ATTACHED, pack_tag, ts_of
from dsreg.register.one_round import may_return
from dsreg.register.quorum import Joint, majority_of, mask

THREE = majority_of((1, 2, 3))
OLD = pack_tag(7, 1)
# Under epoch 3: a write of it, and an older one that was restamped to it; and one that was left in epoch 2.
MINE, RAISED = pack_tag(ts_of(3, 5), ATTACHED, 0, 3), pack_tag(7, 1, 0, 3)
LEFT = pack_tag(ts_of(2, 9), ATTACHED, 0, 2)


@pytest.mark.parametrize(
    ("tags", "epoch", "agreeing", "expected"),
    [
        (OLD, 0, (1,), False), (OLD, 0, (1, 3), True), (OLD, 0, (1, 2, 3), True), (LEFT, 0, (1, 3), True),
        (MINE, 3, (1, 2), True), (RAISED, 3, (1, 2), True), (MINE, 3, (1,), False),
        # Of an older epoch, or of none: the third may have something newer.
        (LEFT, 3, (1, 2), False), (OLD, 3, (1, 2), False), (LEFT + MINE, 3, (1, 2), False),
        (RAISED + MINE, 3, (1, 2), True), (LEFT, 3, (1, 2, 3), True), (OLD + MINE, 3, (1, 2, 3), True),
        (MINE, 3, (1, 4), False), (LEFT, 3, (1, 2, 4), False),
    ],
)
def test_of_three_nodes(tags: bytes, epoch: int, agreeing: tuple[int, ...], expected: bool) -> None:
    assert may_return(THREE, mask(agreeing), tags, epoch) is expected


def test_a_joint_quorum_takes_both_sets() -> None:
    joint = Joint(THREE, majority_of((3, 4, 5)))
    assert not may_return(joint, mask((1, 2, 3)), OLD, 0) and may_return(joint, mask((1, 2, 4, 5)), OLD, 0)
    assert not may_return(joint, mask((1, 2, 3, 4)), LEFT, 3) and may_return(joint, joint.members, LEFT, 3)


def test_nodes_that_are_not_known_never_agree() -> None:
    assert may_return(majority_of((1, 2), 3), mask((1, 2)), OLD, 0)
    assert not may_return(majority_of((1, 2), 3), mask((1, 2)), OLD, 3)
