"""The client's core under an engine that is watched: what it must see to before it starts an operation."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dsreg.client.attachment import Claim
from dsreg.client.core import ClientCore
from dsreg.client.events import Completed, Dropped, Effect, Event, Failed, Split, Start

End = Completed | Dropped | Failed | Split


class WatchedCore(ClientCore):
    """Operations that are under way never overlap, and are never more than `admitted`. `ended`: told of each one's end,
    before the engine is."""

    def __init__(
        self, ranks: Sequence[int], claim: Claim | None, admitted: int, ended: Callable[[End], None]
    ) -> None:
        super().__init__(ranks, claim)
        self._admitted = admitted
        self._running: dict[int, range] = {}
        self._tell = ended

    def step(self, event: Event, now_s: float) -> list[Effect]:
        if isinstance(event, Start):
            # A question which chunks have no data waits for nothing.
            sectors = range(0) if event.maps else range(event.first, event.first + event.sectors)
            for other in self._running.values():
                overlaps = sectors.start < other.stop and other.start < sectors.stop
                assert not overlaps, f"{sectors} while {other} is under way"
            self._running[event.operation] = sectors
            assert len(self._running) <= self._admitted, "more are under way than are admitted"
        effects = super().step(event, now_s)
        for effect in effects:
            if isinstance(effect, Completed | Dropped | Failed | Split):
                del self._running[effect.operation]
                self._tell(effect)
        return effects
