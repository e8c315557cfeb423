"""A claim that was crossed by another: what of the first try counts in the next one."""

from __future__ import annotations

from dsreg.client.attachment import State
from dsreg.client.limits import LEAVES_S
from dsreg.protocol.messages import Status
from tests.client.asks import asks
from tests.client.test_attachment import ME, RIVAL, claiming, refused, told


def test_a_claim_of_its_own_that_is_alive_keeps_nobody_out() -> None:
    """One node has accepted the claim, the others had met a rival, which has left since."""
    attachment = claiming()
    attachment.answer(1, told(1, ME, alive=True), 0.0)
    for rank in (2, 3):
        attachment.answer(rank, refused(Status.FENCED, 2), 0.0)
    assert attachment.state is State.ASKING
    assert asks(attachment.tick(100.0)) == 0
    assert asks(attachment.answer(1, told(1, ME, alive=True), 100.0)) is None
    assert asks(attachment.answer(2, told(2, RIVAL), 100.0)) == 3
    assert attachment.state is State.CLAIMING and attachment.error is None


def test_answers_of_the_first_try_do_not_count_in_the_next_one() -> None:
    """A rival has come since: one node that does not know of it is no majority."""
    attachment = claiming()
    for rank in (2, 3):
        attachment.answer(rank, refused(Status.FENCED, 2), 0.0)
    assert attachment.state is State.ASKING
    assert asks(attachment.tick(100.0)) == 0
    assert asks(attachment.answer(1, told(), 100.0)) is None
    assert attachment.state is State.ASKING, "one has answered"
    assert asks(attachment.answer(3, told(2, RIVAL, alive=True), 100.0)) is None
    assert asks(attachment.answer(3, told(2, RIVAL, alive=True), 100.0 + LEAVES_S)) is None
    assert attachment.state is State.LOST
