"""The journal: two segments that take turns. What is in it is acknowledged; recovery replays it.

    segment = header | copy of the header | record, record, ...             (records from byte 8192 on)
    header  = magic[8] | salt u64 | generation u64 | first_batch u64 | slots u64 | freed u8 | 0[3] | written u64 |
              highest[16] | newest[16] | crc32 u32
    record  = magic[8] | salt u64 | generation u64 | batch u64 | first u64 | count u16 | index u16 | records u16 |
              0 u16 | crc32 u32 | 0[12] | tags | crcs | 0... | data      (each part at a multiple of 64 from here)
    bare    = magic[4] | crc32 u32 | batch u64 | index u16 | records u16 | first u56 | count - 1 u8 | epoch u32
    zeros   = magic[4] | crc32 u32 | batch u64 | index u16 | records u16 | first u56 | count - 1 u8 | 0 u32 | tag[16] |
              0[16]
    chunks  = as zeros, with a magic of its own, 0 in place of count - 1, and the number of chunks u32 in place of the
              0; first is that of a chunk
    ordered = as a record, with a magic of its own and without the data

A bare record is of sectors that were never written, restamped: their tag is zeros but for that, and they have
no data. One of zeros is of sectors that were written, with zeros, and all have the same tag; one of chunks likewise,
as far as they have no higher tag. 32 and 64 bytes; salt and generation are in their checksums. An ordered one is of
sectors whose home held nothing: their data went there, and was synced, before the record was written (as ext4 does with
data=ordered).

Generation g lives in segment g % 2, so the two segments always hold consecutive generations, and what is
to be replayed is always the unbroken end of the history. Records are numbered without gaps: `index`
of `records` in a batch, batches one after the other. One batch is one fdatasync, and the next is
written after it has returned. So a crash leaves at most the last batch torn: that one was acknowledged to
nobody. If anything follows a record that cannot be read and it is of a *later* batch, then what cannot be
read was acknowledged, and the node must not start without it.

Records of all kinds begin at multiples of 32 bytes. The crc of one with data, and of an ordered one, covers its header,
tags and the sectors' crcs; these cover the data.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from dsreg.constants import CRC_SIZE, MAX_RUN_SECTORS, SECTOR_SIZE, TAG_SIZE, ZERO_TAG
from dsreg.errors import DamagedStorage
from dsreg.protocol.tags import EPOCH_SIZE
from dsreg.storage.checksum import crc32
from dsreg.storage.files import Buffer, File, pread_or_zeros, write_copy
from dsreg.storage.layout import COPY_DISTANCE

RECORDS_AT = 2 * COPY_DISTANCE

_HEADER_MAGIC = b"dsregSG4"
_HEADER = struct.Struct(f">8sQQQQB3xQ{TAG_SIZE}s{TAG_SIZE}s")
_SG3_HEADER_MAGIC = b"dsregSG3"
_SG3_HEADER = struct.Struct(f">8sQQQQB3xQ{TAG_SIZE}s")
_OLD_HEADER_MAGIC = b"dsregSEG"
_OLD_HEADER = struct.Struct(">8sQQQQB3x")
_RECORD_MAGIC = b"dsregREC"
_ORDERED_MAGIC = b"dsregORD"
_BARE_MAGIC = b"dsrB"
_ZEROS_MAGIC = b"dsrZ"
_CHUNKS_MAGIC = b"dsrC"
_DATALESS = (_BARE_MAGIC, _ZEROS_MAGIC, _CHUNKS_MAGIC)
_ANY_MAGIC = b"dsr"  # what all begin with
_RECORD = struct.Struct(">8sQQQQHHHxx")
_RECORD_SIZE = 64
_RECORD_PADDING = bytes(_RECORD_SIZE - _RECORD.size - CRC_SIZE)
_ALIGNMENT = 64
_BARE = struct.Struct(">4sIQHHQI")  # first and count - 1 as one number
_RECORDS_ALIGNMENT = 32
_SEED = struct.Struct(">QQ")
_CRC = struct.Struct(">I")
_NO_DATA = memoryview(b"")
_ADVICE = (
    "keep the directory as it is, do not start this rank with an empty one, and follow the runbook, "
    '"A node\'s directory is lost"'
)


UNSAID = -1
# Above every tag.
NEWEST_UNSAID = b"\xff" * TAG_SIZE


class SegmentHeader(NamedTuple):
    """`first_batch`: the batch that its first record is of. `slots`: how many slots of `tags` were
    certainly written. `freed`: home and tags hold all that this segment and earlier ones say. Of what `tags` held then:
    `written` is the number of sectors with a tag of a write, `highest` the highest tag of an attachment's write (zeros:
    there is none), `newest` the highest tag of any. An older version did not say: `written` is UNSAID, `newest` is
    NEWEST_UNSAID."""

    generation: int
    freed: bool
    first_batch: int
    slots: int
    written: int = 0
    highest: bytes = ZERO_TAG
    newest: bytes = NEWEST_UNSAID


@dataclass(frozen=True, slots=True)
class Entry:
    """A record that was read back. `tags`, `crcs`: 16 and 4 bytes per sector; `data`: a view, empty of an ordered one.
    One of sectors without data has no crcs either, and one tag for all: they are zeros, or (a tag of no write) never
    written. A journal may have a million of those."""

    batch: int
    index: int
    records: int
    first: int
    count: int
    tags: bytes
    crcs: bytes
    data: memoryview
    size: int

    def tag(self, index: int) -> bytes:
        """Of the sector of this number in the run."""
        at = 0 if self.is_dataless else index * TAG_SIZE
        return self.tags[at:at + TAG_SIZE]

    @property
    def is_dataless(self) -> bool:
        return not self.crcs

    @property
    def is_whole(self) -> bool:
        """Whether the data in the journal is what was written."""
        return not self.data or checksums(self.data, self.count) == self.crcs


def checksums(data: Buffer, count: int) -> bytes:
    """CRC-32 of each of the `count` sectors, 4 bytes each."""
    if count == 1:
        return crc32(data).to_bytes(CRC_SIZE)
    view = memoryview(data)
    return struct.pack(f">{count}I", *[crc32(view[at:at + SECTOR_SIZE]) for at in range(0, len(view), SECTOR_SIZE)])


def _head_size(count: int) -> int:
    """Bytes of a record before its data, for a run of `count` sectors."""
    return -(-(_RECORD_SIZE + count * (TAG_SIZE + CRC_SIZE)) // _ALIGNMENT) * _ALIGNMENT


# Bytes of a record of so many sectors, and of those without data, however many.
RECORD_BYTES = [_head_size(count) + count * SECTOR_SIZE for count in range(MAX_RUN_SECTORS + 1)]
BARE_BYTES = _BARE.size
ZEROS_BYTES = 64
# Index and number are u16.
MAX_BATCH_RECORDS = 0xFFFF


def record_head(
    salt: int, generation: int, place: tuple[int, int, int], first: int, count: int, tags: bytes, crcs: bytes, *,
    ordered: bool = False,
) -> bytes:
    """Everything of a record but its data; all of an `ordered` one. `place`: batch, index and records."""
    magic = _ORDERED_MAGIC if ordered else _RECORD_MAGIC
    fields = _RECORD.pack(magic, salt, generation, place[0], first, count, place[1], place[2])
    body = tags + crcs
    check = crc32(body, crc32(fields)).to_bytes(CRC_SIZE)
    return b"".join((fields, check, _RECORD_PADDING, body, bytes(-(_RECORD_SIZE + len(body)) % _ALIGNMENT)))


def dataless_record(
    salt: int, generation: int, place: tuple[int, int, int], first: int, count: int, tag: bytes
) -> bytes:
    """A bare one, or (a tag of a write) one of zeros; of chunks, if it is longer than one. `place`: as of record_head.
    `tag`: of all the sectors."""
    if count > MAX_RUN_SECTORS:
        chunks = count // MAX_RUN_SECTORS
        raw = (_BARE.pack(_CHUNKS_MAGIC, 0, *place, first << 8, chunks) + tag).ljust(ZEROS_BYTES, b"\0")
        return raw[:4] + _dataless_crc(raw, salt, generation) + raw[8:]
    run = first << 8 | count - 1
    if tag[-1]:
        raw = (_BARE.pack(_ZEROS_MAGIC, 0, *place, run, 0) + tag).ljust(ZEROS_BYTES, b"\0")
    else:
        raw = _BARE.pack(_BARE_MAGIC, 0, *place, run, int.from_bytes(tag[:EPOCH_SIZE]))
    return raw[:4] + _dataless_crc(raw, salt, generation) + raw[8:]


def _dataless_crc(raw: Buffer, salt: int, generation: int) -> bytes:
    return crc32(raw[8:], crc32(raw[:4], crc32(_SEED.pack(salt, generation)))).to_bytes(CRC_SIZE)


# --- segment headers ------------------------------------------------------------------------------
_HEADER_PLACES = (0, COPY_DISTANCE)
_HEADERS = {_HEADER_MAGIC: _HEADER, _SG3_HEADER_MAGIC: _SG3_HEADER, _OLD_HEADER_MAGIC: _OLD_HEADER}
_NO_HEADER = SegmentHeader(0, False, 0, 0)  # older than any


def write_header(file: File, salt: int, header: SegmentHeader) -> None:
    """Durably. Either copy alone tells the truth, so it does not matter which of them a crash leaves. One after the
    other, each synced: a crash may leave the one that is being written unreadable."""
    generation, freed, first_batch, slots, written, highest, newest = header
    fields = _HEADER.pack(_HEADER_MAGIC, salt, generation, first_batch, slots, freed, written, highest, newest)
    raw = fields + _CRC.pack(crc32(fields))
    # Not first over the only good copy, if a crash before has hit the other one.
    good = max(_HEADER_PLACES, key=lambda at: _header_at(file, salt, at) or _NO_HEADER)
    for at in sorted(_HEADER_PLACES, key=good.__eq__):
        write_copy(file, raw, at)


def read_header(file: File, salt: int) -> SegmentHeader | None:
    """The newest valid copy, or None."""
    copies = [_header_at(file, salt, at) for at in _HEADER_PLACES]
    return max((copy for copy in copies if copy is not None), default=None)


def _header_at(file: File, salt: int, at: int) -> SegmentHeader | None:
    raw = pread_or_zeros(file, _HEADER.size + CRC_SIZE, at)
    layout = _HEADERS.get(raw[:len(_HEADER_MAGIC)], _HEADER)
    magic, its_salt, generation, first_batch, slots, freed, *more = layout.unpack_from(raw)
    crc = _CRC.pack(crc32(raw[:layout.size]))
    if magic not in _HEADERS or its_salt != salt or not raw[layout.size:].startswith(crc):
        return None
    return SegmentHeader(generation, bool(freed), first_batch, slots, *(more or (UNSAID, ZERO_TAG)))


# --- replay ---------------------------------------------------------------------------------------
def _entry_at(segment: memoryview, at: int, salt: int, generation: int) -> Entry | None:
    """The record at byte `at` if all but its data is valid."""
    if segment[at:at + len(_BARE_MAGIC)] in _DATALESS:
        return _dataless_at(segment, at, salt, generation)
    if at + _RECORD_SIZE > len(segment):
        return None
    magic, its_salt, its_generation, batch, first, count, index, records = _RECORD.unpack_from(segment, at)
    if magic not in (_RECORD_MAGIC, _ORDERED_MAGIC) or (its_salt, its_generation) != (salt, generation):
        return None
    if not 1 <= count <= MAX_RUN_SECTORS:
        return None
    size = RECORD_BYTES[count] if magic == _RECORD_MAGIC else _head_size(count)
    if at + size > len(segment):
        return None
    tags_at = at + _RECORD_SIZE
    crcs_at = tags_at + count * TAG_SIZE
    end = crcs_at + count * CRC_SIZE
    fields = crc32(segment[at:at + _RECORD.size])
    if _CRC.unpack_from(segment, at + _RECORD.size)[0] != crc32(segment[tags_at:end], fields):
        return None
    tags, crcs = bytes(segment[tags_at:crcs_at]), bytes(segment[crcs_at:end])
    data = segment[at + _head_size(count):at + size]
    return Entry(batch, index, records, first, count, tags, crcs, data, size)


def _dataless_at(segment: memoryview, at: int, salt: int, generation: int) -> Entry | None:
    is_bare = segment[at:at + len(_BARE_MAGIC)] == _BARE_MAGIC
    size = BARE_BYTES if is_bare else ZEROS_BYTES
    raw = segment[at:at + size]
    if len(raw) < size or raw[4:8] != _dataless_crc(raw, salt, generation):
        return None
    _, _, batch, index, records, run, epoch = _BARE.unpack_from(raw)
    first, count = run >> 8, (run & 0xFF) + 1
    if raw[:len(_CHUNKS_MAGIC)] == _CHUNKS_MAGIC:
        count = epoch * MAX_RUN_SECTORS
    if is_bare:
        tag = epoch.to_bytes(EPOCH_SIZE).ljust(TAG_SIZE, b"\0")
    else:
        tag = bytes(raw[BARE_BYTES:BARE_BYTES + TAG_SIZE])
    return Entry(batch, index, records, first, count, tag, b"", _NO_DATA, size)


def read_entries(raw: bytes, header: SegmentHeader, salt: int) -> tuple[list[Entry], tuple[int, int]]:
    """All valid records of a segment in order, and (batch, index) of the one that would come next.

    Raises DamagedStorage if a record that cannot be read was acknowledged.
    """
    segment = memoryview(raw)
    entries: list[Entry] = []
    batch, index, records = header.first_batch, 0, 0
    at = RECORDS_AT
    while (entry := _entry_at(segment, at, salt, header.generation)) is not None:
        in_order = (entry.batch, entry.index) == (batch, index) and (index == 0 or entry.records == records)
        if not in_order or not entry.is_whole:
            break
        entries.append(entry)
        at += entry.size
        index, records = index + 1, entry.records
        if index == records:
            batch, index = batch + 1, 0
    _check_rest(raw, at, header.generation, batch, salt)
    return entries, (batch, index)


def _check_rest(raw: bytes, at: int, generation: int, batch: int, salt: int) -> None:
    """Raise DamagedStorage if anything of a batch later than `batch` stands from byte `at` on.

    Data in the torn batch may hold a copy of this very journal, made earlier: its batches are earlier too.
    """
    segment = memoryview(raw)
    at = raw.find(_ANY_MAGIC, at)
    while at >= 0:
        entry = _entry_at(segment, at, salt, generation) if at % _RECORDS_ALIGNMENT == 0 else None
        if entry is not None and entry.batch > batch:
            raise DamagedStorage(
                f"the journal (generation {generation}) is damaged in batch {batch}, which was acknowledged: "
                + _ADVICE
            )
        at = raw.find(_ANY_MAGIC, at + 1)


def live(headers: Sequence[SegmentHeader | None], certain: int) -> list[SegmentHeader]:
    """The headers of the segments to replay, in order: at most two, the newest last.

    `certain`: the newest generation that a header was certainly written for. Raises DamagedStorage
    if a header that must be there is not.
    """
    newest = max((header for header in headers if header is not None), default=None)
    if (newest.generation if newest else 0) < certain:
        raise DamagedStorage(f"the header of journal generation {certain} is damaged: " + _ADVICE)
    if newest is None or newest.freed:
        return []
    older = headers[(newest.generation - 1) % 2]
    if newest.generation > 1 and (older is None or older.generation != newest.generation - 1):
        raise DamagedStorage(
            f"the header of journal generation {newest.generation - 1} is damaged: " + _ADVICE
        )
    return [newest] if older is None or older.freed else [older, newest]


def replay(files: Sequence[File], headers: Sequence[SegmentHeader], salt: int, size: int) -> list[Entry]:
    """All records of the live segments in order.

    `headers`: as `live` gave them; `size`: bytes of a segment. Raises DamagedStorage.
    """
    entries: list[Entry] = []
    end = (0, 0)
    for header in headers:
        if header is not headers[0] and end != (header.first_batch, 0):
            raise DamagedStorage(
                f"journal generation {header.generation - 1} ends in batch {end[0]}; batches up to "
                f"{header.first_batch - 1} were acknowledged: " + _ADVICE
            )
        try:
            # Not the headers, which have been read: one of the copies may be unreadable.
            raw = bytes(RECORDS_AT) + files[header.generation % 2].pread(size - RECORDS_AT, RECORDS_AT)
        except OSError as error:
            # Not to be taken for the torn end of it.
            unreadable = f"journal generation {header.generation} cannot be read ({error}): "
            raise DamagedStorage(unreadable + _ADVICE) from error
        some, end = read_entries(raw, header, salt)
        entries += some
    return entries
