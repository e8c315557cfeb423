"""Scrubbing: dsreg.register.scrub in a node: its time, its log lines, and what it is told of links and of the disk."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from dsreg.node.interpreter import Connection, Interpreter
from dsreg.protocol.messages import FEATURE_SUMS, ScrubMessage
from dsreg.register.damage import Damage
from dsreg.register.effects import Effect, Verify
from dsreg.register.lives import Lives
from dsreg.register.scrub import Scrub

log = logging.getLogger("dsreg.node")


class Scrubbing:
    def __init__(self, interpreter: Interpreter, scrub: Scrub, lives: Lives) -> None:
        self.next_due = scrub.next_due
        self.scrub = scrub
        self.on_damage: Callable[[Damage], None] = lambda damage: log.error("%s", damage)
        self._interpreter = interpreter
        scrub.compares = lambda: [rank for rank in interpreter.linked_with(FEATURE_SUMS) if lives.counts(rank)]
        interpreter.on_sums = self._message

    def ask(self) -> int:
        """Somebody wants a pass now; its number."""
        number = self.scrub.ask(self._interpreter.clock())
        self.tick()
        return number

    def tick(self) -> None:
        now_s = self._interpreter.clock()
        if now_s >= self.scrub.next_due():
            self._carry_out(self.scrub.tick(now_s))

    def verified(self, verify: Verify, is_sure: bool) -> None:
        """The disk has done it."""
        self._carry_out(self.scrub.verified(verify, is_sure, self._interpreter.clock()))

    def _message(self, connection: Connection | None, message: ScrubMessage) -> None:
        interpreter = self._interpreter
        effects = self.scrub.message(connection, message, interpreter.clock())
        self._log()
        interpreter.carry_out(effects, interpreter.now())

    def _carry_out(self, effects: Iterable[Effect]) -> None:
        self._log()
        self._interpreter.carry_out(effects, self._interpreter.now())
        self._interpreter.end_turn()

    def _log(self) -> None:
        news, self.scrub.news = self.scrub.news, []
        for damage in news:
            self.on_damage(damage)

    def report(self) -> dict[str, object]:
        """For STATUS."""
        return {"scrub": self.scrub.report(self._interpreter.clock()), "damage": self.scrub.ledger.report()}
