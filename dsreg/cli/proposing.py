"""A proposal of dsreg.register.proposal, over the connections of a client."""

from __future__ import annotations

import random
import secrets
from collections.abc import Mapping
from typing import Protocol

import trio

from dsreg.client import Client
from dsreg.protocol.choosing import Answer, Elect, Question
from dsreg.protocol.configuration import PROPOSER_SIZE, Configuration
from dsreg.protocol.life import Life
from dsreg.register.configuration import Goal
from dsreg.register.proposal import Chosen, Outcome, Proposal, Unvoted, next_round
from dsreg.register.quorum import bit, ranks_in

# How long one answer is waited for, and how soon a node is asked again that did not, or objected.
ASK_S = 2.0
AGAIN_S = 0.2
# After another proposal had a higher ballot: at most this long, at random, so that one of them gets through.
PAUSE_S = 1.0


class Watcher(Protocol):
    """Whoever wants a configuration to be chosen."""

    def objections(self, reasons: Mapping[int, str]) -> None:
        """By rank: who has not voted yet, and why. Called again and again."""

    def holds(self, rank: int, following: Configuration) -> bool:
        """Whether the node is not to be asked yet to vote for this. A vote cannot be taken back: what a few have voted
        for, others that propose may have to take up."""


async def choose(client: Client, base: Configuration, goal: Goal, watcher: Watcher) -> Configuration:
    """What follows `base`, chosen now or before, by this proposal, which is to lead to `goal`, or another one. It takes
    until those that decide have voted."""
    chosen = await _decide(client, base, goal, watcher)
    assert chosen is not None, "something is wanted"
    return chosen


async def finish(client: Client, base: Configuration, watcher: Watcher) -> Configuration | None:
    """What follows `base`, if somebody has voted for it: who proposed that may have been killed before anybody was told
    that it was chosen. None: nobody has of those that decide, so that nothing was."""
    return await _decide(client, base, None, watcher)


async def _decide(client: Client, base: Configuration, goal: Goal | None, watcher: Watcher) -> Configuration | None:
    round = next_round()
    while True:
        proposal = Proposal(base, goal, round, secrets.token_bytes(PROPOSER_SIZE))
        outcome = await _Try(client, proposal, watcher).run()
        if isinstance(outcome, Unvoted):
            return None
        if isinstance(outcome, Chosen):
            return outcome.configuration
        round = next_round(outcome.promised)
        await trio.sleep(random.uniform(0, PAUSE_S))


class _Try:
    """One proposal, until it is over."""

    def __init__(self, client: Client, proposal: Proposal, watcher: Watcher) -> None:
        self._client = client
        self._proposal = proposal
        self._watcher = watcher
        self._members = proposal.unanswered
        self._lives: dict[int, Life | None] = {}  # in which each has answered
        self._next_phase = trio.Event()
        self._outcome: Outcome | None = None

    async def run(self) -> Outcome:
        async with trio.open_nursery() as nursery:
            for rank in ranks_in(self._members):
                nursery.start_soon(self._ask, rank, nursery.cancel_scope)
        assert self._outcome is not None
        return self._outcome

    async def _ask(self, rank: int, all_of_them: trio.CancelScope) -> None:
        while True:
            question, phase = self._proposal.question, self._next_phase
            answer = None
            is_asked = bool(self._proposal.unanswered & bit(rank))
            if isinstance(question, Elect):
                is_asked = is_asked and not self._watcher.holds(rank, question.following)
            if is_asked:
                answer = await self._client.propose(rank, question, ASK_S)
            if answer is not None:
                self._take(rank, question, answer)
            elif is_asked and question == self._proposal.question:
                self._proposal.objections[rank] = f"node {rank} does not answer"
            known = self._client.configuration
            if known is not None and known.number > question.base.number:
                self._outcome = self._outcome or Chosen(known)  # by another one; nobody has to be asked for that
            if self._outcome is not None:
                all_of_them.cancel()
            self._watcher.objections(self._proposal.objections)
            with trio.move_on_after(AGAIN_S):
                await phase.wait()

    def _take(self, rank: int, question: Question, answer: Answer) -> None:
        for other, life in self._lives.items():
            if self._client.life(other) != life:  # it has forgotten what it answered
                self._proposal.discount(other)
        self._lives[rank] = self._client.life(rank)
        self._outcome = self._outcome or self._proposal.answer(rank, question, answer)
        if question != self._proposal.question:
            self._next_phase.set()
            self._next_phase = trio.Event()
            self._lives.clear()
