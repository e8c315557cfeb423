"""Simulated time: a heap of calls to make, the one source of randomness, and the trace."""

from __future__ import annotations

import hashlib
import heapq
import random
import struct
from collections import Counter
from collections.abc import Callable
from typing import Any

_NOTE = struct.Struct(">dBIII")
_MASK = 0xFFFFFFFF
# A run has some thousand events. This many are an endless exchange.
MAX_EVENTS = 500_000
# Whether to stop is asked only every so many events: asking takes as long as a small one.
STOP_EVERY = 16


class Timer:
    """A call to come. `cancel` it and it does not."""

    __slots__ = ("args", "at_s", "call")

    def __init__(self, at_s: float, call: Callable[..., None], args: tuple[Any, ...]) -> None:
        self.at_s = at_s
        self.call: Callable[..., None] | None = call
        self.args = args

    def cancel(self) -> None:
        self.call = None
        self.args = ()


class Loop:
    """`rng` decides everything that is open; `now_s` is the true time, in seconds from the start.

    `say` prints what happens, if there is a listener; build its text only if `verbose`.
    """

    def __init__(self, seed: int, listener: Callable[[str], None] | None = None) -> None:
        self.rng = random.Random(seed)
        self.now_s = 0.0
        self.events = 0
        self.faults: Counter[str] = Counter()
        self.verbose = listener is not None
        self._listener = listener
        self._heap: list[tuple[float, int, Timer]] = []
        self._sequence = 0
        self._stamps = 0
        self._trace = hashlib.blake2b(digest_size=16)

    def after(self, delay_s: float, call: Callable[..., None], *args: Any) -> Timer:
        """Make the call `delay_s` >= 0 seconds from now; those of one moment in the order of asking."""
        return self.at(self.now_s + delay_s, call, *args)

    def at(self, at_s: float, call: Callable[..., None], *args: Any) -> Timer:
        """As `after`, at this moment. What is to keep an order needs it: a moment that is computed once more as a delay
        may come out earlier, by the last bit."""
        self._sequence += 1
        timer = Timer(at_s, call, args)
        heapq.heappush(self._heap, (timer.at_s, self._sequence, timer))
        return timer

    def run(self, until_s: float, stop: Callable[[], bool] | None = None) -> None:
        """Make all calls up to `until_s`, or until `stop` is true. May be called from within a call: then what
        called it waits meanwhile, as a thread does that the system has put aside."""
        heap = self._heap
        while heap and heap[0][0] <= until_s:
            if stop is not None and not self.events % STOP_EVERY and stop():
                return
            at_s, _, timer = heapq.heappop(heap)
            if timer.call is None:
                continue
            if at_s > self.now_s:
                self.now_s = at_s
            self.events += 1
            assert self.events < MAX_EVENTS, "the nodes or clients do not come to rest"
            timer.call(*timer.args)
        if until_s > self.now_s and not (stop is not None and stop()):
            self.now_s = until_s

    def stamp(self) -> int:
        """Orders the moments of a history: no two are the same, later ones are higher."""
        self._stamps += 1
        return self._stamps

    # --- what is told ---------------------------------------------------------------------------
    def note(self, kind: int, one: int, other: int, check: int) -> None:
        """Put an event into the trace: `kind` 0..255 and three numbers that describe it."""
        self._trace.update(_NOTE.pack(self.now_s, kind, one & _MASK, other & _MASK, check & _MASK))

    @property
    def trace(self) -> str:
        return self._trace.hexdigest()

    def fault(self, name: str, text: str = "") -> None:
        """A fault of this kind has been injected."""
        self.faults[name] += 1
        if self.verbose:
            self.say(f"-- {name} {text}")

    def say(self, text: str) -> None:
        if self._listener is not None:
            self._listener(f"{self.now_s:12.6f} {text}")

    # --- randomness -----------------------------------------------------------------------------
    def chance(self, share: float) -> bool:
        return share > 0 and self.rng.random() < share

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * self.rng.random()
