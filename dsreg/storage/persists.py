"""Which sectors of a persist are to be stored, and in which parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dsreg.constants import CRC_SIZE, SECTOR_SIZE, TAG_SIZE
from dsreg.protocol.tags import is_uniform
from dsreg.register.damage import contradiction
from dsreg.storage.checksum import crc32
from dsreg.storage.commit import Record, Refusal, Span, Ticket
from dsreg.storage.files import Buffer
from dsreg.storage.journal import BARE_BYTES, RECORD_BYTES, ZEROS_BYTES
from dsreg.storage.tags import TagTable

_WHOLE_SECTOR: Sequence[Span] = ((0, 1),)


def wanted(
    table: TagTable, pending: Mapping[int, Record], first: int, count: int, tags: bytes, data: Buffer,
    ticket: Ticket,
) -> Sequence[Span]:
    """The parts of the run to store; the ticket joins the records that stand in for the others, and is refused
    if a value that is lost here was another one than that which is to be stored under its tag."""
    damaged = table.damaged
    if count == 1 and not damaged and first not in pending:
        return _WHOLE_SECTOR if tags > table.tag(first) else ()
    known = table.tags(first, count)
    if not damaged and is_uniform(tags) and is_uniform(known) and _is_free(pending, first, count):
        return ((0, count),) if tags > known else ()
    spans: list[Span] = []
    start = 0
    for index in range(count):
        at = index * TAG_SIZE
        tag, old = tags[at:at + TAG_SIZE], known[at:at + TAG_SIZE]
        lacking = damaged and tag == old and table.is_missing(first + index)
        if lacking and not is_bare(tags, index) and not _is_the_value(table, first + index, data, index):
            ticket.refuse(Refusal.CONTRADICTION)
            return ()
        if tag > old or lacking:
            record = pending.get(first + index) if pending else None
            if record is None or tag > record.tag_of(first + index):
                continue
            record.join(ticket)
        if start < index:
            spans.append((start, index))
        start = index + 1
    if start < count:
        spans.append((start, count))
    return spans


def _is_the_value(table: TagTable, sector: int, data: Buffer, index: int) -> bool:
    """Whether it has the checksum of the one that was lost."""
    crc = crc32(memoryview(data)[index * SECTOR_SIZE:(index + 1) * SECTOR_SIZE]).to_bytes(CRC_SIZE)
    if (known := table.crcs(sector, 1)) == crc:
        return True
    table.found.append(contradiction(sector, table.tag(sector), known, crc, "of what was to replace it"))
    return False


def _is_free(pending: Mapping[int, Record], first: int, count: int) -> bool:
    """Whether nothing is queued or under way for any of these sectors."""
    return not pending or pending.keys().isdisjoint(range(first, first + count))


def latest(tags: bytes, pending: Mapping[int, Record], first: int) -> bytes:
    """These tags, of the sectors from `first` on, with those of what is queued or under way."""
    if not pending:
        return tags
    latest = bytearray(tags)
    for index in range(len(tags) // TAG_SIZE):
        if (record := pending.get(first + index)) is not None:
            latest[index * TAG_SIZE:(index + 1) * TAG_SIZE] = record.tag_of(first + index)
    return bytes(latest)


def split(tags: bytes, spans: Sequence[Span], zeros: bool) -> list[Span]:
    """The spans in parts: of sectors with data, or of ones without that have the same tag. `zeros`: nothing has."""
    if is_uniform(tags):  # as nearly always
        return list(spans)
    parts: list[Span] = []
    for start, stop in spans:
        begin = start
        for index in range(start + 1, stop + 1):
            before = tags[(index - 1) * TAG_SIZE:index * TAG_SIZE]
            if index < stop:
                tag = tags[index * TAG_SIZE:(index + 1) * TAG_SIZE]
                if tag == before or tag[-1] and before[-1] and not zeros:
                    continue
            parts.append((begin, index))
            begin = index
    return parts


def is_bare(tags: bytes, index: int) -> bool:
    """Whether this sector was never written, restamped or not."""
    return not tags[(index + 1) * TAG_SIZE - 1]


def part_of(
    first: int, count: int, tags: bytes, data: Buffer, start: int, stop: int, ticket: Ticket, zeros: bool
) -> Record:
    """Of these sectors of the run. `zeros`: all its data is."""
    if zeros or is_bare(tags, start):
        data = b""
    elif stop - start < count:
        data = memoryview(data)[start * SECTOR_SIZE:stop * SECTOR_SIZE]
    return Record(first + start, stop - start, tags[start * TAG_SIZE:stop * TAG_SIZE], data, ticket)


def size_of(tags: bytes, start: int, stop: int, zeros: bool) -> int:
    """Bytes in the journal of what these sectors, a part of the run, take."""
    if is_bare(tags, start):
        return BARE_BYTES
    return ZEROS_BYTES if zeros else RECORD_BYTES[stop - start]
