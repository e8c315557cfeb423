"""Frames whose fields mean the same in every cluster: authentic bytes, without their HMAC, to messages.

None where a field is out of range. Those whose fields have to fit the cluster: dsreg.protocol.decoder.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from dsreg.constants import DIGEST_SIZE, MAX_DIGESTS, MAX_RANK, MAX_RUN_SECTORS
from dsreg.protocol.address import unpack_addresses
from dsreg.protocol.choosing import Answered, ConfigurationReport, Proposed, unpack_answer, unpack_question
from dsreg.protocol.configuration import CONFIGURATION, unpack_configuration, unpack_record
from dsreg.protocol.extents import can_be_mapped, map_command
from dsreg.protocol.life import Life, Stage
from dsreg.protocol.messages import (
    Accepted,
    AddressReport,
    Command,
    CommandKind,
    DigestQuery,
    Digests,
    LivesReport,
    RefusedCommand,
    Response,
    ScrubBegun,
    ScrubRequest,
    Status,
    StatusReport,
    StatusRequest,
)
from dsreg.protocol.tags import MAX_EPOCH, is_restamped
from dsreg.protocol.wire import (
    ANSWER,
    ATTACHED_FLAGS,
    ATTACHED_STATE,
    COMMAND,
    EXTENSION,
    FLAG_TAGS,
    FLAG_VALUES,
    FLAG_ZEROS,
    FOLLOWING,
    LIFE,
    MARK_BITS,
    MARKED_LIFE,
    MAX_MARK,
    PROMISED,
    RESPONSE,
    SCRUB_PASS,
    Type,
    digests_at,
    tags_and_data,
)
from dsreg.protocol.zeros import are_chunks, zero_command

CONTRACT_KINDS: Final = {Type.READ: CommandKind.READ, Type.WRITE: CommandKind.WRITE}
RUN_KINDS: Final = {
    Type.READ_RUN: CommandKind.READ,
    Type.TAG_RUN: CommandKind.TAG,
    Type.STORE_RUN: CommandKind.STORE,
    Type.GET_RUN: CommandKind.GET,
    Type.PUT_RUN: CommandKind.PUT,
    Type.ATTACH: CommandKind.ATTACH,
    Type.ZERO_CHUNKS: CommandKind.ZERO,
    Type.MAP_CHUNKS: CommandKind.MAP,
}
# Their good answers have no content.
_NOTHING_TO_SAY: Final = (CommandKind.STORE, CommandKind.PUT, CommandKind.ZERO)
_WITH_TAGS: Final = (CommandKind.TAG, CommandKind.GET)
# Members of enumerations that each frame needs: see dsreg.protocol.messages.
_READ, _GET, _ATTACH, _OK = CommandKind.READ, CommandKind.GET, CommandKind.ATTACH, Status.OK
_STATUSES: Final = {int(status): status for status in Status}
_STAGES: Final = frozenset(Stage)


def unauthentic_command(frame: memoryview) -> RefusedCommand:
    _, type_, request, _ = COMMAND.unpack_from(frame)
    return RefusedCommand(Status.AUTH_FAILURE, CONTRACT_KINDS[type_], request)


def unauthentic_run_command(frame: memoryview) -> RefusedCommand:
    _, _, _, type_, request, *_ = EXTENSION.unpack_from(frame)
    return RefusedCommand(Status.AUTH_FAILURE, RUN_KINDS[type_], request, True)


def chunk_command(frame: memoryview, kind: CommandKind, sectors: int) -> Command | None:
    """A ZERO or MAP, to a disk of so many sectors; whether the tag may be that of a write is left to be seen."""
    _, _, _, _, request, chunk, chunks, _, _, epoch, _ = EXTENSION.unpack_from(frame)
    first, count, tag = chunk * MAX_RUN_SECTORS, chunks * MAX_RUN_SECTORS, bytes(frame[EXTENSION.size :])
    if first + count > sectors:
        return None
    if kind is CommandKind.MAP:
        return map_command(request, first, count, epoch) if can_be_mapped(first, count) else None
    good = are_chunks(first, count) and epoch > 0 and is_restamped(tag, epoch)
    return zero_command(request, first, count, tag, epoch) if good else None


def response(frame: memoryview) -> Response | None:
    _, code, type_, request = RESPONSE.unpack_from(frame)
    status = _STATUSES.get(code)
    if status is None or status >= Status.STOPPING:
        return None
    return Response(status, CONTRACT_KINDS[type_ - ANSWER], request, b"", bytes(frame[RESPONSE.size :]))


def run_response(frame: memoryview) -> Response | None:
    _, code, _, type_, request, _, count, flags, length, epoch, _ = EXTENSION.unpack_from(frame)
    status, kind = _STATUSES.get(code), RUN_KINDS[type_ - ANSWER]
    zeros = 0
    if flags & FLAG_ZEROS and status is _OK and (kind is _READ or kind is _GET and flags & FLAG_VALUES):
        zeros = count
    if status is None or (status is _OK and kind not in _NOTHING_TO_SAY and length == zeros == 0):
        return None
    if kind in _WITH_TAGS or kind is _READ and flags & FLAG_TAGS and length:
        tags, data = tags_and_data(frame, count, zeros)
        return Response(status, kind, request, tags, data, True, epoch)
    if kind is _ATTACH and status is _OK:
        owner, counter, believed = ATTACHED_STATE.unpack_from(frame, EXTENSION.size)
        alive, unsure, mixed = (bool(flags & flag) for flag in ATTACHED_FLAGS)
        return Response(status, kind, request, b"", b"", True, epoch, alive, unsure, mixed, counter, believed, owner)
    return Response(status, kind, request, *tags_and_data(frame, 0, zeros), True, epoch)


def lives(frame: memoryview) -> LivesReport | None:
    _, status, rank, type_, _, _, count, *_ = EXTENSION.unpack_from(frame)
    if status != Status.OK:
        return None
    (head, number, store), *entries = MARKED_LIFE.iter_unpack(frame[EXTENSION.size :])
    stage = head >> MARK_BITS
    known = {other >> MARK_BITS: Life(life, id_) for other, life, id_ in entries}
    marks = {other >> MARK_BITS: mark for other, _, _ in entries if (mark := other & MAX_MARK)}
    if stage not in _STAGES or not number or len(known) != count or not all(life.number for life in known.values()):
        return None
    if not all(1 <= other <= MAX_RANK for other in known):
        return None
    from_node = type_ != Type.LIVES_CLIENT
    return LivesReport(
        rank if from_node else 0, type_ != Type.LIVES_NODE, Stage(stage), Life(number, store), known, head & MAX_MARK,
        marks,
    )


def accepted(frame: memoryview) -> Accepted | None:
    _, status, rank, _, _, _, count, _, _, epoch, _ = EXTENSION.unpack_from(frame)
    claimant, number, store = LIFE.unpack_from(frame, EXTENSION.size)
    acceptor, own_number, own_store = LIFE.unpack_from(frame, EXTENSION.size + LIFE.size)
    owner, incarnation = PROMISED.unpack_from(frame, EXTENSION.size + 2 * LIFE.size)
    if status != Status.OK or acceptor != rank or not number or not own_number or epoch > MAX_EPOCH or count > 1:
        return None
    record = unpack_record(bytes(frame[EXTENSION.size + 2 * LIFE.size + PROMISED.size :])) if count else None
    if count and record is None:
        return None
    return Accepted(
        rank, claimant, Life(number, store), Life(own_number, own_store), epoch, owner, incarnation, record
    )


def addresses(frame: memoryview) -> AddressReport | None:
    _, status, rank, type_, _, _, count, *_ = EXTENSION.unpack_from(frame)
    told = unpack_addresses(bytes(frame[EXTENSION.size :]))
    if status != Status.OK or told is None or len(told) != count:
        return None
    return AddressReport(rank if type_ != Type.ADDRESSES_CLIENT else 0, type_ != Type.ADDRESSES_NODE, told)


def configuration(frame: memoryview) -> ConfigurationReport | None:
    _, status, rank, type_, _, _, _, _, _, epoch, _ = EXTENSION.unpack_from(frame)
    at = EXTENSION.size + CONFIGURATION.size
    told = unpack_configuration(frame[EXTENSION.size : at]) if status == Status.OK else None
    if told is None or epoch > MAX_EPOCH:
        return None
    answer = type_ >= Type.HELLO_CLIENT_ANSWER
    if type_ in (Type.CONFIGURATION_NODE, Type.CONFIGURATION_NODE_ANSWER):
        return ConfigurationReport(rank, answer, told, epoch, bytes(frame[at:]))
    return ConfigurationReport(0, answer, told)


def proposed(frame: memoryview) -> Proposed | None:
    _, _, _, _, request, _, count, *_ = EXTENSION.unpack_from(frame)
    question = unpack_question(bytes(frame[EXTENSION.size :])) if count <= 1 else None
    return None if question is None else Proposed(request, question)


def answered(frame: memoryview) -> Answered | None:
    _, status, _, _, request, *_ = EXTENSION.unpack_from(frame)
    answer = unpack_answer(bytes(frame[EXTENSION.size :])) if status == Status.OK else None
    return None if answer is None else Answered(request, answer)


# What nodes tell each other, by type.
REPORTS: Final[dict[int, Callable[[memoryview], LivesReport | AddressReport | ConfigurationReport | None]]] = {
    Type.LIVES_NODE: lives,
    Type.LIVES_NODE_ANSWER: lives,
    Type.ADDRESSES_NODE: addresses,
    Type.ADDRESSES_NODE_ANSWER: addresses,
    Type.CONFIGURATION_NODE: configuration,
    Type.CONFIGURATION_NODE_ANSWER: configuration,
}


def digest_message(frame: memoryview, chunks: int) -> DigestQuery | Digests | None:
    """`chunks`: of how many the disk is."""
    _, status, rank, type_, rid, first, count, *_ = EXTENSION.unpack_from(frame)
    if status != Status.OK or not 1 <= count <= MAX_DIGESTS or first + count > chunks:
        return None
    if type_ == Type.DIGESTS:
        return DigestQuery(rank, rid, first, count)
    content = frame[EXTENSION.size :]
    following, at = FOLLOWING.unpack_from(content)[0], digests_at(count)
    bits = int.from_bytes(content[FOLLOWING.size : at]) >> -count % 8
    if not first + count <= following <= chunks or bits.bit_count() * DIGEST_SIZE != len(content) - at:
        return None
    listed = (first + index for index in range(count) if bits >> count - 1 - index & 1)
    digests = {
        chunk: bytes(content[at + index * DIGEST_SIZE : at + (index + 1) * DIGEST_SIZE])
        for index, chunk in enumerate(listed)
    }
    return Digests(rank, rid, first, count, following, digests)


def status_request(frame: memoryview) -> StatusRequest:
    _, _, _, _, request, *_ = EXTENSION.unpack_from(frame)
    return StatusRequest(request)


def status_report(frame: memoryview) -> StatusReport | None:
    _, status, _, _, request, *_ = EXTENSION.unpack_from(frame)
    return StatusReport(request, bytes(frame[EXTENSION.size :])) if status == Status.OK else None


def scrub_request(frame: memoryview) -> ScrubRequest:
    _, _, _, _, request, *_ = EXTENSION.unpack_from(frame)
    return ScrubRequest(request)


def scrub_begun(frame: memoryview) -> ScrubBegun | None:
    _, status, _, _, request, *_ = EXTENSION.unpack_from(frame)
    if status != Status.OK:
        return None
    return ScrubBegun(request, SCRUB_PASS.unpack_from(frame, EXTENSION.size)[0])
