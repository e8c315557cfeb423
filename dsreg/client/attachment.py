"""Attachment: the client's exclusive hold on the disk, as a state machine: ask who has it, claim an epoch, hold it.

An epoch is held once a majority has accepted the claim; a node accepts one owner an epoch, so there is one at
most. While it is held the client chooses the tags of its writes itself: (epoch, microseconds). Its clock runs faster
than any chain of (ts + 1) by others, each of which takes a message, and from the first question on: others may write
in the epoch, which a rival may have brought up before, as soon as one of the nodes that did not know of it has
answered. docs/attachments.md.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

from dsreg.constants import NO_OWNER
from dsreg.core.messages import Response, Status, name_of_owner
from dsreg.core.quorum import majority
from dsreg.core.tags import ATTACHED, MAX_EPOCH, pack_tag, ts_of
from dsreg.errors import AlreadyAttached, AttachRefused, ClientError, DiskFenced, Outcome

# What was not answered is asked again: a frame may be lost.
ASK_AGAIN_S = 1.0
# A claim that was crossed by another is tried again after up to this long, the longer the more often.
RETRY_S = 0.2
# A node links to a restarted peer by the contract first, and greets it then: that takes moments.
UNSUPPORTED_S = 6.0


class Claim(NamedTuple):
    """Who attaches. `owner`: 64 bytes, dsreg.core.messages.owner_of. `take_over`: also from one that is alive."""

    owner: bytes
    take_over: bool = False


class State(enum.Enum):
    ASKING = enum.auto()  # who has it?
    CLAIMING = enum.auto()
    HELD = enum.auto()
    LOST = enum.auto()


class Attachment:
    """`nodes`: of the cluster. Every method that may change the state says what to ask every node now: an epoch,
    to be claimed, or 0 to ask who has the disk; None for nothing."""

    def __init__(self, claim: Claim, nodes: int) -> None:
        self.claim = claim
        self.nodes = nodes
        self.state = State.ASKING
        self.epoch = 0
        self.error: ClientError | None = None  # when LOST
        self._answers: dict[int, Response] = {}
        self._accepted: set[int] = set()
        self._tries = 0
        self._ask_again_s = 0.0
        self._backs_off = False
        self._unsupported_since_s: float | None = None
        self._asked_s: float | None = None  # for the first time
        self._last_counter = 0

    def refuse(self, error: ClientError) -> None:
        """No node can be used."""
        if self.state is not State.LOST:
            self._lose(error)

    def question(self, now_s: float) -> int | None:
        """For a node that has just been connected."""
        if self.state is State.LOST or self._backs_off:
            return None
        self._ask_again_s = max(self._ask_again_s, now_s + ASK_AGAIN_S)
        self._asked_s = now_s if self._asked_s is None else self._asked_s
        return self.epoch

    def answer(self, rank: int, response: Response, now_s: float) -> int | None:
        if self.state is State.ASKING:
            return self._told(rank, response, now_s)
        if self.state is State.CLAIMING:
            return self._decided(rank, response, now_s)
        if self.state is State.HELD:
            self.check(response)
        return None

    def check(self, response: Response) -> None:
        """Any answer of a node, to any command: is the epoch still the newest?"""
        if self.state is State.HELD and response.status is Status.FENCED and response.epoch > self.epoch:
            self._lose(DiskFenced(
                "another client has taken the disk over: this one may neither read nor write it any more",
                Outcome.DID_NOT_HAPPEN,
            ))

    def tick(self, now_s: float) -> int | None:
        if self.state not in (State.ASKING, State.CLAIMING) or now_s < self._ask_again_s:
            return None
        self._backs_off = False
        self._ask_again_s = now_s + ASK_AGAIN_S
        return self.epoch

    def next_tag(self, now_s: float) -> bytes:
        """The tag of a write that begins now: above that of every write that this client has begun, and of every
        one of others that was completed before."""
        assert self.state is State.HELD and self._asked_s is not None
        self._last_counter = max(self._last_counter + 1, int((now_s - self._asked_s) * 1e6))
        return pack_tag(ts_of(self.epoch, self._last_counter), ATTACHED, 0, self.epoch)

    # --- asking and claiming ----------------------------------------------------------------------
    def _told(self, rank: int, response: Response, now_s: float) -> int | None:
        if response.status is not Status.OK or self._backs_off:
            return None
        self._answers[rank] = response
        if len(self._answers) < majority(self.nodes):
            return None
        for told in self._answers.values():
            if told.alive and told.data != self.claim.owner and not self.claim.take_over:
                who = name_of_owner(bytes(told.data)) if told.data != NO_OWNER else "another client"
                self._lose(AlreadyAttached(
                    f"the disk is attached by {who}, which is alive; detach it there, or take it over, which fences "
                    "that one",
                    Outcome.DID_NOT_HAPPEN,
                ))
                return None
        self.epoch = max(told.epoch for told in self._answers.values()) + 1
        if self.epoch > MAX_EPOCH:
            self._lose(AttachRefused("this disk has been attached too often: no epoch is left", Outcome.DID_NOT_HAPPEN))
            return None
        self.state = State.CLAIMING
        self._ask_again_s = now_s + ASK_AGAIN_S
        self._accepted = set()
        return self.epoch

    def _decided(self, rank: int, response: Response, now_s: float) -> int | None:
        if response.status is Status.OK:
            if response.epoch == self.epoch and response.data == self.claim.owner:
                self._accepted.add(rank)
            if len(self._accepted) >= majority(self.nodes):
                self.state = State.HELD
            return None
        if response.status is Status.UNSUPPORTED:
            self._unsupported_since_s = now_s if self._unsupported_since_s is None else self._unsupported_since_s
            if now_s - self._unsupported_since_s > UNSUPPORTED_S:
                self._lose(AttachRefused(
                    "a node of the cluster speaks only the contract and could not keep another client out; use the "
                    "disk without attaching it, or replace that node", Outcome.DID_NOT_HAPPEN,
                ))
        elif response.status is Status.REFUSED:
            self._lose(AttachRefused(
                f"a node does not believe that the disk was attached {self.epoch} times: is its clock right?",
                Outcome.DID_NOT_HAPPEN,
            ))
        if self.state is not State.LOST:
            self._start_over(now_s)
        return None

    def _start_over(self, now_s: float) -> None:
        """The claim has failed at a node: ask again, after a while that differs from that of a rival."""
        self._tries += 1
        self.state, self.epoch = State.ASKING, 0
        self._answers = {}
        self._backs_off = True
        self._ask_again_s = now_s + RETRY_S * self._tries * (1 + self.claim.owner[self._tries % 16] / 255)

    def _lose(self, error: ClientError) -> None:
        self.state, self.error = State.LOST, error
