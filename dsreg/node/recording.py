"""Recording: what a node hears of the directories of the others, made durable, as far as there is space for it."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping

from dsreg.errors import NoSpace
from dsreg.protocol.life import Life
from dsreg.register.lives import Lives
from dsreg.storage.lives import LivesFile

log = logging.getLogger("dsreg.node")

COMPLAIN_AGAIN_S = 60.0


class NoSpaceLog:
    """Says that there is none to record something, once in a while. `clock`: seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._again_s = -math.inf  # when it may be said again

    def say(self, what: str, error: NoSpace) -> None:
        if self._clock() >= self._again_s:
            self._again_s = self._clock() + COMPLAIN_AGAIN_S
            log.warning("no space to record %s: %s", what, error)


class Recording:
    """In `file`, of what `lives` has taken. `clock`: seconds."""

    def __init__(self, file: LivesFile, lives: Lives, clock: Callable[[], float]) -> None:
        self._file = file
        self._lives = lives
        self._no_space = NoSpaceLog(clock)
        self._incarnations: dict[int, int] = {}  # of others, as they have greeted

    def remember(self, heard: Mapping[int, Life], rank: int = 0) -> bool:
        """Whether there was space for it. `rank`: of the node that shows its directory by that. Raises SyncFailed."""
        try:
            self._file.remember(heard, rank, self._incarnations.get(rank, 0))
        except NoSpace as error:
            self._lives.not_written(heard)
            nodes = ", ".join(map(str, sorted(heard)))
            self._no_space.say(f"the directories of the nodes {nodes}, which are not used until there is some", error)
            return False
        for other, life in heard.items():
            log.info("node %d is known by its directory %s from now on", other, life, extra={"node": other})
        return True

    def greets(self, rank: int, incarnation: int) -> None:
        """The node has greeted, with this number of its start."""
        self._incarnations[rank] = max(incarnation, self._incarnations.get(rank, 0))

    def shown(self, rank: int) -> None:
        """The node has shown its directory: a later life of it must not choose the tags of this one. Raises
        SyncFailed."""
        try:
            self._file.heard(rank, self._incarnations.get(rank, 0))
        except NoSpace as error:
            log.info("no space to record the starts of node %d: %s", rank, error, extra={"node": rank})
