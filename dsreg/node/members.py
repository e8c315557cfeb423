"""Members: which directories stand behind the ranks, as this node knows them, and whether it may serve with its own.

The decisions are those of dsreg.register.lives and dsreg.register.foreign; here is what follows from them: the file
`lives`, what is told to whom, and which links and connections may be used. The rules: docs/lives.md.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from functools import partial

from dsreg.node.addressing import Addressing
from dsreg.node.claiming import Acceptances, Rejoin
from dsreg.node.configuring import Configuring
from dsreg.node.distrust import Distrust
from dsreg.node.interpreter import Connection, Interpreter
from dsreg.node.marking import Marking
from dsreg.node.membership import Membership
from dsreg.node.recording import Recording
from dsreg.protocol.address import Place
from dsreg.protocol.choosing import ConfigurationReport
from dsreg.protocol.configuration import Configuration
from dsreg.protocol.life import Stage, claims_later
from dsreg.protocol.messages import FEATURE_ADDRESSES, FEATURE_CONFIGURATIONS, NO_MARKS, Accepted, LivesReport
from dsreg.register.claim import Claim
from dsreg.register.foreign import ForeignPeers
from dsreg.register.lives import FirstStart, Heard, Lives
from dsreg.register.quorum import Quorum
from dsreg.storage.lives import LivesFile
from dsreg.transport import Transport

log = logging.getLogger("dsreg.node")

# A first start takes well under a second; whoever waits longer says what for.
COMPLAIN_AFTER_S = 3.0


class Members:
    """Of the node `rank`. `quorum`, `strict`, `new`: see FirstStart. `rejoin`: where its directory is empty, and others
    know the rank, it takes the next life of it; also where they do not, if its directory `was_left` when the cluster
    was recovered. `place`: see Addressing."""

    def __init__(
        self,
        rank: int,
        quorum: Quorum,
        file: LivesFile,
        interpreter: Interpreter,
        *,
        strict: bool = False,
        new: bool = False,
        rejoin: bool = False,
        was_left: bool = False,
        place: Place | None = None,
    ) -> None:
        self.rank = rank
        self.lives = Lives(rank, file.known)
        self.first_start = FirstStart(rank, quorum, file.own, begun=file.begun, strict=strict, new=new)
        self.on_review: Callable[[], None] = lambda: None  # whom this node may use has changed, perhaps
        self.on_superseded: Callable[[int], None] = lambda rank: None  # a link to this peer is to be made anew
        self.on_greet: Callable[[int], None] = lambda rank: None  # this peer is to be greeted now
        self.on_reconfigured: Callable[[Configuration], None] = lambda configuration: None  # see Configuring
        self._may_rejoin = (rejoin or file.claimed or file.given_up) and not file.begun
        self._rejoin: Rejoin | None = None
        self._foreign = ForeignPeers()
        self._file = file
        self._interpreter = interpreter
        self.marking = Marking(rank, quorum, self.lives, file, interpreter, partial(self._tell_all, nodes=True))
        interpreter.started = file.begun and not self.marking.waits
        self._recording = Recording(file, self.lives, interpreter.clock)
        self.addressing = Addressing(rank, self.lives, file, interpreter, place)
        self.configuring = Configuring(rank, interpreter, self.lives, self._discern)
        self._acceptances = Acceptances(self.lives, file, interpreter, self.configuring, self._record, self._tell_all)
        self.configuring.on_reconfigured = self._reconfigured
        self.configuring.on_promised = partial(self.marking.raise_mark, urgent=True)
        self.membership = Membership(rank, self.configuring, begun=file.begun)
        interpreter.held.asks = not self._may_rejoin and self.membership.is_member
        if self.configuring.current.number != 1:
            self.first_start.reconfigured(self.configuring.quorum)
        self._listeners: dict[Transport, tuple[bool, bool]] = {}  # who is told: another node?  by its answering side?
        self._shown: dict[Connection, int] = {}  # accepted connections that have shown the directory of that rank
        self._distrust = Distrust(interpreter.clock)
        self._complain_at = math.inf if interpreter.started else interpreter.clock() + COMPLAIN_AFTER_S
        self._discern()
        if file.claimed or file.given_up or was_left and not file.begun:
            self._begin_claim()
        self._advance()

    @property
    def stage(self) -> Stage:
        if self._rejoin is not None:
            return self._rejoin.claim.stage
        # What a directory knows that may be an older one does not count.
        return Stage.ASKING if self.marking.waits else self.first_start.stage

    # --- what others are told -----------------------------------------------------------------------
    def listens(self, transport: Transport, *, node: bool, answer: bool, features: int = 0) -> None:
        """The other side has been greeted, and wants to be told. `answer`: this side has accepted the connection.
        `features`: of the other side, see Hello."""
        self._listeners[transport] = (node, answer)
        if features & FEATURE_ADDRESSES:
            self.addressing.listens(transport, self.rank if node else 0, answer)
        if features & FEATURE_CONFIGURATIONS:
            self.configuring.listens(transport, self.rank if node else 0, answer)
        self._tell(transport, node, answer)

    def left(self, transport: Transport, connection: Connection | None = None) -> None:
        """The connection is over."""
        self._listeners.pop(transport, None)
        self.addressing.left(transport)
        self.configuring.left(transport)
        if connection is not None:
            self._shown.pop(connection, None)

    def _tell(self, transport: Transport, node: bool, answer: bool) -> None:
        rank = self.rank if node else 0
        marks = (self.marking.own, self.marking.marks.told(self.lives.known)) if node else (0, NO_MARKS)
        report = LivesReport(rank, answer, self.stage, self._file.own, self.lives.known, *marks)
        self._interpreter.tell(transport, report)
        self.addressing.tell(transport)
        self.configuring.tell(transport)

    def tell_again(self, transport: Transport) -> None:
        """What is lost on the way is not missing for ever."""
        if transport in self._listeners:
            self._tell(transport, *self._listeners[transport])

    def _tell_all(self, *, nodes: bool = False) -> None:
        """`nodes`: not the clients."""
        for transport, (node, answer) in self._listeners.items():
            if node or not nodes:
                self._tell(transport, node, answer)

    # --- what is heard ------------------------------------------------------------------------------
    def told(self, report: LivesReport | Accepted | ConfigurationReport, connection: Connection | None = None) -> None:
        """Another node has said this, on the link to it or on the `connection` that it has made.

        What is new is durable when this returns. Raises ChangedDirectory, OlderDirectory, SyncFailed.
        """
        rank = report.rank
        if rank == self.rank:
            return
        if isinstance(report, Accepted):
            if self._rejoin is not None:  # it has accepted the life of this one
                self._rejoin.claim.accepted(report)
                self._advance()
            return
        if isinstance(report, ConfigurationReport):
            self._told_configuration(report, by_link=connection is None)
            return
        self._foreign.greets(rank)
        transport = None if connection is None else connection.transport
        if self._rejoin is None:
            self.first_start.told(rank, report.known.get(self.rank))
            if not self.membership.awaits(rank, transport):
                self._check_denied()
        heard = self.lives.take(rank, report.stage, report.own, report.known)
        is_started = report.stage is Stage.STARTED
        shown = rank if is_started and report.own == heard.lives.get(rank) else 0
        is_recorded = self._record(heard, connection, shown) and bool(heard.lives)
        self.marking.told(report, configures=self.configuring.is_told_by(rank, transport))
        shows = is_started and report.own == self.lives.known.get(rank)
        if shows:
            self._recording.shown(rank)
        if connection is not None:
            connection.shown = rank if shows else 0
            self._shown[connection] = connection.shown
        # What could not be recorded is new again with the next report, for which telling others would ask at once.
        if not self._advance() and is_recorded:
            self._tell_all()
        elif connection is not None:
            self.tell_again(connection.transport)
        if connection is not None and self.stage is Stage.STARTED and claims_later(report.stage, report.own):
            self._acceptances.claimed(report, connection)
        self._review()

    def _told_configuration(self, report: ConfigurationReport, *, by_link: bool) -> None:
        if report.rank and not self._file.begun and self._rejoin is None:
            self.membership.check(report.configuration, report.rank)
        self.configuring.reported(report, by_link=by_link)
        if report.rank and report.configuration.number <= self.configuring.current.number:
            self.marking.check.told_configuration(report.rank)
        self._check_denied()
        if not self._interpreter.started and self._advance():
            self._review()

    def _reconfigured(self, configuration: Configuration) -> None:
        """It is in force from now on, and durable."""
        self.first_start.reconfigured(self.configuring.quorum)
        if self._rejoin is not None:
            self._rejoin.claim.reconfigured(self.configuring.quorum)
        self.marking.reconfigured(self.configuring.quorum)
        self.membership.reconfigured(configuration)
        self.on_reconfigured(configuration)

    def _record(self, heard: Heard, connection: Connection | None, shown: int = 0) -> bool:
        """Whether it is durable: before the link counts and before anybody hears that it is known. It blocks the node
        for two syncs, once for each directory. `shown`: the rank of which the directory has been shown."""
        if heard.lives and not self._recording.remember(heard.lives, shown):
            return False
        for rank in heard.superseded:
            self._supersede(rank, connection)
        if heard.lives and self._interpreter.started:
            self.marking.raise_mark(urgent=True)  # an older state of this directory would not know of them
        self._discern()
        return True

    def _discern(self) -> None:
        """Who knows of no lives, or no configurations, must not count any more, once there is a later one."""
        is_any_later = self._file.own.number > 1 or self.lives.is_any_later or self.configuring.current.number > 1
        if self._interpreter.may_count is None and is_any_later:
            self._interpreter.may_count = self.may_count

    def _supersede(self, rank: int, shown: Connection | None) -> None:
        """The node has a later life. Neither what it has said in an earlier one counts, nor what may still come of that
        over connections that were made then; `shown`: the one on which it was told, which is a new one."""
        self._interpreter.discount(rank)
        for connection in [each for each, other in self._shown.items() if other == rank and each is not shown]:
            connection.shown = self._shown[connection] = 0
            connection.transport.close()
        self.on_superseded(rank)

    def greets(self, rank: int, incarnation: int = 0) -> None:
        """The node has greeted, or answered a greeting: it does not speak the contract alone."""
        self._foreign.greets(rank)
        self._recording.greets(rank, incarnation)

    def greeting(self, rank: int) -> None:
        """It was sent a greeting."""
        self._foreign.greeting(rank, self._interpreter.clock())

    def unanswered(self, rank: int, *, hung_up: bool) -> None:
        """The greeting had no answer."""
        self._foreign.unanswered(rank, self._interpreter.clock(), hung_up=hung_up)
        self.tick()

    def heard_contract(self, rank: int) -> None:
        """A message of the contract has come from that rank."""
        if not self._interpreter.started and self._foreign.heard(rank, self._interpreter.clock()):
            self.on_greet(rank)

    def _check_denied(self) -> None:
        if self.first_start.denied is None or self._rejoin is not None:
            return
        if self._may_rejoin and not self.membership.has_left and self.first_start.stage is not Stage.STARTED:
            self._begin_claim()
            return
        # What this node has said of itself leaves first: others show people that there are two, also when it is gone.
        self._interpreter.end_turn()
        raise self.membership.refused(self._file, *self.first_start.denied)

    # --- a later life of this node --------------------------------------------------------------------
    def _begin_claim(self) -> None:
        """Its directory is lost, and it takes the next life of its rank."""
        storage = self._interpreter.storage
        if not self._file.claimed and not self._file.given_up:
            storage.learning.begin()  # before anybody hears of the claim: what it has is to be known by nobody
        claim = Claim(
            self.rank, self.configuring.quorum, self._file.own, self.lives, claimed=self._file.claimed,
            promise=(storage.epoch, storage.owner),
        )
        self._rejoin = Rejoin(claim, self._file, self._interpreter, self.configuring, self._rejoined)

    def _rejoined(self) -> None:
        """Its life is accepted, and what may have been promised in an earlier one is promised."""
        own, storage = self._file.own, self._interpreter.storage
        self._interpreter.replica.allocator.be(own.number, storage.incarnation)
        self.first_start = FirstStart(self.rank, self.configuring.quorum, own, begun=True)
        self._rejoin = None
        self.marking.rejoined(own)
        self._discern()
        self._tell_all()  # before what this node sends as one that has started
        self._interpreter.held.take_messages()  # from whoever it was; who waits for an answer asks again
        self._serve()
        self._review()

    # --- the first start ----------------------------------------------------------------------------
    def _advance(self) -> bool:
        """Go on with the first start as far as it goes; whether everybody was told of something new."""
        if not self.membership.is_member:
            return False
        if self._rejoin is not None:
            if advanced := self._rejoin.advance():
                self._tell_all()
            return advanced
        start, now = self.first_start, self._interpreter.clock()
        self._foreign.look(now)
        for rank in self._foreign.found:
            start.speaks_contract(rank)
            self.marking.check.speaks_contract(rank)
        if self.marking.waits:
            return self._check()
        advanced = False
        while (stage := start.due(now)) is not None:
            if stage is Stage.STARTED:
                self._file.begin()
            start.stage = stage
            advanced = True
        if advanced:
            self._tell_all()  # before what this node sends as one that has started
            if start.stage is Stage.STARTED:
                self._serve()
        return advanced

    def _check(self) -> bool:
        """Begin to serve if so many have told what they heard of this directory; whether it does."""
        if passes := self.marking.passes():
            self._tell_all()  # before what this node sends as one that has started
            self._serve()
        return passes

    def _serve(self) -> None:
        self._complain_at = math.inf
        self.marking.begin()
        self._interpreter.start()

    def tick(self) -> None:
        """Time has passed."""
        self._distrust.tick()
        self.addressing.tick()
        if self._interpreter.started:
            self.marking.tick()
            return
        if self._advance():
            self._review()
            self._interpreter.end_turn()
        if self._interpreter.clock() >= self._complain_at:
            self._complain_at = math.inf
            log.warning("%s", self.waits_for())

    @property
    def next_due(self) -> float:
        return min(self._next_due(), self._distrust.next_due, self.addressing.next_due)

    def _next_due(self) -> float:
        if self._interpreter.started:
            return self.marking.next_due
        if not self.membership.is_member:
            return self._complain_at
        return min(self.first_start.next_due, self._foreign.next_due, self._complain_at)

    def waits_for(self) -> str:
        """For people; "" once it serves."""
        if self.stage is Stage.STARTED:
            return ""
        if waits := self.membership.waits_for():
            return f"node {self.rank} {waits}"
        if self._rejoin is not None:
            return f"rank {self.rank} rejoins: {self._rejoin.waits_for(self.lives.known)}"
        if self.marking.waits:
            return f"rank {self.rank} {self.marking.check.waits_for()}. Start the others"
        return (
            f"rank {self.rank} has an empty directory, and serves once other nodes confirm that its rank is new: "
            f"{self.first_start.waits_for()}. Start the others; if the cluster is new and they cannot be started, "
            "start this node with --new"
        )

    # --- whom this node may use ---------------------------------------------------------------------
    def admits(self, connection: Connection, rank: int) -> bool:
        """Whether what comes over this connection in the name of `rank` may have an effect."""
        return rank == connection.shown or not self.lives.keeps_lives(rank)

    def may_teach(self, rank: int) -> bool:
        """Whether what the node `rank` says of its copies counts for this one, to learn from: see Lives."""
        return self.lives.may_teach(rank, self._file.own)

    def may_count(self, transport: Transport) -> bool:
        """Whether the client on this connection may count majorities by itself: one that is not told of lives may not
        any more once a node has rejoined, nor one that is not told of configurations once there is a second one."""
        knows_lives = transport in self._listeners or self._file.own.number == 1 and not self.lives.is_any_later
        return knows_lives and self.configuring.is_told(transport)

    def _review(self) -> None:
        for connection, rank in list(self._shown.items()):
            connection.shown = rank if rank and self.lives.counts(rank) else 0
        new, over = self._distrust.review(self.lives.faults())
        for rank in new:
            self._interpreter.discount(rank)
        for rank in over:
            self.on_superseded(rank)  # heal has dropped the link, which stayed
        self.on_review()

    def report(self) -> dict[str, object]:
        """For STATUS."""
        return {
            "life": self._file.own.number,
            "store": self._file.own.store.hex(),
            "stage": self.stage.name.lower(),
            "learning": self._interpreter.storage.learning.left > 0,
            "waits_for": self.waits_for(),
            **self.marking.report(),
            "faults": {str(rank): fault for rank, fault in self._distrust.faults.items()},
            "known": {
                str(rank): {"life": life.number, "store": life.store.hex()}
                for rank, life in sorted(self.lives.known.items())
            },
            "addresses": self.addressing.report(),
        }
