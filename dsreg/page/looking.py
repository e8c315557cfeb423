"""Asks the nodes of a cluster how they are, in the process of one of them, while somebody looks at its page."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import trio

from dsreg.client import Client
from dsreg.config import ClusterConfig
from dsreg.health.answers import NodeAnswer
from dsreg.survey import Survey, survey_quietly

# Who does not answer within this is shown as not answering.
ANSWER_S: Final = 1.0
# A majority that does not answer a read within this is said to be lost: one disk or another may be busy.
READ_S: Final = 2.0
# What was answered is shown for so long to whoever looks. Nobody makes the nodes answer more often by looking more.
FRESH_S: Final = 2.0
# Rates are of the time between two looks, which are not further apart than this.
STALE_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Seen:
    """`before`: the answers of an earlier look, [] if there is none that is of use."""

    survey: Survey
    before: Sequence[NodeAnswer]
    at_s: float


class Looking:
    """`own`: what this node answers. It is up, whether it can reach its own address or not. Nothing is asked, and no
    connection is held, but while a call of `look` waits."""

    def __init__(self, config: ClusterConfig, own: Callable[[], NodeAnswer]) -> None:
        self._config = config
        self._own = own
        self._turn = trio.Lock()
        self._seen: Seen | None = None

    async def look(self) -> Seen:
        """All who look at one time see the answers to one round of questions."""
        async with self._turn:
            seen, now_s = self._seen, trio.current_time()
            if seen is not None and now_s - seen.at_s < FRESH_S:
                return seen
            with _warnings_of_the_client_left_out():
                async with Client(self._config) as client:
                    found = await survey_quietly(client, self._config, ANSWER_S, READ_S)
            before = () if seen is None or now_s - seen.at_s > STALE_S else seen.survey.answers
            self._seen = Seen(self._with_own(found), before, now_s)
            return self._seen

    def _with_own(self, found: Survey) -> Survey:
        own = self._own()
        answers = [
            own if answer.node.rank == own.node.rank and answer.report is None else answer for answer in found.answers
        ]
        return Survey(tuple(answers), found.error)


@contextmanager
def _warnings_of_the_client_left_out() -> Iterator[None]:
    """What it warns of is on the page, and would be in the node's log each time that somebody looks."""
    logger = logging.getLogger("dsreg.client")

    def none(record: logging.LogRecord) -> bool:
        return False

    logger.addFilter(none)
    try:
        yield
    finally:
        logger.removeFilter(none)
