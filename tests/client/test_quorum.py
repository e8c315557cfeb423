"""What a majority that the client counts has come to."""

from __future__ import annotations

import pytest

from dsreg.client.quorum import Tally, Verdict
from dsreg.protocol.messages import CommandKind, Response, Status
from dsreg.protocol.tags import ATTACHED, pack_tag, ts_of
from dsreg.register.quorum import Joint, majority_of, mask

GET, PUT = CommandKind.GET, CommandKind.PUT
WAIT, DONE, ASK_ALL, GIVE_UP = Verdict
OLD, NEW = pack_tag(7, 1), pack_tag(8, 2)
# Under epoch 3: a write of it, and an older one that was restamped to it; and one that was left in epoch 2.
MINE, RESTAMPED = pack_tag(ts_of(3, 5), ATTACHED, 0, 3), pack_tag(7, 1, 0, 3)
LEFT = pack_tag(ts_of(2, 9), ATTACHED, 0, 2)


def quorum(kind: CommandKind, answers: list[tuple[bytes, bool]], nodes: int = 3, epoch: int = 0,
           asked: int | None = None) -> Tally:
    """`answers`: tags, and whether values came along."""
    made = Tally(kind, majority_of(range(1, nodes + 1)), epoch)
    made.asked = mask(range(1, (len(answers) if asked is None else asked) + 1))
    for rank, (tags, values) in enumerate(answers, 1):
        made.add(rank, Response(Status.OK, kind, rank, tags, b"v" * 4096 if values else b"", True))
    return made


def open_ranks(answered: int, outstanding: int) -> range:
    """The next ones after those that have answered."""
    return range(answered + 1, answered + outstanding + 1)


@pytest.mark.parametrize(
    ("nodes", "answers", "outstanding", "verdict"),
    [
        (3, 0, 3, WAIT), (3, 0, 2, WAIT), (3, 0, 1, GIVE_UP), (3, 1, 1, WAIT), (3, 1, 0, GIVE_UP), (3, 2, 1, DONE),
        (3, 2, 0, DONE), (5, 2, 3, WAIT), (5, 2, 0, GIVE_UP), (5, 3, 2, DONE), (1, 0, 1, WAIT), (1, 1, 0, DONE),
        (4, 2, 1, WAIT), (4, 2, 0, GIVE_UP), (4, 3, 1, DONE),
    ],
)
def test_a_put_is_done_at_a_majority(nodes: int, answers: int, outstanding: int, verdict: Verdict) -> None:
    assert quorum(PUT, [(b"", False)] * answers, nodes, epoch=3).verdict(open_ranks(answers, outstanding)) is verdict


@pytest.mark.parametrize(
    ("answers", "outstanding", "verdict"),
    [
        ([], 2, WAIT), ([], 1, GIVE_UP), ([], 0, GIVE_UP),
        ([(OLD, True)], 1, WAIT), ([(OLD, True)], 0, GIVE_UP),
        ([(OLD, False)], 1, WAIT), ([(OLD, False)], 0, GIVE_UP),
        ([(OLD, True), (OLD, False)], 0, DONE), ([(OLD, False), (OLD, True)], 0, DONE),
        ([(OLD, True), (OLD, False)], 1, DONE),
        # A majority agrees, and who was to have the values has not answered yet, or never will.
        ([(OLD, False), (OLD, False)], 1, WAIT), ([(OLD, False), (OLD, False)], 0, GIVE_UP),
        ([(OLD, True), (NEW, False)], 0, GIVE_UP), ([(OLD, True), (NEW, False)], 1, GIVE_UP),
        ([(OLD, False), (NEW, False)], 1, GIVE_UP), ([(OLD, True), (OLD, False), (NEW, False)], 0, GIVE_UP),
        # Whatever epoch it is under: a read of no attachment does not care.
        ([(MINE, True), (MINE, False)], 0, DONE), ([(LEFT, True), (LEFT, False)], 1, DONE),
        # The same write, restamped at one of them.
        ([(OLD, True), (RESTAMPED, False)], 0, GIVE_UP),
    ],
)
def test_a_get_is_done_when_a_majority_agrees(
    answers: list[tuple[bytes, bool]], outstanding: int, verdict: Verdict
) -> None:
    assert quorum(GET, answers).verdict(open_ranks(len(answers), outstanding)) is verdict


@pytest.mark.parametrize(
    ("answers", "asked", "outstanding", "verdict"),
    [
        ([(MINE, True), (MINE, False)], 2, 0, DONE), ([(RESTAMPED, True), (RESTAMPED, False)], 2, 0, DONE),
        # Of an older epoch, or of none: the third may have something newer.
        ([(LEFT, True), (LEFT, False)], 2, 0, ASK_ALL), ([(OLD, True), (OLD, False)], 2, 0, ASK_ALL),
        ([(LEFT, True), (LEFT, False)], 3, 1, WAIT), ([(LEFT, True), (LEFT, False)], 3, 0, GIVE_UP),
        ([(LEFT, True), (LEFT, False), (LEFT, False)], 3, 0, DONE),
        ([(LEFT, True), (LEFT, False), (MINE, False)], 3, 0, GIVE_UP),
        ([(LEFT + MINE, True), (LEFT + MINE, False)], 2, 0, ASK_ALL),
        ([(RESTAMPED + MINE, True), (RESTAMPED + MINE, False)], 2, 0, DONE),
    ],
)
def test_a_get_of_an_attachment_is_done_when_nobody_can_have_anything_newer(
    answers: list[tuple[bytes, bool]], asked: int, outstanding: int, verdict: Verdict
) -> None:
    assert quorum(GET, answers, epoch=3, asked=asked).verdict(open_ranks(len(answers), outstanding)) is verdict


def test_the_values_are_those_of_the_answer_that_has_them() -> None:
    made = quorum(GET, [(OLD, False), (OLD, True)])
    assert made.values is not None and made.values.request == 2
    assert quorum(GET, [(OLD, False)]).values is None


# --- of another kind ------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("answers", "outstanding", "verdict"),
    [
        ((1, 2), (4,), GIVE_UP), ((1, 2), (4, 5), WAIT), ((1, 2, 4, 5), (), DONE), ((1, 2, 4), (), GIVE_UP),
        ((2, 3), (5,), WAIT), ((2, 3, 5), (), DONE), ((4, 5), (1,), GIVE_UP),
    ],
)
def test_a_put_to_a_joint_quorum_needs_both(
    answers: tuple[int, ...], outstanding: tuple[int, ...], verdict: Verdict
) -> None:
    made = Tally(PUT, Joint(majority_of((1, 2, 3)), majority_of((3, 4, 5))), 3)
    for rank in answers:
        made.add(rank, Response(Status.OK, PUT, rank, b"", b"", True))
    assert made.verdict(outstanding) is verdict
