"""How the configuration that follows is chosen, as it goes over the wire: what is told of one that was chosen, the
questions of a proposal, and what a node answers. The rules: docs/configurations.md. Who asks: dsreg.register.proposal;
who answers: dsreg.register.configuration.

    question = ballot[24] | base[112] | following[112], in the second phase only
    answer   = kind u8 | pad[7] | 1 LATER: configuration[112]
                                  2 OUTBID: ballot[24]
                                  3 OBJECTION: UTF-8
                                  4 PROMISED: nothing, or ballot[24] | configuration[112]
                                  5 VOTED: nothing
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from dsreg.constants import NO_OWNER
from dsreg.protocol.configuration import (
    BALLOT,
    CONFIGURATION,
    Ballot,
    Configuration,
    Vote,
    pack_configuration,
    unpack_configuration,
)

_KIND: Final = struct.Struct(">B7x")
_LATER, _OUTBID, _OBJECTION, _PROMISED, _VOTED = range(1, 6)
QUESTION_SIZE: Final = BALLOT.size + CONFIGURATION.size
# A sentence for people.
MAX_REASON_BYTES: Final = 1000
MAX_ANSWER_BYTES: Final = _KIND.size + MAX_REASON_BYTES


class ConfigurationReport(NamedTuple):
    """This configuration was chosen; the sender knows of no later one. `rank`: the sender's between nodes, 0 to or from
    a client. `answer`: from the accepting side of the connection. `epoch`, `owner`: what the sender has promised,
    between nodes."""

    rank: int
    answer: bool
    configuration: Configuration
    epoch: int = 0
    owner: bytes = NO_OWNER


# --- questions ----------------------------------------------------------------------------------------
class Ask(NamedTuple):
    """First phase, about what follows `base`: see Voter.ask."""

    base: Configuration
    ballot: Ballot


class Elect(NamedTuple):
    """Second phase: see Voter.vote."""

    base: Configuration
    ballot: Ballot
    following: Configuration


Question = Ask | Elect


class Proposed(NamedTuple):
    """A client asks a node."""

    request: int
    question: Question


# --- answers ------------------------------------------------------------------------------------------
class Later(NamedTuple):
    """Answer of a node that knows a configuration of the number that was to be chosen, or a later one."""

    configuration: Configuration


class Outbid(NamedTuple):
    """Answer of a node that has promised a higher ballot."""

    promised: Ballot


class Objection(NamedTuple):
    """Answer of a node that does not vote for this configuration. `reason`: for people. Perhaps later."""

    reason: str


class Promised(NamedTuple):
    """The node votes in no lower ballot any more; `voted`: how it has, if it has."""

    voted: Vote | None


class Voted(NamedTuple):
    pass


Answer = Later | Outbid | Objection | Promised | Voted


class Answered(NamedTuple):
    """The node, to that client."""

    request: int
    answer: Answer


# --- bytes --------------------------------------------------------------------------------------------
def pack_question(question: Question) -> bytes:
    raw = BALLOT.pack(*question.ballot) + pack_configuration(question.base)
    return raw + pack_configuration(question.following) if isinstance(question, Elect) else raw


def unpack_question(raw: bytes) -> Question | None:
    """`raw`: of the length of a question. None for what can be none."""
    base = unpack_configuration(raw[BALLOT.size : QUESTION_SIZE])
    ballot = Ballot(*BALLOT.unpack_from(raw))
    if base is None or not ballot.round:
        return None
    if len(raw) == QUESTION_SIZE:
        return Ask(base, ballot)
    following = unpack_configuration(raw[QUESTION_SIZE:])
    return None if following is None else Elect(base, ballot, following)


def pack_answer(answer: Answer) -> bytes:
    match answer:
        case Later(configuration):
            return _KIND.pack(_LATER) + pack_configuration(configuration)
        case Outbid(promised):
            return _KIND.pack(_OUTBID) + BALLOT.pack(*promised)
        case Objection(reason):
            return _KIND.pack(_OBJECTION) + reason.encode()[:MAX_REASON_BYTES].decode(errors="ignore").encode()
        case Promised(voted):
            return _KIND.pack(_PROMISED) + (b"" if voted is None else _pack_vote(voted))
        case Voted():
            return _KIND.pack(_VOTED)


def unpack_answer(raw: bytes) -> Answer | None:
    """None for what no answer can be."""
    if len(raw) < _KIND.size:
        return None
    kind, rest = raw[0], raw[_KIND.size :]
    if kind == _LATER and len(rest) == CONFIGURATION.size:
        configuration = unpack_configuration(rest)
        return None if configuration is None else Later(configuration)
    if kind == _OUTBID and len(rest) == BALLOT.size:
        return Outbid(Ballot(*BALLOT.unpack(rest)))
    if kind == _OBJECTION:
        return Objection(rest.decode(errors="replace"))
    if kind == _PROMISED and not rest:
        return Promised(None)
    if kind == _PROMISED and len(rest) == QUESTION_SIZE:
        configuration = unpack_configuration(rest[BALLOT.size :])
        return None if configuration is None else Promised(Vote(Ballot(*BALLOT.unpack_from(rest)), configuration))
    return Voted() if kind == _VOTED and not rest else None


def _pack_vote(vote: Vote) -> bytes:
    return BALLOT.pack(*vote.ballot) + pack_configuration(vote.configuration)
