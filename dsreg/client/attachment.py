"""Attachment: the client's exclusive hold on the disk, as a state machine: ask who has it, claim an epoch, hold it.

An epoch is held once a majority has accepted the claim; a node accepts one owner an epoch, so there is one at
most. A node that accepts it fences the previous owner: so nothing is claimed before a majority has told that it could
accept, and what a claim that fails after all may have done is said. While it is held the client chooses the tags of its
writes itself: (epoch, microseconds). Its clock runs faster than any chain of (ts + 1) by others, each of which takes a
message, and from the first question on: others may write in the epoch, which a rival may have brought up before, as
soon as one of the nodes that did not know of it has answered. docs/attachments.md.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Collection
from typing import NamedTuple

from dsreg.client.attach_texts import named, nodes_named, of_bound
from dsreg.client.limits import LEAVES_AGAIN_S, NEVER, SAY_AGAIN_S, TELL_AGAIN_S
from dsreg.client.presence import Presence
from dsreg.errors import AlreadyAttached, AttachRefused, ClientError, DiskFenced, Outcome
from dsreg.protocol.messages import Response, Status
from dsreg.protocol.tags import ATTACHED, MAX_EPOCH, pack_tag, ts_of
from dsreg.register.quorum import Quorum, mask

# What was not answered is asked again: a frame may be lost.
ASK_AGAIN_S = 1.0
# A claim that was crossed by another is tried again after up to this long, the longer the more often, up to MAX_TRIES.
RETRY_S = 0.2
MAX_TRIES = 25
# Nodes that do not know yet whether the owner is alive know it after some seconds.
UNSURE_AGAIN_S = 0.5
# The bound of epochs moves once in S_PER_EPOCH; a clock may be set at any time.
BOUND_AGAIN_S = 5.0
# A node links to a restarted peer by the contract first, and greets it then: that takes moments.
UNSUPPORTED_S = 6.0

FENCED = "another client has taken the disk over: this one may neither read nor write it any more"
COPIED = ("a copy of this client has written to the disk: this machine was cloned, or restored from a snapshot of its "
          "memory. Its caches do not match the disk any more, so it may neither read nor write it; detach the disk and "
          "attach it again")


class Claim(NamedTuple):
    """Who attaches. `owner`: 64 bytes, dsreg.protocol.messages.owner_of. `take_over`: also from one that is alive."""

    owner: bytes
    take_over: bool = False


class Cause(enum.Enum):
    ANSWERS = enum.auto()  # nothing but these
    UNSURE = enum.auto()
    OWNER = enum.auto()
    CONTRACT = enum.auto()
    BOUND = enum.auto()
    LEAP = enum.auto()


class Wait(NamedTuple):
    """What an attachment waits for. `text`: for people. `needs_help`: it may be long."""

    cause: Cause = Cause.ANSWERS
    text: str = ""
    needs_help: bool = False


class State(enum.Enum):
    ASKING = enum.auto()  # who has it?
    CLAIMING = enum.auto()
    HELD = enum.auto()
    LOST = enum.auto()


_HELD = State.HELD  # each write needs it: see dsreg.protocol.messages


# --- effects: what is to be done, in order ----------------------------------------------------
class Ask(NamedTuple):
    """Ask every node that can be asked, or the one of this `rank`: who has the disk, if `epoch` is 0; else to accept
    this client's claim of the epoch. `sent` has to be told of each question."""

    epoch: int
    rank: int = 0


class WaitsFor(NamedTuple):
    """To be told the user; `needs_help`: it may take long."""

    text: str
    needs_help: bool


class Held(NamedTuple):
    epoch: int


class Lost(NamedTuple):
    """The disk is not this client's, or not any more, for good."""

    error: ClientError


class Knows(NamedTuple):
    """The node has been told of the epoch that is held, and has answered."""

    rank: int


Effect = Ask | WaitsFor | Held | Lost | Knows


