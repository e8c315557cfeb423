"""Configuring: which nodes decide, as this node knows it, tells it, and votes for what follows. docs/configurations.md.

The decisions are those of dsreg.register.configuration; here is what follows from them: the file `configuration`, who
is told, whose answers count, and what is asked again.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Final

from dsreg.errors import NoSpace
from dsreg.node.interpreter import Interpreter
from dsreg.protocol.choosing import Answer, Ask, ConfigurationReport, Elect, Objection, Question
from dsreg.protocol.configuration import NO_BALLOT, Configuration
from dsreg.protocol.messages import (
    FEATURE_CONFIGURATIONS,
    FEATURE_DIGESTS,
    DigestQuery,
    Message,
    ReadProc,
    SumsQuery,
    WriteProc,
)
from dsreg.register.configuration import Record, Voter, quorum_of
from dsreg.register.quorum import Quorum, bit, ranks_in
from dsreg.transport import Transport

log = logging.getLogger("dsreg.node")

_QUESTIONS: Final = (ReadProc, WriteProc, DigestQuery, SumsQuery)
_COMPLAIN_AGAIN_S: Final = 60.0


class Configuring:
    """Of the node `rank`. `discern`: called before a later configuration is used: who is not told of it must not count
    any more. `has_started()`: whether the node serves; `life()`: the number of its life."""

    def __init__(
        self, rank: int, interpreter: Interpreter, discern: Callable[[], None], has_started: Callable[[], bool],
        life: Callable[[], int],
    ) -> None:
        self.on_reconfigured: Callable[[Configuration], None] = lambda configuration: None
        self.has_learned: Callable[[], bool] = lambda: False
        self._rank = rank
        self._interpreter = interpreter
        self._discern = discern
        self._has_started = has_started
        self._life = life
        self._file = interpreter.storage.configuration
        self._voter = Voter(rank, self._file.record)
        self._listeners: dict[Transport, tuple[int, bool]] = {}  # who is told; as `rank` and `answer` of the report
        self._no_space_again_s = -math.inf  # when it may be said again

    @property
    def current(self) -> Configuration:
        """In force as far as this node knows, durably."""
        return self._voter.record.current

    @property
    def quorum(self) -> Quorum:
        return quorum_of(self.current)

    @property
    def has_chosen(self) -> bool:
        """Whether there is something that a node which rejoins would have to take over from this one: what it has
        promised, voted for, or heard. It cannot yet, so its claim is not accepted."""
        return self._voter.record.current.number > 1 or self._voter.record.promised != NO_BALLOT

    @property
    def is_member(self) -> bool:
        return self._voter.is_member

    # --- what others are told -----------------------------------------------------------------------
    def listens(self, transport: Transport, rank: int, answer: bool) -> None:
        """The other side keeps configurations, or counts by them, and is told from now on."""
        self._listeners[transport] = rank, answer

    def left(self, transport: Transport) -> None:
        self._listeners.pop(transport, None)

    def tell(self, transport: Transport) -> None:
        """If it wants to know."""
        if transport in self._listeners and self.current.number:
            self._interpreter.tell(transport, ConfigurationReport(*self._listeners[transport], self.current))

    # --- whose answers count ------------------------------------------------------------------------
    def is_same(self, number: int) -> bool:
        """Whether answers count here that were given under this number; 0: by a node that has told none, as it is of an
        older version, and knows the first one."""
        return (number or 1) == self.current.number

    def is_another(self, configuration: Configuration) -> bool:
        """Whether two are known of one number: nothing that is said under the other one counts here."""
        return configuration.number == self.current.number and configuration != self.current

    def is_told(self, transport: Transport) -> bool:
        """Whether somebody may count answers that come over this connection: one that knows only the first
        configuration would count by that what belongs to a later one."""
        return self.current.number == 1 or transport in self._listeners

    def admits(self, transport: Transport, message: Message) -> bool:
        """Whether a message between nodes that has come over an accepted connection may have an effect. Answers come
        over links, where it is known under which number they were given."""
        return self.current.number == 1 or transport in self._listeners and isinstance(message, _QUESTIONS)

    # --- what is heard ------------------------------------------------------------------------------
    def told(self, configuration: Configuration) -> None:
        """It was chosen, somebody says. Durable when this returns, told to all and in force here, unless there is no
        space for it: then it is heard again. It blocks for two syncs or, once, four. Raises SyncFailed."""
        if self.is_another(configuration):
            level = logging.INFO if configuration.number == 1 else logging.ERROR
            log.log(level, "another configuration of the number %d is known elsewhere", configuration.number)
            return
        record = self._voter.heard(configuration)
        if record is None or not self._remember(record):
            return
        log.info("configuration %d is in force: %s", configuration.number, described(configuration))
        for transport in self._listeners:  # before any answer that is given under it
            self.tell(transport)
        self._discern()
        self.on_reconfigured(configuration)
        self._reconfigure()

    def _reconfigure(self) -> None:
        """What is under way is asked again, by the same tags."""
        interpreter = self._interpreter
        now = interpreter.now()
        interpreter.carry_out(interpreter.replica.reconfigured(self.quorum, now), now)
        # What was compared until now was told under an earlier number.
        for rank in interpreter.linked_with(FEATURE_DIGESTS):
            interpreter.carry_out(interpreter.heal.link_down(rank, now.s), now)
            if interpreter.started:
                interpreter.carry_out(interpreter.heal.link_up(rank, now.s), now)

    def _remember(self, record: Record) -> bool:
        """Whether there was space for it."""
        try:
            self._file.remember(record)
        except NoSpace as error:
            if self._interpreter.clock() >= self._no_space_again_s:
                self._no_space_again_s = self._interpreter.clock() + _COMPLAIN_AGAIN_S
                log.warning("no space to record which nodes there are: %s", error)
            return False
        self._voter.record = record
        return True

    def greets(self, rank: int, features: int) -> None:
        """The node `rank` has answered a greeting, with these features. Raises SyncFailed."""
        self._interpreter.features[rank] = features
        try:
            self._file.seen(rank, bool(features & FEATURE_CONFIGURATIONS))
        except NoSpace as error:
            log.info("no space to record that node %d keeps configurations: %s", rank, error)

    # --- what follows -------------------------------------------------------------------------------
    def asked(self, question: Question) -> Answer:
        """The answer to somebody who proposes what follows; what it rests on is durable. Raises SyncFailed."""
        if question.base.number > self.current.number:
            self.told(question.base)
            if question.base.number > self.current.number:
                return Objection(f"node {self._rank} has no space to record it")
        if reason := self._obstacle(question):
            return Objection(reason)
        if isinstance(question, Ask):
            record, answer = self._voter.ask(*question)
        else:
            record, answer = self._voter.vote(*question, has_learned=self.has_learned())
        if record != self._voter.record and not self._remember(record):
            return Objection(f"node {self._rank} has no space to record it")
        return answer

    def _obstacle(self, question: Question) -> str:
        """Why this node has no vote, whatever it is for; "" if it has."""
        if not self._has_started():
            return f"node {self._rank} has not started"
        if self._life() > 1:
            # What it promised in an earlier life is forgotten.
            return f"node {self._rank} has rejoined, and this version does not take over how it had voted"
        old: list[int] = []
        if question.base.number == 1:
            old += [rank for rank in ranks_in(question.base.members & ~bit(self._rank)) if not self._keeps(rank)]
        if isinstance(question, Elect):
            if question.following.sectors != question.base.sectors:
                return "this version does not change the size of the disk"
            # This node has no link to them yet: who proposes has seen that they wait to be told. It is enough not to
            # have heard otherwise, as nobody answers one that keeps no configurations from number 2 on.
            new = question.following.members & ~question.base.members
            old += [rank for rank in ranks_in(new) if rank in self._interpreter.features and not self._keeps(rank)]
        if old:
            return f"node {self._rank} has not heard yet that these keep configurations: {', '.join(map(str, old))}"
        return ""

    def _keeps(self, rank: int) -> bool:
        """Whether the node has shown that it keeps configurations, now or before this one was started."""
        features = self._interpreter.features.get(rank)
        if features is None:
            return bool(self._file.keep & bit(rank))
        return bool(features & FEATURE_CONFIGURATIONS)

    def report(self) -> dict[str, object]:
        """For STATUS."""
        number, _, ranks, joining, _ = self.current
        return {
            "number": number, "members": ranks_in(ranks), "joining": ranks_in(joining), "is_member": self.is_member,
        }


def described(configuration: Configuration) -> str:
    """For people."""
    names = " ".join(map(str, ranks_in(configuration.ranks)))
    if not configuration.joining:
        return f"nodes {names}"
    return f"nodes {names} joint with {' '.join(map(str, ranks_in(configuration.joining)))}"
