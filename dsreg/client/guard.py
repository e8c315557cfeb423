"""Guard: refuses writes of a client that has not attached the disk while another client, which is alive, has.

A write of such a client begins with a TAG, and the tags that a majority names tell the epoch in force: 0 where nobody
ever attached the disk, and then there is nothing to ask. In any other epoch the client asks the nodes who has it, once
CLEARED_S at most, before it stores anything. So an attachment that comes later is noticed by the next write, and an
attached client, which needs no TAG, pays nothing. This keeps out accidents, not races: an attachment may come between
the answer and the STORE, and fences no client that has none.
"""

from __future__ import annotations

from dsreg.client.limits import CLEARED_S, LEAVES_AGAIN_S, NEVER
from dsreg.client.presence import Presence
from dsreg.constants import NO_OWNER
from dsreg.errors import AlreadyAttached, Outcome
from dsreg.protocol.messages import Response, Status, name_of_owner
from dsreg.register.quorum import Quorum, mask

# What was not answered is asked again: a frame may be lost, and a node that has just started does not know yet.
ASK_AGAIN_S = 1.0


class Guard:
    """Who has the disk, as the nodes have answered last."""

    def __init__(self) -> None:
        self._request = 0  # the question under way; 0: none
        self._asked_s = 0.0
        self._answers: dict[int, Response] = {}
        self._epoch = 0  # in which nobody alive had the disk,
        self._cleared_s = 0.0  # at this time
        self._presence = Presence()
        self._not_before_s = NEVER  # the next question

    def clears(self, epoch: int, now_s: float) -> bool:
        """Whether a write whose tags are of `epoch` may go on at once."""
        return epoch == 0 or epoch <= self._epoch and now_s - self._cleared_s < CLEARED_S

    def may_ask(self, now_s: float) -> bool:
        """Whether no question is under way, or the last one seems lost."""
        if self._request == 0:
            return now_s >= self._not_before_s
        return now_s - self._asked_s >= ASK_AGAIN_S

    def ask(self, request: int, now_s: float) -> None:
        """`request`: of the question that goes to every node now."""
        self._request, self._asked_s, self._answers = request, now_s, {}

    def forget(self) -> None:
        """What has been answered to the question under way does not count."""
        self._request = 0

    def answer(self, rank: int, response: Response, quorum: Quorum, now_s: float) -> AlreadyAttached | None:
        """The error for every write that waits, if somebody who is alive has the disk. Else some of them may be
        cleared now."""
        if response.request != self._request or response.status is not Status.OK or response.unsure:
            return None
        self._answers[rank] = response
        if not quorum.decided(mask(self._answers)):
            return None
        self._request = 0
        # A node that has missed a take-over may still have the connection of the one that was fenced.
        epoch = max(told.epoch for told in self._answers.values())
        for told in self._answers.values():
            if told.epoch == epoch and told.alive:
                self._not_before_s = now_s + LEAVES_AGAIN_S
                return _refusal(told.owner) if self._presence.is_sure(now_s) else None
        self._presence.left()
        self._epoch, self._cleared_s = epoch, now_s
        return None


def _refusal(owner: bytes) -> AlreadyAttached:
    who = name_of_owner(owner) if owner != NO_OWNER else "another client"
    return AlreadyAttached(
        f"the disk is attached by {who}, which is alive: a second writer would damage a file system on it; detach it "
        "there first, or write all the same with force=True (dsreg: --force)",
        Outcome.DID_NOT_HAPPEN,
    )
