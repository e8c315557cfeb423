"""What link machines want done. `line`: the number of a connection, never used again by the same machine."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Final, NamedTuple

from dsreg.protocol.choosing import ConfigurationReport
from dsreg.protocol.messages import Accepted, AddressReport, LivesReport, Message
from dsreg.protocol.sealed import Sealer
from dsreg.protocol.wire import Keys


# --- on the connection ------------------------------------------------------------------------
class Connect(NamedTuple):
    line: int


class Put(NamedTuple):
    """Send the messages now, sealed if a Seal went before."""

    line: int
    messages: Sequence[Message]


class SealWith(NamedTuple):
    """What is put from now on is sealed."""

    line: int
    sealer: Sealer


class Features(NamedTuple):
    """What the other side can do, as it has said in its greeting: see Hello."""

    line: int
    features: int


class LimitRecords(NamedTuple):
    """No record holds more than `size` bytes of frames from now on, unless a single frame is longer."""

    line: int
    size: int


class Close(NamedTuple):
    """Close the connection, or give up making it. `closed` is to be called, later."""

    line: int


class Level(enum.IntEnum):
    """As in the module logging."""

    DEBUG = 10
    INFO = 20
    WARNING = 30


class Log(NamedTuple):
    """`text` says it of the party at the other end, without naming it."""

    level: Level
    text: str


class AnswerUnder(NamedTuple):
    """What comes over the connection is of another key than before: so is to be what answers it."""

    line: int
    keys: Keys


# --- of a client ------------------------------------------------------------------------------
class Up(NamedTuple):
    """The connection may be used. `nodes`: of how many nodes the cluster is, 0 if the node did not say."""

    line: int
    nodes: int


class Deliver(NamedTuple):
    """These messages have come. To a client also without any: bytes have come."""

    line: int
    messages: Sequence[Message]


class Down(NamedTuple):
    """The connection is over, or could not be made. The reason is `ClientLine.ending`."""

    line: int


# --- of a node --------------------------------------------------------------------------------
class LinkUp(NamedTuple):
    """The connection is the link to the peer. `extended`: it is spoken to by the extension."""

    line: int
    extended: bool


class LinkDown(NamedTuple):
    """It is not the link any more, if it was."""

    line: int


class Greeting(NamedTuple):
    """The peer is sent a greeting."""


class Greets(NamedTuple):
    """The peer has answered a greeting. `features`, `incarnation`: see Hello."""

    features: int
    incarnation: int


class Unanswered(NamedTuple):
    """It has not. `hung_up`: it closed the connection, or sent what could not be read, before the time was up."""

    hung_up: bool


class Introduce(NamedTuple):
    """Tell the peer of lives, now and whenever they change, until `Left`. `features`: what it wants to be told, and
    what else it can do: see Hello."""

    line: int
    features: int


class TellLives(NamedTuple):
    """Tell it again."""

    line: int


class Left(NamedTuple):
    line: int


class Told(NamedTuple):
    """The peer has told of lives, has accepted that of this node, or has told which configuration is in force. What may
    be used, or counts, afterwards may have changed: `review` follows."""

    report: LivesReport | Accepted | ConfigurationReport


TOLD: Final = (LivesReport, Accepted, ConfigurationReport)


class ToldAddresses(NamedTuple):
    """The peer has told of addresses, behind what it has told of lives."""

    report: AddressReport


class Continue(NamedTuple):
    """Call `more`: there are messages behind a Told, to be judged by what that has changed."""

    line: int


# --- of a connection that was accepted --------------------------------------------------------
class Take(NamedTuple):
    """This message has come, and may have an effect."""

    line: int
    message: Message


class Fresh(NamedTuple):
    """The other side has shown that it has the key, and that it is there now."""

    line: int


class GreetedBy(NamedTuple):
    """The node has greeted this one. `incarnation`: see Hello."""

    rank: int
    incarnation: int


class SealedBy(NamedTuple):
    """The node has sealed a connection that it has made to this one."""

    rank: int


class Complain(NamedTuple):
    """`text` says what somebody has to mend, of the party at the other end, without naming it."""

    text: str


Effect = (
    Connect | Put | SealWith | Features | LimitRecords | Close | Log | Up | Deliver | Down
    | LinkUp | LinkDown | Greeting | Greets | Unanswered | Introduce | TellLives | Left | Told | ToldAddresses
    | Continue | Take | Fresh | GreetedBy | SealedBy | Complain | AnswerUnder
)
