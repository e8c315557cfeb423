"""Somebody who changes members, and the size of the disk: proposes what follows, by the product's own proposal, over a
network that loses much.

What was chosen for a number must be the same whoever proposed it.
"""

from __future__ import annotations

import random
from typing import Protocol

from dsreg.node.configuring import described
from dsreg.protocol.choosing import Answer, Question
from dsreg.protocol.configuration import Configuration
from dsreg.register.configuration import Goal, next_for, objection
from dsreg.register.proposal import Chosen, Proposal
from dsreg.register.quorum import bit, mask, ranks_in
from tests.simulation.loop import Loop
from tests.simulation.node import SimNode
from tests.simulation.options import Options

# Between two times that the questions of a proposal are sent, and how often they are.
AGAIN_S = 0.3
TRIES = 12
LOST = 0.2
# The share of the proposals about what follows a joint configuration that go back.
CANCELS = 0.2
# The share of the proposals that are for a larger disk, where that may grow and no change of members is under way.
GROWS = 0.4
# How long it takes at most until somebody proposes what follows.
GOES_ON_S = 3.0


class World(Protocol):
    loop: Loop
    options: Options
    nodes: dict[int, SimNode]

    def broken(self, rank: int, error: Exception) -> None:
        """Something is wrong that must not be."""


class _Try:
    """One proposal, until it is over."""

    def __init__(self, proposal: Proposal) -> None:
        self.proposal = proposal
        self.is_over = False


