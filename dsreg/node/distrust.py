"""Which other nodes are neither asked nor counted, as their directories are not those that are known, and what is said
of it in the log."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping

log = logging.getLogger("dsreg.node")

# A node that rejoins shows an empty directory until its claim is accepted, mostly for some 100 ms: nobody has to do
# anything about that. One that has lost its directory ends, and says so at once.
SAY_AFTER_S = 5.0


class Distrust:
    """`faults`: rank -> what is wrong. `clock`: seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.faults: dict[int, str] = {}
        self._clock = clock
        self._said: dict[int, str] = {}
        self._due: dict[int, float] = {}  # what is not said yet

    def review(self, faults: Mapping[int, str]) -> tuple[list[int], list[int]]:
        """These are the faults now. The ranks of those that are new, or others than before; of those that are over."""
        before, self.faults = self.faults, dict(faults)
        new = [rank for rank, fault in self.faults.items() if before.get(rank) != fault]
        over = [rank for rank in before if rank not in self.faults]
        for rank in new:
            log.info("node %d is neither asked nor counted at this moment: %s", rank, self.faults[rank],
                     extra={"node": rank})
            self._due.setdefault(rank, self._clock() + SAY_AFTER_S)
        for rank in over:
            self._due.pop(rank, None)
            level = logging.INFO if self._said.pop(rank, None) is None else logging.WARNING
            log.log(level, "node %d is used again: its directory is the one that it is known by", rank,
                    extra={"node": rank})
        return new, over

    def tick(self) -> None:
        """Time has passed."""
        now = self._clock()
        for rank in [rank for rank, due_s in self._due.items() if due_s <= now]:
            del self._due[rank]
            fault = self.faults[rank]
            if self._said.get(rank) != fault:
                self._said[rank] = fault
                log.error(
                    "node %d is neither asked nor counted: %s. Put its old directory back; if that is lost for good, "
                    "follow the runbook, \"A node's directory is lost\"", rank, fault, extra={"node": rank},
                )

    @property
    def next_due(self) -> float:
        return min(self._due.values(), default=math.inf)
