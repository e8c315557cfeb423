"""Configurations and ballots, as nodes tell each other of them: which nodes there are, and how large the disk is. The
rules: docs/configurations.md. What a node makes of them: dsreg.register.configuration.

    configuration[112] = number u64 | sectors u64 | ranks[32] | joining[32] | used[32]
    ballot[24]         = round u64 | proposer[16]
    record[272]        = configuration | ballot promised | ballot of its vote | configuration voted for
                         A node that has not voted has zeros for its vote.

A set of ranks is 32 bytes, big endian: bit r stands for rank r.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from dsreg.constants import MAX_RANK, MAX_SECTORS

PROPOSER_SIZE: Final = 16
_SET_SIZE: Final = 32
_ALL_RANKS: Final = (1 << MAX_RANK + 1) - 2
CONFIGURATION: Final = struct.Struct(f">QQ{_SET_SIZE}s{_SET_SIZE}s{_SET_SIZE}s")
BALLOT: Final = struct.Struct(f">Q{PROPOSER_SIZE}s")
RECORD_SIZE: Final = 2 * CONFIGURATION.size + 2 * BALLOT.size


class Configuration(NamedTuple):
    """`number`: u64, from 1 on. `sectors`: of the disk. `ranks`: mask of the members. `joining`: while two sets are
    joint, the mask of the later one; 0 else. `used`: all ranks that were members of this or an earlier one."""

    number: int
    sectors: int
    ranks: int
    joining: int
    used: int

    @property
    def members(self) -> int:
        """The mask of all that are asked."""
        return self.ranks | self.joining


class Ballot(NamedTuple):
    """A try to have a configuration chosen; the higher one counts. `proposer`: random, made anew for each try, so that
    no two have the same ballot, whatever their nodes have forgotten."""

    round: int
    proposer: bytes


class Vote(NamedTuple):
    ballot: Ballot
    configuration: Configuration


NO_BALLOT: Final = Ballot(0, bytes(PROPOSER_SIZE))


class Record(NamedTuple):
    """What a node keeps durably. `voted`, `promised`: for the number after that of `current`."""

    current: Configuration
    promised: Ballot = NO_BALLOT
    voted: Vote | None = None


def pack_configuration(configuration: Configuration) -> bytes:
    number, sectors, *sets = configuration
    return CONFIGURATION.pack(number, sectors, *(ranks.to_bytes(_SET_SIZE) for ranks in sets))


def unpack_configuration(raw: bytes | memoryview) -> Configuration | None:
    """None for what no configuration can be."""
    number, sectors, *sets = CONFIGURATION.unpack(raw)
    ranks, joining, used = map(int.from_bytes, sets)
    configuration = Configuration(number, sectors, ranks, joining, used)
    return configuration if _is_possible(configuration) else None


def _is_possible(configuration: Configuration) -> bool:
    number, sectors, ranks, joining, used = configuration
    if not 1 <= sectors <= MAX_SECTORS or number < 1 or not ranks or ranks == joining:
        return False
    return not (ranks | joining) & ~used and not used & ~_ALL_RANKS


def pack_record(record: Record) -> bytes:
    raw = pack_configuration(record.current) + BALLOT.pack(*record.promised)
    if record.voted is None:
        return raw + bytes(BALLOT.size + CONFIGURATION.size)
    return raw + BALLOT.pack(*record.voted.ballot) + pack_configuration(record.voted.configuration)


def unpack_record(raw: bytes) -> Record | None:
    """`raw`: of the length of a record. None for what none can be."""
    current = unpack_configuration(raw[:CONFIGURATION.size])
    promised = Ballot(*BALLOT.unpack_from(raw, CONFIGURATION.size))
    vote = raw[CONFIGURATION.size + BALLOT.size:]
    voted = None
    if any(vote):
        following = unpack_configuration(vote[BALLOT.size:])
        if following is None:
            return None
        voted = Vote(Ballot(*BALLOT.unpack_from(vote)), following)
    return None if current is None else Record(current, promised, voted)
