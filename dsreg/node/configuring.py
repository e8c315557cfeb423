"""Configuring: which nodes decide, as this node knows it, tells it, and votes for what follows. docs/configurations.md.

The decisions are those of dsreg.register.configuration and dsreg.register.learned; here is what follows from them: the
file `configuration`, who is told, whose answers count, what is asked again, and what is promised before a vote.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from dsreg.errors import NoSpace
from dsreg.node.interpreter import Interpreter
from dsreg.node.recording import NoSpaceLog
from dsreg.protocol.choosing import Answer, Ask, ConfigurationReport, Elect, Objection, Question
from dsreg.protocol.configuration import NO_BALLOT, Configuration, Record
from dsreg.protocol.messages import (
    FEATURE_CONFIGURATIONS,
    DigestQuery,
    Message,
    ReadProc,
    SumsQuery,
    WriteProc,
)
from dsreg.register import course
from dsreg.register.claim import Promise, adopted_promise
from dsreg.register.configuration import Voter, must_learn, quorum_of
from dsreg.register.learned import Promises, has_taken_over
from dsreg.register.lives import Lives
from dsreg.register.quorum import Quorum, bit, ranks_in
from dsreg.transport import Transport

log = logging.getLogger("dsreg.node")

_QUESTIONS: Final = (ReadProc, WriteProc, DigestQuery, SumsQuery)
# A node that is asked for its vote before it has learned compares with all again after this long: one of them may not
# have known all itself.
_COMPARE_AGAIN_S: Final = 5.0


class Configuring:
    """Of the node `rank`. `lives`: of the others. `discern`: called before a later configuration is used: who is not
    told of it must not count any more."""

    def __init__(
        self, rank: int, interpreter: Interpreter, lives: Lives, discern: Callable[[], None]
    ) -> None:
        self.on_reconfigured: Callable[[Configuration], None] = lambda configuration: None
        self.on_promised: Callable[[], None] = lambda: None  # a ballot, or voted: durable
        self._rank = rank
        self._interpreter = interpreter
        self._discern = discern
        self._promises = Promises(lives)
        self._file = interpreter.storage.configuration
        self._voter = Voter(rank, self._file.record)
        self._listeners: dict[Transport, tuple[int, bool]] = {}  # who is told; as `rank` and `answer` of the report
        self._no_space = NoSpaceLog(interpreter.clock)

    @property
    def current(self) -> Configuration:
        """In force as far as this node knows, durably."""
        return self._voter.record.current

    @property
    def quorum(self) -> Quorum:
        return quorum_of(self.current)

    @property
    def is_member(self) -> bool:
        return self._voter.is_member

    # --- what others are told -----------------------------------------------------------------------
    def listens(self, transport: Transport, rank: int, answer: bool) -> None:
        """The other side keeps configurations, or counts by them, and is told from now on."""
        self._listeners[transport] = rank, answer

    def left(self, transport: Transport) -> None:
        self._listeners.pop(transport, None)

    def is_told_by(self, rank: int, transport: Transport | None) -> bool:
        """Whether the node, which is heard over this connection (None: over the link to it), tells which configuration
        it knows."""
        if transport is None:
            return bool(self._interpreter.features.get(rank, 0) & FEATURE_CONFIGURATIONS)
        return transport in self._listeners

    def tell(self, transport: Transport) -> None:
        """If it wants to know."""
        if transport not in self._listeners or not self.current.number:
            return
        rank, answer = self._listeners[transport]
        storage = self._interpreter.storage
        promise = (storage.epoch, storage.owner) if rank else ()
        self._interpreter.tell(transport, ConfigurationReport(rank, answer, self.current, *promise))

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
    def reported(self, report: ConfigurationReport, *, by_link: bool) -> None:
        """Somebody knows this. `by_link`: it has come over the link to the node that says so. See `told`."""
        if by_link and report.rank:
            self._promises.told(report)
            self._follow(report.epoch)
        self.told(report.configuration)

    def _follow(self, epoch: int) -> None:
        """Another node has promised it. A new member, which has not, would refuse what belongs to it, and of two joint
        sets the later one may have so many new ones that nothing goes on without them. Who is the owner it is told by
        that one, or takes over before it votes."""
        interpreter = self._interpreter
        epochs, now = interpreter.replica.epochs, interpreter.now()
        is_changing = self.current.number > 1
        if is_changing and interpreter.started and epoch > epochs.promised and epochs.believes(epoch, now):
            interpreter.carry_out([epochs.fence(epoch)], now)

    def told(self, configuration: Configuration) -> None:
        """It was chosen, somebody says. Durable when this returns, told to all and in force here, unless there is no
        space for it: then it is heard again. It blocks for two syncs or, once, four. Raises SyncFailed."""
        if self.is_another(configuration):
            level = logging.INFO if configuration.number == 1 else logging.ERROR
            log.log(level, "another configuration of the number %d is known elsewhere", configuration.number,
                    extra={"configuration": configuration.number})
            return
        record = self._voter.heard(configuration)
        if record is not None and self._remember(record):
            self._reconfigure()

    def _reconfigure(self) -> None:
        """Another configuration is in force. What is under way is asked again, by the same tags."""
        log.info("configuration %d is in force: %s, %d sectors", self.current.number, described(self.current),
                 self.current.sectors, extra={"configuration": self.current.number})
        if self.current.sectors != self._interpreter.storage.sectors:
            self._interpreter.storage.grow(self.current.sectors)
        for transport in self._listeners:  # before any answer that is given under it
            self.tell(transport)
        self._discern()
        self.on_reconfigured(self.current)
        interpreter = self._interpreter
        now = interpreter.now()
        interpreter.carry_out(interpreter.replica.reconfigured(self.quorum, now), now)
        interpreter.carry_out(interpreter.heal.reconfigured(self.quorum, now.s), now)

    def _remember(self, record: Record) -> bool:
        """Whether there was space for it."""
        try:
            self._file.remember(record)
        except NoSpace as error:
            self._no_space.say("which nodes there are, and how large the disk is", error)
            return False
        self._voter.record = record
        return True

    def greets(self, rank: int, features: int) -> None:
        """The node `rank` has answered a greeting, with these features. Raises SyncFailed."""
        self._interpreter.features[rank] = features
        try:
            self._file.seen(rank, bool(features & FEATURE_CONFIGURATIONS))
        except NoSpace as error:
            log.info("no space to record that node %d keeps configurations: %s", rank, error, extra={"node": rank})

    # --- a node that has lost its directory -----------------------------------------------------------
    def may_be_taken_over(self, transport: Transport) -> bool:
        """Whether the node that claims a later life over this connection takes over what this one knows, has promised
        and voted for, if there is anything: its own may have decided."""
        record = self._voter.record
        return transport in self._listeners or record.current.number == 1 and record.promised == NO_BALLOT

    def record_for(self, transport: Transport) -> Record | None:
        """What it takes over; None: it is of a version that keeps none."""
        return self._voter.record if transport in self._listeners else None

    def takes_over(self, told: Record) -> bool:
        """This node has lost its own: what those that have accepted its claim know. Durable when this returns; False if
        there is no space for it. Raises SyncFailed."""
        before = self.current
        if not self._remember(told if told.current.number >= before.number else Record(before)):
            return False
        if self.current != before:
            self._reconfigure()
        return True

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
            needs = must_learn(self.current, question.following, self._rank)
            record, answer = self._voter.vote(*question, has_learned=not needs or self._takes_over_promises())
        if record != self._voter.record:
            if not self._remember(record):
                return Objection(f"node {self._rank} has no space to record it")
            self.on_promised()
        return answer

    def _obstacle(self, question: Question) -> str:
        """Why this node has no vote, whatever it is for; "" if it has."""
        if not self._interpreter.started:
            return f"node {self._rank} has not started"
        old: list[int] = []
        if question.base.number == 1:
            old += [rank for rank in ranks_in(question.base.members & ~bit(self._rank)) if not self._keeps(rank)]
        if isinstance(question, Elect):
            if fault := self._file.why_not(question.following.sectors):
                return f"node {self._rank} cannot have a disk of that size: {fault}"
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

    # --- what has to be learned before ----------------------------------------------------------------
    @property
    def _has_learned(self) -> bool:
        """Whether what was decided by the earlier of two joint sets is here: rules 6 and 7."""
        return has_taken_over(self.current, self._rank, self._interpreter.heal.told(), self._known_promises)

    def _takes_over_promises(self) -> bool:
        """Whether this node has learned, and has promised, durably, what others have: else it does so, as far as it
        can."""
        interpreter = self._interpreter
        now = interpreter.now()
        if not self._has_learned:
            interpreter.heal.look(now.s + _COMPARE_AGAIN_S)
            return False
        promise = adopted_promise(interpreter.replica.epochs.promise, self._known_promises.values())
        if promise > interpreter.replica.epochs.promise:
            interpreter.carry_out([interpreter.replica.epochs.fence(promise[0], None, promise[1])], now)
        storage = interpreter.storage
        return promise == (storage.epoch, storage.owner)

    @property
    def _known_promises(self) -> dict[int, Promise]:
        """That were told by those that knew the configuration in force."""
        return self._promises.under(self.current)

    def report(self) -> dict[str, object]:
        """For STATUS."""
        number, sectors, ranks, joining, _ = self.current
        return {
            "number": number, "members": ranks_in(ranks), "joining": ranks_in(joining), "is_member": self.is_member,
            "sectors": sectors, "learned": bool(joining & bit(self._rank)) and self._has_learned,
        }


def described(configuration: Configuration) -> str:
    """For people."""
    return course.described(configuration, "joint with")
