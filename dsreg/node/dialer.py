"""The link to one other node: what dsreg.link.node_line decides, done to this node's interpreter and members."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable
from typing import Final

from dsreg.lines import Driver, Lines
from dsreg.link.destinations import Destinations
from dsreg.link.effects import (
    Continue,
    Deliver,
    Greeting,
    Greets,
    Introduce,
    Left,
    LinkDown,
    LinkUp,
    Log,
    TellLives,
    Told,
    ToldAddresses,
    Unanswered,
)
from dsreg.link.node_line import NodeLine, Phase
from dsreg.node.interpreter import Interpreter
from dsreg.node.members import Members
from dsreg.protocol.choosing import ConfigurationReport
from dsreg.protocol.codec import UnsealingDecoder
from dsreg.protocol.greeting import Seals
from dsreg.protocol.messages import Hello
from dsreg.register.addresses import Moved
from dsreg.transport import Transport

log = logging.getLogger("dsreg.node")

# Of a configuration that has the number of the one that is known here, and is another one.
_NO_NUMBER: Final = -1


class Dialer:
    """To the node `rank`, over `lines` to `destinations`; they are to run with `driver`. `greeting`: this node's
    own HELLO. `new_decoder(extended)`: a decoder for what the peer sends. `jitter`: a factor for pauses, around 1."""

    def __init__(
        self,
        rank: int,
        lines: Lines,
        destinations: Destinations,
        interpreter: Interpreter,
        greeting: Hello,
        new_decoder: Callable[[bool], UnsealingDecoder],
        seals: Seals,
        members: Members,
        jitter: Callable[[], float],
    ) -> None:
        self.rank = rank
        self._lines = lines
        self._destinations = destinations
        self._interpreter = interpreter
        self._members = members
        self._has_ended = False
        self._number = 0  # of the configuration that the peer has told of last over the connection in use; 0: of none
        self._machine = NodeLine(
            rank, greeting, seals, new_decoder, members.lives, jitter=jitter,
            heard_s=lambda: interpreter.heard.get(rank, -math.inf),
        )
        self.driver = Driver(
            self._machine, lines, interpreter.clock, interpreter.encode,
            {
                Deliver: self._deliver,
                Continue: lambda effect: self.driver.carry_out(self._machine.more(effect.line)),
                LinkUp: self._link_up,
                LinkDown: self._link_down,
                Greeting: lambda effect: members.greeting(rank),
                Greets: self._greets,
                Unanswered: lambda effect: members.unanswered(rank, hung_up=effect.hung_up),
                Introduce: self._introduce,
                TellLives: self._tell_again,
                Left: self._left,
                Told: self._told,
                ToldAddresses: lambda effect: members.addressing.told(effect.report),
                Log: lambda effect: log.log(effect.level, "node %d: %s", rank, effect.text, extra={"node": rank}),
            },
            interpreter.end_turn,
        )

    @property
    def state(self) -> str:
        """For STATUS: see NodeLine."""
        return self._machine.state

    def greet_soon(self) -> None:
        """The peer can be greeted."""
        self.driver.carry_out(self._machine.greet_soon())

    def renew(self) -> None:
        """The peer has a later life than the one that the link was made to."""
        self.driver.carry_out(self._machine.renew())

    def rekeyed(self) -> None:
        """What is used, or accepted, is another key now: the link is made anew under it."""
        if self._machine.phase is not Phase.PAUSED:
            self.driver.redial()

    def moved(self, moved: Moved) -> None:
        """The peer says where it is."""
        if self._destinations.learn(moved.address.place, is_first=moved.is_first):
            self.driver.redial()

    def review(self) -> None:
        """What is known of the directories behind the ranks has changed, perhaps."""
        self.driver.carry_out(self._machine.review())

    def ended(self, transports: Iterable[Transport]) -> None:
        """The peer has left the cluster, and nothing is heard of it any more over these, which the link had."""
        self._has_ended = True
        for transport in transports:
            self._interpreter.link_down(self.rank, transport)
            self._members.left(transport)

    # --- effects ------------------------------------------------------------------------------------
    def _tell_again(self, effect: TellLives) -> None:
        """Or make the link anew: a node compares its copy with one that comes to it, and this one has spared it writes
        that a majority had while it was slow."""
        if self._interpreter.has_spared(self.rank):
            log.info("node %d was slow, and lacks what was written meanwhile: the link is made anew, so that it "
                     "compares its copy", self.rank)
            self.renew()
        else:
            self._members.tell_again(self._lines.transports[effect.line])

    def _deliver(self, effect: Deliver) -> None:
        if not self._members.configuring.is_same(self._number):
            return  # who is behind is told of the later configuration, and what was asked is asked again under that
        for message in effect.messages:
            self._interpreter.message(None, message)  # type: ignore[arg-type]  # the machine delivers nothing else

    def _told(self, effect: Told) -> None:
        if isinstance(effect.report, ConfigurationReport):
            told = effect.report.configuration
            self._number = _NO_NUMBER if self._members.configuring.is_another(told) else told.number
        self._members.told(effect.report)

    def _greets(self, effect: Greets) -> None:
        self._members.configuring.greets(self.rank, effect.features)
        self._members.greets(self.rank, effect.incarnation)

    def _introduce(self, effect: Introduce) -> None:
        if self._has_ended:
            return
        transport = self._lines.transports[effect.line]
        self._number = 0
        self._members.listens(transport, node=True, answer=False, features=effect.features)

    def _link_up(self, effect: LinkUp) -> None:
        if self._has_ended:
            return
        if not effect.extended:
            self._number = 0
        self._destinations.worked()
        self._interpreter.link_up(self.rank, self._lines.transports[effect.line], effect.extended)

    def _link_down(self, effect: LinkDown) -> None:
        if effect.line in self._lines.transports:
            self._interpreter.link_down(self.rank, self._lines.transports[effect.line])

    def _left(self, effect: Left) -> None:
        if effect.line in self._lines.transports:
            self._members.left(self._lines.transports[effect.line])
