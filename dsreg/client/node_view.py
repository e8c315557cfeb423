"""NodeView: what a client remembers of one node."""

from __future__ import annotations

import dataclasses

from dsreg.client.events import Refusal
from dsreg.client.limits import AVOID_FIRST_S, AVOID_MAX_S, COMPARE_AGAIN_S, MAX_LAGGING, MAX_LAGGING_BYTES, NEVER


@dataclasses.dataclass(slots=True, eq=False)
class NodeView:
    rank: int
    index: int  # in the order of ranks
    up: bool = False
    zeroes: bool = False  # it zeroes many chunks by one command
    maps: bool = False  # it says which chunks have no data
    stopping: bool = False
    barred: bool = False  # not to be asked or counted: see members.py
    is_member: bool = True  # of the configuration that decides, as far as is known
    # Of the configuration under which it answers, as it has told over this connection; 0: it has told none, and is of
    # an older version. See NodeSelector.told.
    number: int = 0
    tried: bool = False
    refusal: Refusal | None = None
    owed: dict[int, None] = dataclasses.field(default_factory=dict)  # requests; in order, so that runs repeat
    # PUTs that are done at a majority without this node: request -> bytes.
    lagging: dict[int, int] = dataclasses.field(default_factory=dict)
    lagging_bytes: int = 0
    # It was spared writes, since it was asked last to compare its copy with the others; and when that was.
    is_short: bool = False
    compares_s: float = NEVER
    silent_since_s: float | None = None  # None: owes nothing, or has been heard since
    probed: bool = False
    full_s: float = NEVER  # when it last said that it has no room for new data
    answered_s: float = NEVER  # when it last answered a command that was still open
    avoided_until_s: float = NEVER
    avoid_s: float = AVOID_FIRST_S

    @property
    def usable(self) -> bool:
        return self.up and not self.stopping and not self.barred and self.is_member

    def avoid(self, now_s: float) -> None:
        if self.avoided_until_s <= now_s:
            self.avoided_until_s = now_s + self.avoid_s
            self.avoid_s = min(2 * self.avoid_s, AVOID_MAX_S)

    def answered(self, now_s: float) -> None:
        self.answered_s = now_s
        self.avoided_until_s = NEVER
        self.avoid_s = AVOID_FIRST_S

    def lag(self, request: int, size: int) -> list[int]:
        """This node is behind with a PUT. Gives the PUTs that it is spared, as it is too far behind."""
        self.lagging[request] = size
        self.lagging_bytes += size
        spared = []
        while len(self.lagging) > MAX_LAGGING or self.lagging_bytes > MAX_LAGGING_BYTES:
            oldest = next(iter(self.lagging))
            self.catch_up(oldest)
            spared.append(oldest)
        self.is_short |= bool(spared)
        return spared

    def is_to_compare(self, now_s: float) -> bool:
        """Whether it is to be asked to compare its copy: it lacks what it was spared, and would not know it."""
        return self.is_short and (not self.lagging or now_s >= self.compares_s + COMPARE_AGAIN_S)

    def catch_up(self, request: int) -> bool:
        """Whether the request was one of those."""
        size = self.lagging.pop(request, None)
        self.lagging_bytes -= size or 0
        return size is not None

    def lose(self) -> list[int]:
        """The connection is gone: what this node still owed."""
        owed, self.owed = list(self.owed), {}
        self.up = self.probed = False
        self.silent_since_s = None
        self.is_short = False  # it compares when the connection is made anew
        self.lagging.clear()
        self.lagging_bytes = 0
        return owed
