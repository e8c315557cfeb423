"""What a node has done for clients in the last ten minutes, for its page."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import trio

from dsreg.health.traffic import Counted, Tally, of_kinds

if TYPE_CHECKING:
    from dsreg.node.process import Node

STEP_S: Final = 5
# Both ends of each interval: whole numbers, some 60 of them each, so less than half a megabyte.
SAMPLES: Final = 10 * 60 // STEP_S + 1


class History:
    """`samples`: the oldest first; the last one is at most STEP_S old."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._samples: deque[Counted] = deque(maxlen=SAMPLES)

    @property
    def samples(self) -> Sequence[Counted]:
        return tuple(self._samples)

    def take(self) -> None:
        """How it is now."""
        node = self._node
        tallies = {
            name: Tally(took.count, size, tuple(took.counts))
            for name, (took, size) in node.interpreter.requests().items() if took.count
        }
        at_ms = round(1000 * (time.monotonic() - node.started))
        self._samples.append(Counted(at_ms, node.storage.incarnation, *of_kinds(tallies)))

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            self.take()
            await trio.sleep(STEP_S)
