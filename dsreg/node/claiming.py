"""Later lives: as this node accepts those of others, and as it takes its own. docs/lives.md, "Coming back".

The decisions are those of dsreg.register.claim and dsreg.register.lives; here is what has to be durable in between.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from functools import partial

from dsreg.node.configuring import Configuring
from dsreg.node.interpreter import Connection, Interpreter
from dsreg.protocol.life import Life, Stage
from dsreg.protocol.messages import FEATURE_CLAIMS, Accepted, LivesReport
from dsreg.register.claim import Adopted, Claim
from dsreg.register.lives import Heard, Lives, supersedes
from dsreg.storage.lives import LivesFile

log = logging.getLogger("dsreg.node")


class Acceptances:
    """Of this node. `record(heard, connection)`: makes durable what is heard, and drops what is superseded; False
    if it could not. `tell_all`: the others, and clients, of lives."""

    def __init__(
        self, lives: Lives, file: LivesFile, interpreter: Interpreter, configuring: Configuring,
        record: Callable[[Heard, Connection | None], bool], tell_all: Callable[[], None],
    ) -> None:
        self._lives = lives
        self._file = file
        self._interpreter = interpreter
        self._configuring = configuring
        self._record = record
        self._tell_all = tell_all
        self._fences: dict[tuple[int, Life], Connection] = {}

    def claimed(self, report: LivesReport, connection: Connection) -> None:
        """Another node claims a later life. It says so again, until it has started or has heard of a later one."""
        if supersedes(self._lives.known.get(report.rank), report.own):
            return
        claim = report.rank, report.own
        is_under_way = claim in self._fences
        self._fences[claim] = connection
        if not is_under_way:
            # What is accepted until now is decided before, so that it is all that the claimant has to hear of.
            self._interpreter.fenced(partial(self._fenced, *claim))

    def _fenced(self, rank: int, life: Life) -> None:
        connection = self._fences.pop((rank, life))
        if not self._configuring.may_be_taken_over(connection.transport):
            return
        heard = self._lives.accept(rank, life)
        if heard is None or not self._record(heard, connection):
            return
        if heard.lives:
            self._tell_all()
        if connection.transport.closed:
            return
        storage, starts = self._interpreter.storage, self._file.starts.get(rank, 0)
        answer = Accepted(
            self._file.rank, rank, life, self._file.own, storage.epoch, storage.owner, starts,
            self._configuring.record_for(connection.transport),
        )
        self._interpreter.tell(connection.transport, answer)


class Rejoin:
    """Of this node. `begun`: called when it has its life, and may serve."""

    def __init__(
        self, claim: Claim, file: LivesFile, interpreter: Interpreter, configuring: Configuring,
        begun: Callable[[], None],
    ) -> None:
        self.claim = claim
        self._file = file
        self._interpreter = interpreter
        self._configuring = configuring
        self._begun = begun
        self._adopting: Adopted | None = None

    def advance(self) -> bool:
        """Go on as far as it goes; whether there is something new to tell of it."""
        claim = self.claim
        number = claim.due()
        if number:
            self._file.claim(number)
            claim.claims(number)
            log.info("claims %s", self._file.own)
        adopted = claim.adopted()
        if adopted is not None and self._adopting is None:
            self._adopting = adopted
            self._interpreter.adopt(adopted, self._adopted)
        return number > 0

    def waits_for(self, ranks: Iterable[int]) -> str:
        """For people; `ranks`: of the nodes that have shown a directory."""
        too_old = [
            f"node {rank} is of a version that cannot accept it" for rank in sorted(ranks)
            if not self._interpreter.features.get(rank, FEATURE_CLAIMS) & FEATURE_CLAIMS
        ]
        return "; ".join([self.claim.waits_for(), *too_old])

    def _adopted(self) -> None:
        """What was to be promised is durable."""
        adopted, self._adopting = self._adopting, None
        if adopted is None or self.claim.adopted() != adopted:
            # Somebody whose word it was has lost its own directory meanwhile.
            self.advance()
            return
        if adopted.record is not None and not self._configuring.takes_over(adopted.record):
            return
        self._file.begin()
        self.claim.stage = Stage.STARTED
        log.warning("rejoins with %s, and learns what the others have", self._file.own)
        self._begun()