class Reconfiguring:
    """Of one run. `chosen`: by number."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._loop = world.loop
        self.chosen: dict[int, Configuration] = {}
        self._wanted: list[Configuration] = []  # that were proposed
        self._rounds = 0
        self._growing = random.Random(f"growing {world.options.seed}")  # so that other runs stay what they were
        self._ends = False

    def stop(self) -> None:
        """Nobody proposes any more."""
        self._ends = True

    def begin(self, node: SimNode) -> None:
        """Propose what follows the configuration that this node knows."""
        if node.process is None or self._ends:
            return
        rng = self._loop.rng
        base = node.process.members.configuring.current
        if not base.number:
            return
        self.chosen.setdefault(base.number, base)
        ranks = [rank for rank in self._world.options.ranks if base.members >> rank & 1 or not base.used >> rank & 1]
        # Who is the only one, and loses its directory, has nobody to learn from.
        fewest = min(2 if self._world.options.rejoins else 1, len(ranks))
        ranks = rng.sample(ranks, rng.randint(fewest, len(ranks)))
        goal = self._larger(base)
        if goal is None:
            goal = Goal(mask(ranks), base.sectors, bool(base.joining) and self._loop.chance(CANCELS))
        following = next_for(base, goal)
        if following is None or objection(base, following) or not self._is_sound(following):
            return
        self._wanted.append(following)
        self._rounds += rng.choice((0, 1))  # some are outbid
        self._loop.fault("reconfigure", f"{base.number} to {following}")
        self._ask(_Try(Proposal(base, goal, self._rounds + 1, rng.randbytes(16))), TRIES)

    def _larger(self, base: Configuration) -> Goal | None:
        """A disk that is larger, sometimes."""
        most = self._world.options.sectors
        if base.joining or base.sectors == most or self._growing.random() >= GROWS:
            return None
        return Goal(base.ranks, self._growing.randint(base.sectors + 1, most))

    # --- what may be lost beside it -----------------------------------------------------------------
    def _is_sound(self, configuration: Configuration) -> bool:
        """Whether of each of its sets so few are yet to learn what their lost directories had, that they can."""
        return all(self._can_learn(each, 0) for each in (configuration.ranks, configuration.joining) if each)

    def _can_learn(self, ranks: int, lost: int) -> bool:
        learn = mask(rank for rank, node in self._world.nodes.items() if not node.is_whole) | bit(lost)
        return (ranks & learn).bit_count() <= (ranks.bit_count() - 1) // 2 or not ranks & learn

    def may_lose(self, rank: int) -> bool:
        """Whether the node may lose its directory, under what is in force, or may be soon."""
        known = [node.process.members.configuring.current for node in self._world.nodes.values() if node.process]
        if len(known) < len(self._world.nodes):
            return False
        oldest = min((each.number for each in known if each.number), default=1)
        possible = [*known, *(each for each in self._wanted if each.number > oldest)]
        sets = [each for configuration in possible for each in (configuration.ranks, configuration.joining)]
        return all(self._can_learn(each, rank) for each in sets if each >> rank & 1)

    # --- proposing ----------------------------------------------------------------------------------
    def _ask(self, attempt: _Try, tries: int) -> None:
        if not tries or attempt.is_over:
            return
        question = attempt.proposal.question
        for rank in ranks_in(attempt.proposal.unanswered):
            if not self._loop.chance(LOST):
                self._loop.after(self._delay_s(), self._asked, attempt, rank, question)
        self._loop.after(AGAIN_S, self._ask, attempt, tries - 1)

    def _delay_s(self) -> float:
        return self._world.options.latency_s * self._loop.between(0.5, 4)

    def _asked(self, attempt: _Try, rank: int, question: Question) -> None:
        process = self._world.nodes[rank].process
        if process is not None:
            process.guard(self._answers, attempt, rank, question)

    def _answers(self, attempt: _Try, rank: int, question: Question) -> None:
        process = self._world.nodes[rank].process
        assert process is not None
        answer = process.members.configuring.asked(question)
        process.interpreter.end_turn()
        self._loop.after(self._delay_s(), self._answered, attempt, rank, question, answer)

    def _answered(self, attempt: _Try, rank: int, question: Question, answer: Answer) -> None:
        if attempt.is_over:
            return
        outcome = attempt.proposal.answer(rank, question, answer)
        attempt.is_over = outcome is not None
        if isinstance(outcome, Chosen):
            self._is_chosen(rank, outcome.configuration)
            if outcome.configuration.joining:
                self._loop.after(self._loop.between(0, GOES_ON_S), self.begin, self._world.nodes[rank])

    def _is_chosen(self, rank: int, configuration: Configuration) -> None:
        before = self.chosen.setdefault(configuration.number, configuration)
        if before != configuration:
            self._world.broken(rank, AssertionError(f"chosen were {before} and {configuration}"))
        if before is configuration:
            self._loop.fault(self._what(configuration), described(configuration))
        for other in self._loop.rng.sample(self._world.options.ranks, self._loop.rng.randint(1, 2)):
            self._loop.after(self._delay_s(), self._tell, other, configuration)

    def _what(self, configuration: Configuration) -> str:
        """For the summary."""
        earlier = self.chosen.get(configuration.number - 1)
        if configuration.joining:
            return "reconfigured"
        if earlier is not None and configuration.sectors > earlier.sectors:
            return "grown"
        return "went_on" if earlier is not None and configuration.ranks == earlier.joining else "went_back"

    def _tell(self, rank: int, configuration: Configuration) -> None:
        process = self._world.nodes[rank].process
        if process is not None:
            process.guard(self._hears, rank, configuration)

    def _hears(self, rank: int, configuration: Configuration) -> None:
        process = self._world.nodes[rank].process
        assert process is not None
        process.members.configuring.told(configuration)
        process.interpreter.end_turn()

    def check(self) -> None:
        """At the end: what the nodes know was chosen."""
        for rank, node in self._world.nodes.items():
            if node.process is not None:
                current = node.process.members.configuring.current
                if self.chosen.get(current.number, current) != current:
                    self._world.broken(rank, AssertionError(f"{current} was not chosen"))
                if node.process.storage.sectors != current.sectors:
                    self._world.broken(rank, AssertionError(f"{node.process.storage.sectors} sectors under {current}"))