class Attachment:
    """`quorum`: of the cluster's nodes. The methods that are told what has happened give the effects, in order."""

    def __init__(self, claim: Claim, quorum: Quorum) -> None:
        self.claim = claim
        self.quorum = quorum
        self.state = State.ASKING
        self.epoch = 0
        self.error: ClientError | None = None  # when LOST
        self.waits_for = Wait()
        self._answers: dict[int, Response] = {}
        self._accepted: set[int] = set()
        self._refused: dict[int, Status] = {}  # by whom, and how, the claim is refused that others may accept
        self._exposures: Counter[int] = Counter()  # claims sent to a node, and not known to have changed nothing
        self._previous = ""  # who had the disk, alive, when it was claimed
        self._tries = 0
        self._ask_again_s = 0.0
        self._backs_off = False
        self._unsupported_since_s: float | None = None
        self._asked_s: float | None = None  # for the first time
        self._last_counter = 0
        self._presence = Presence()  # of another owner
        self._told_again_s: dict[int, float] = {}  # when a node was told once more whose the disk is
        self._said = Cause.ANSWERS, NEVER  # what it waits for, as was told last, and when
        self._effects: list[Effect] = []

    @property
    def is_open(self) -> bool:
        """Whether it is neither held nor lost yet."""
        return self.state in (State.ASKING, State.CLAIMING)

    # --- what happens -----------------------------------------------------------------------------
    def refuse(self, error: ClientError) -> list[Effect]:
        """No node can be used."""
        if self.state is not State.LOST:
            self._lose(type(error), error.reason)
        return self._take()

    def connected(self, rank: int, quorum: Quorum, now_s: float) -> list[Effect]:
        """The node has just been connected; `quorum`: of the nodes as they are known now."""
        self.quorum = quorum
        if self.state is State.LOST or self._backs_off:
            return []
        self._ask_again_s = max(self._ask_again_s, now_s + ASK_AGAIN_S)
        self._asked_s = now_s if self._asked_s is None else self._asked_s
        return [Ask(self.epoch, rank)]

    def sent(self, rank: int, epoch: int) -> None:
        """The node is sent what an Ask wanted."""
        self._exposures[rank] += epoch > 0

    def answer(self, rank: int, response: Response, now_s: float) -> list[Effect]:
        """To an Ask."""
        if response.status is Status.OK:
            self._compare(response)
        if self.state is State.ASKING:
            self._told(rank, response, now_s)
        elif self.state is State.CLAIMING:
            self._decided(rank, response, now_s)
        elif self.state is State.HELD and response.status in (Status.OK, Status.DISBELIEVED):
            self._accepted.add(rank)  # as far as it ever will
            self._effects.append(Knows(rank))
        else:
            return self.check(response)
        self._say(now_s)
        return self._take()

    def check(self, response: Response) -> list[Effect]:
        """Any answer of a node, to any command: is the epoch still the newest?"""
        if self.state is State.HELD and response.status is Status.FENCED and response.epoch > self.epoch:
            self._lose(DiskFenced, FENCED)
        return self._take()

    def overtaken(self) -> list[Effect]:
        """A write under way has met a later one of this attachment, which it has not made."""
        if self.state is State.HELD:
            self._lose(DiskFenced, COPIED)
        return self._take()

    @property
    def told(self) -> int:
        """Mask of the nodes that have been told of the epoch, and have answered."""
        return mask(self._accepted)

    def disbelieved(self, rank: int, now_s: float) -> list[Effect]:
        """The node does not take the epoch, or a tag in it: perhaps nobody has told it whose the disk is."""
        if self.state is not State.HELD or now_s < self._told_again_s.get(rank, NEVER) + TELL_AGAIN_S:
            return []
        self._told_again_s[rank] = now_s
        return [Ask(self.epoch, rank)]

    def tick(self, now_s: float) -> list[Effect]:
        """Time has passed."""
        if not self.is_open:
            return []
        if now_s >= self._ask_again_s:
            self._ask_again(now_s)
        self._say(now_s)
        return self._take()

    def _ask_again(self, now_s: float) -> None:
        if Status.FENCED in self._refused.values():
            self._start_over(now_s)  # a rival has as many nodes: who waits for one that is down waits for ever
            return
        if self._backs_off or self.waits_for.text:
            self._answers = {}
        self._backs_off = False
        self._ask_again_s = now_s + ASK_AGAIN_S
        self._effects.append(Ask(self.epoch))

    def _say(self, now_s: float) -> None:
        """What it waits for, once, and again after a while."""
        cause, text, needs_help = self.waits_for
        if text and (cause is not self._said[0] or now_s >= self._said[1] + SAY_AGAIN_S):
            self._said = cause, now_s
            self._effects.append(WaitsFor(text, needs_help))

    def _take(self) -> list[Effect]:
        effects, self._effects = self._effects, []
        return effects

    def next_tag(self, now_s: float) -> bytes:
        """The tag of a write that begins now: above that of every write that this client has begun, and of every
        one of others that was completed before."""
        assert self.state is _HELD and self._asked_s is not None
        self._last_counter = max(self._last_counter + 1, int((now_s - self._asked_s) * 1e6))
        return pack_tag(ts_of(self.epoch, self._last_counter), ATTACHED, 0, self.epoch)

    def _compare(self, response: Response) -> None:
        """What the node has of this owner's writes: all are this client's."""
        if response.owner == self.claim.owner and response.counter > self._last_counter and self.error is None:
            self._lose(DiskFenced, COPIED)

    def reconfigured(self, quorum: Quorum) -> list[Effect]:
        """It decides from now on: what was answered before does not count."""
        self.quorum, self._answers, self._accepted, self._refused = quorum, {}, set(), {}
        return [Ask(self.epoch)] if self.is_open and not self._backs_off else []

    def discount(self, rank: int) -> None:
        """That node has forgotten what it promised."""
        self._answers.pop(rank, None)
        self._accepted.discard(rank)

    # --- asking -----------------------------------------------------------------------------------
    def _told(self, rank: int, response: Response, now_s: float) -> None:
        if response.status is not Status.OK or self._backs_off:
            return
        self._answers[rank] = response
        if not self.quorum.decided(mask(self._answers)):
            return
        answers = self._answers.values()
        others = [told for told in answers if told.alive and told.owner != self.claim.owner]
        if others and not self.claim.take_over:
            self._meet_owner(named(others), now_s)
            return
        epoch = self._next_epoch(answers)
        if epoch > MAX_EPOCH:
            self._lose(AttachRefused, "this disk has been attached too often: no epoch is left; copy it into a new "
                                      "cluster")
        elif self._may_claim(epoch, now_s):
            self.epoch = epoch
            self.state, self.waits_for = State.CLAIMING, Wait()
            self._previous = named(others) if others else ""
            self._ask_again_s = now_s + ASK_AGAIN_S
            self._accepted, self._refused = set(), {}
            self._effects.append(Ask(epoch))

    def _meet_owner(self, name: str, now_s: float) -> None:
        if self._presence.is_sure(now_s):
            self._lose(AlreadyAttached, f"the disk is attached by {name}, which is alive; detach it there, or take it "
                                        "over, which fences that one")
        else:
            text = f"{name} has the disk attached, or has just detached it: asking again"
            self._wait(Wait(Cause.OWNER, text), now_s + LEAVES_AGAIN_S)

    def _next_epoch(self, answers: Collection[Response]) -> int:
        """The newest that they know of, if that is this client's own, from a claim that failed; else the next one."""
        newest = max(told.epoch for told in answers)
        own = newest and all(told.owner == self.claim.owner for told in answers if told.epoch == newest)
        return newest if own else newest + 1

    def _may_claim(self, epoch: int, now_s: float) -> bool:
        """Whether a majority can be had; else what has to be waited for is set, or it is lost."""
        told, decided = self._answers, self.quorum.decided
        unsure = [] if self.claim.take_over else [rank for rank in told if told[rank].unsure and not self._is_own(rank)]
        if not decided(mask(told.keys() - unsure)):
            self._wait(Wait(
                Cause.UNSURE,
                f"{nodes_named(unsure)} started a few seconds ago and cannot tell yet whether "
                f"{named([told[rank] for rank in unsure])}, who had the disk attached, is alive"
            ), now_s + UNSURE_AGAIN_S)
            return False
        if not decided(mask(rank for rank, answer in told.items() if not answer.mixed)):
            self._meet_contract_peer(now_s)
            return False
        doubtful = [rank for rank, answer in told.items() if epoch > max(answer.believed, answer.epoch)]
        if not decided(mask(told.keys() - doubtful)):
            text = of_bound(epoch, {rank: told[rank].believed for rank in doubtful})
            self._wait(Wait(Cause.BOUND, text, True), now_s + BOUND_AGAIN_S)
            return False
        return True

    def _is_own(self, rank: int) -> bool:
        return self._answers[rank].owner == self.claim.owner

    def _wait(self, wait: Wait, until_s: float) -> None:
        self.waits_for, self._ask_again_s = wait, until_s

    def _meet_contract_peer(self, now_s: float) -> None:
        self._unsupported_since_s = now_s if self._unsupported_since_s is None else self._unsupported_since_s
        if now_s - self._unsupported_since_s > UNSUPPORTED_S:
            self._lose(AttachRefused, "a node of the cluster speaks only the contract and could not keep another "
                                      "client out; use the disk without attaching it, or replace that node")
        else:
            text = "the nodes have just started and do not know each other yet, or one speaks only the contract"
            self._wait(Wait(Cause.CONTRACT, text), now_s + ASK_AGAIN_S)

    # --- claiming ---------------------------------------------------------------------------------
    def _decided(self, rank: int, response: Response, now_s: float) -> None:
        if response.status is Status.OK:
            if response.epoch == self.epoch and response.owner == self.claim.owner:
                self._accepted.add(rank)
                self._refused.pop(rank, None)
            if self.quorum.decided(mask(self._accepted)):
                self.state, self.waits_for = State.HELD, Wait()
                self._effects.append(Held(self.epoch))
            return
        self._exposures[rank] -= 1
        if response.status is Status.FENCED and response.epoch > self.epoch:
            self._start_over(now_s)  # this node would fence what is held in this epoch
        elif response.status in (Status.FENCED, Status.DISBELIEVED, Status.UNSUPPORTED):
            self._refuse(rank, response.status, now_s)

    def _refuse(self, rank: int, status: Status, now_s: float) -> None:
        """One node's opinion: the claim has failed only where no majority is left."""
        epoch, refused = self.epoch, self._refused
        refused[rank] = status
        if self.quorum.blocks(mask(refused)):
            self._start_over(now_s)
            if Status.DISBELIEVED in refused.values():
                text = (f"{nodes_named(refused)} do not take the epoch {epoch}: they know of none near it, and ask the "
                        "other nodes how far those are")
                self.waits_for = Wait(Cause.LEAP, text, True)
        if status is Status.UNSUPPORTED:
            self._meet_contract_peer(now_s)

    def _start_over(self, now_s: float) -> None:
        """The claim has failed: ask again, after a while that differs from that of a rival."""
        self._tries += 1
        self.state, self.epoch = State.ASKING, 0
        self._answers, self._refused = {}, {}
        self._backs_off = True
        own_s = RETRY_S * (1 + self.claim.owner[self._tries % 16] / 255)
        self._ask_again_s = now_s + own_s * min(self._tries, MAX_TRIES)

    # --- endings ----------------------------------------------------------------------------------
    @property
    def outcome(self) -> Outcome:
        """What is known of the attaching if it were given up now: whether a node may have accepted it."""
        happens = self.state is not State.HELD and any(count > 0 for count in self._exposures.values())
        return Outcome.MAY_HAVE_HAPPENED if happens else Outcome.DID_NOT_HAPPEN

    @property
    def aftermath(self) -> str:
        """To be said where the attaching is given up."""
        if self._previous and self.outcome is Outcome.MAY_HAVE_HAPPENED:
            return f"; the take-over had begun: {self._previous}, which had the disk attached, may be fenced already"
        return ""

    def _lose(self, kind: type[ClientError], reason: str) -> None:
        self.error = kind(reason + self.aftermath, self.outcome)
        self.state, self.waits_for = State.LOST, Wait()
        self._effects.append(Lost(self.error))
