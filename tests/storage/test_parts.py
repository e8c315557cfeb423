"""The byte layouts: identity, state, journal, slots, tags."""

from __future__ import annotations

import random
import struct
import zlib

import pytest

from dsreg.constants import MIN_JOURNAL_BYTES, NO_OWNER, SECTOR_SIZE, TAG_SIZE, ZERO_TAG
from dsreg.errors import DamagedStorage
from dsreg.protocol.tags import pack_tag
from dsreg.storage import Identity, identity, journal, pages, slots, state, tags, tags_file
from dsreg.storage.files import File
from dsreg.storage.journal import RECORD_BYTES, RECORDS_AT, SegmentHeader
from dsreg.storage.layout import ATOMIC_BYTES, COPY_DISTANCE, GROUP_SECTORS, SLOT_SIZE
from dsreg.storage.state import State
from dsreg.testing.memory_files import MemoryFiles
from tests.storage.support import IDENTITY, tag, values

SALT = 0x1234567890ABCDEF


@pytest.fixture
def file() -> File:
    return MemoryFiles().open("a", create=True)


# --- identity ---------------------------------------------------------------------------------------
def test_identity_round_trip_and_text() -> None:
    recorded = identity.Recorded(IDENTITY, MIN_JOURNAL_BYTES, b"an id of 16 byte")
    raw = identity.encode(recorded)
    assert identity.decode(raw) == recorded
    assert b'format = 7\nwritten_by = "dsreg ' in raw and b'store = "616e206964206f662031362062797465"\n' in raw
    assert b'cluster = "000102030405060708090a0b0c0d0e0f"\nrank = 1\nranks = [1, 2, 3]\nsectors = 1048576\n' in raw


@pytest.mark.parametrize(
    "wrong", [(b"short", 1, (1,), 1), (bytes(16), 2, (1,), 1), (bytes(16), 1, (2, 1), 1), (bytes(16), 1, (1,), 0),
              (bytes(16), 0, (0, 1), 1), (bytes(16), 255, (255,), 1), (bytes(16), 1, (1,), 1 << 52)]
)
def test_identities_that_there_are_not(wrong: tuple[bytes, int, tuple[int, ...], int]) -> None:
    with pytest.raises(ValueError, match="cluster|rank"):
        Identity(*wrong)


def test_salts_differ() -> None:
    others = [Identity(IDENTITY.cluster, rank, (1, 2, 3), 1) for rank in (1, 2, 3)]
    assert len({other.salt for other in others}) == 3


# --- state ------------------------------------------------------------------------------------------
def test_state_layout() -> None:
    owner = bytes(range(64))
    raw = State(1, 2, 3, 4, 5, 6, owner).encode()
    assert len(raw) == ATOMIC_BYTES and raw[:120] == b"dsregSTA" + struct.pack(">QQQQQQ", 1, 2, 3, 4, 5, 6) + owner
    assert raw[120:-4] == bytes(ATOMIC_BYTES - 124)
    assert raw[-4:] == struct.pack(">I", zlib.crc32(raw[:-4], zlib.crc32(bytes(8))))
    assert state.decode(State(1).encode(salt=7), salt=8) is None
    assert state.decode(raw) == State(1, 2, 3, 4, 5, 6, owner)
    assert state.decode(State(1).encode()) == State(1, epoch=0, owner=NO_OWNER)
    assert state.decode(bytes(ATOMIC_BYTES)) is None and state.decode(raw[:-1]) is None


def test_the_newest_valid_state_counts_and_both_hold_it(file: File) -> None:
    with pytest.raises(DamagedStorage):
        state.read(file)
    for seq in range(1, 4):
        state.write(file, State(seq, incarnation=seq))
        copies = [state.decode(file.pread(ATOMIC_BYTES, at)) for at in (0, COPY_DISTANCE)]
        assert copies == [State(seq, incarnation=seq)] * 2
    file.pwritev([State(9).encode()[:100]], 0)
    assert state.read(file).seq == 3


# --- journal ----------------------------------------------------------------------------------------
def record(place: tuple[int, int, int], first: int, count: int, ts: int, generation: int = 1) -> bytes:
    data = values(first, count, ts)
    crcs = journal.checksums(data, count)
    raw = journal.record_head(SALT, generation, place, first, count, tag(ts) * count, crcs) + data
    assert len(raw) == RECORD_BYTES[count] and len(raw) % 64 == 0
    return raw


def segment(*records: bytes) -> bytes:
    return bytes(RECORDS_AT) + b"".join(records) + bytes(100000)


HEADER = SegmentHeader(1, False, 5, 0)


def test_record_layout() -> None:
    raw = record((5, 0, 1), 77, 2, ts=3)
    assert raw[:48] == b"dsregREC" + struct.pack(">QQQQHHHxx", SALT, 1, 5, 77, 2, 0, 1)
    assert raw[48:52] == struct.pack(">I", zlib.crc32(raw[:48] + raw[64:64 + 40]))
    assert raw[64:96] == tag(3) * 2
    assert raw[96:104] == b"".join(struct.pack(">I", zlib.crc32(values(77 + i, 1, 3))) for i in (0, 1))
    assert raw[128:] == values(77, 2, 3)


def test_records_are_read_back_in_order(rng: random.Random) -> None:
    sizes = [[rng.randrange(1, 20) for _ in range(rng.randrange(1, 5))] for _ in range(6)]
    raw = [
        record((5 + batch, index, len(counts)), rng.randrange(1 << 40), count, ts=batch)
        for batch, counts in enumerate(sizes) for index, count in enumerate(counts)
    ]
    entries, end = journal.read_entries(segment(*raw), HEADER, SALT)
    assert [entry.count for entry in entries] == [count for counts in sizes for count in counts]
    assert all(entry.data == values(entry.first, entry.count, entry.batch - 5) for entry in entries)
    assert end == (11, 0)


def test_what_ends_a_journal() -> None:
    one, two, three = record((5, 0, 1), 1, 1, 1), record((6, 0, 2), 2, 1, 1), record((6, 1, 2), 3, 1, 1)
    for rest in (
        (three,),  # the batch's first record is not there
        (record((6, 0, 2), 2, 1, 1, generation=0),),  # left from before
        (bytes(128), three),
        (two[:-1] + b"?", three),  # a torn batch: what follows in it is dropped
    ):
        entries, end = journal.read_entries(segment(one, *rest), HEADER, SALT)
        assert len(entries) == 1 and end == (6, 0)
    entries, end = journal.read_entries(segment(one, two, three[:1000]), HEADER, SALT)
    assert len(entries) == 2 and end == (6, 1)
    entries, end = journal.read_entries(segment(one, two, three), HEADER, SALT ^ 1)
    assert entries == [] and end == (5, 0)


def test_a_later_batch_shows_that_something_was_lost() -> None:
    one, two, three = record((5, 0, 1), 1, 1, 1), record((6, 0, 2), 2, 1, 1), record((6, 1, 2), 3, 1, 1)
    later = record((7, 0, 1), 4, 1, 1)
    gap = bytes(len(three))
    for records in ((two, three, later), (one, two, later), (one, bytes(64), later), (one, two, gap, later)):
        with pytest.raises(DamagedStorage):
            journal.read_entries(segment(*records), HEADER, SALT)


def test_segment_headers(file: File) -> None:
    assert journal.read_header(file, SALT) is None
    old, new = SegmentHeader(3, False, 7, 2), SegmentHeader(3, True, 7, 4)
    journal.write_header(file, SALT, old)
    assert journal.read_header(file, SALT) == old and journal.read_header(file, SALT + 1) is None
    raw = file.pread(68, 0)
    journal.write_header(file, SALT, new)
    file.pwritev([raw], COPY_DISTANCE)  # the second copy did not make it
    assert journal.read_header(file, SALT) == new


def test_which_segments_are_replayed() -> None:
    def header(generation: int, freed: bool = False) -> SegmentHeader:
        return SegmentHeader(generation, freed, 1, 0)

    assert journal.live([None, None], 0) == []
    assert journal.live([None, header(1)], 1) == [header(1)]
    assert journal.live([header(2), header(1)], 2) == [header(1), header(2)]
    assert journal.live([header(2), header(3)], 2) == [header(2), header(3)]
    assert journal.live([header(2, freed=True), header(3)], 3) == [header(3)]
    assert journal.live([header(2), header(3, freed=True)], 3) == []
    for headers, certain in (([None, None], 1), ([header(2), None], 3), ([header(2), None], 2), ([None, header(3)], 3)):
        with pytest.raises(DamagedStorage):
            journal.live(headers, certain)


# --- tags -------------------------------------------------------------------------------------------
def test_slot_round_trip(rng: random.Random) -> None:
    for _ in range(50):
        some = rng.randbytes(GROUP_SECTORS * TAG_SIZE)
        crcs = rng.randbytes(4 * GROUP_SECTORS)
        slot = rng.getrandbits(40)
        contents = slots.Slot(rng.getrandbits(60), some, crcs, rng.getrandbits(GROUP_SECTORS))
        raw = slots.encode(slot, contents)
        assert len(raw) == SLOT_SIZE
        assert slots.decode(raw, slot) == contents
        at = rng.randrange(SLOT_SIZE)
        broken = slots.decode(raw[:at] + bytes([raw[at] ^ 1 << rng.randrange(8)]) + raw[at + 1:], slot)
        assert broken == (None if at < 16 else contents.key)
        assert slots.decode(raw, slot + 1) is None and slots.decode(raw, slot, salt=1) is None
    assert slots.decode(bytes(SLOT_SIZE), 0) is None
    assert slots.decode(slots.encode(0, None), 0) is None


def test_table_against_a_dict(rng: random.Random) -> None:
    table = tags.TagTable(1000)
    model: dict[int, tuple[bytes, bytes]] = {}
    for _ in range(300):
        first = rng.randrange(900)
        count = rng.choice((1, rng.randrange(1, 100)))
        some = b"".join(tag(rng.randrange(3), rng.randrange(1, 4)) for _ in range(count))
        crcs = rng.randbytes(4 * count)
        table.put(first, count, some, crcs)
        for index in range(count):
            model[first + index] = some[index * TAG_SIZE:(index + 1) * TAG_SIZE], crcs[4 * index:4 * index + 4]
        first = rng.randrange(800)
        nothing = (ZERO_TAG, bytes(4))
        assert table.tags(first, 200) == b"".join(model.get(first + i, nothing)[0] for i in range(200))
        assert table.crcs(first, 200) == b"".join(model.get(first + i, nothing)[1] for i in range(200))
        assert table.tag(first) == model.get(first, nothing)[0]
    assert table.sectors_written == sum(known != ZERO_TAG for known, _ in model.values())
    assert table.slots == len(table.pages.index) == len({sector // GROUP_SECTORS for sector in model})
    file = MemoryFiles().open("tags", create=True)
    tags_file.write(file, table.take_dirty())
    assert table.take_dirty() == []
    again = tags_file.load(file, table.slots, 1000)
    assert again.tags(0, 1000) == table.tags(0, 1000) and again.crcs(0, 1000) == table.crcs(0, 1000)
    assert again.sectors_written == table.sectors_written and not again.damaged


def test_what_is_written_of_a_table_is_what_it_has(rng: random.Random) -> None:
    """Whatever changed between two checkpoints, and however far apart: clean slots between dirty ones come along."""
    salt, sectors = rng.getrandbits(64), GROUP_SECTORS * 3 * pages.PAGE_SLOTS
    file = MemoryFiles().open("tags", create=True)
    table = tags.TagTable(sectors, salt)
    for changes in (400, 1, 30, 0, 200, 5):
        for _ in range(changes):
            table.put(rng.randrange(sectors), 1, tag(rng.randrange(1, 99)), rng.randbytes(4))
        spans = table.take_dirty()
        table.put(rng.randrange(sectors), 1, tag(7), bytes(4))  # while they are written: for the next time
        tags_file.write(file, spans)
        assert [span.slot for span in spans] == sorted(span.slot for span in spans)
    tags_file.write(file, table.take_dirty())
    again = tags_file.load(file, table.slots, sectors, salt)
    assert not again.damaged and dict(again.pages.index.items()) == dict(table.pages.index.items())
    for first in range(0, sectors, 256):
        assert again.tags(first, 256) == table.tags(first, 256) and again.crcs(first, 256) == table.crcs(first, 256)


def test_a_mark_is_written_and_goes_when_the_sector_is_known_again(rng: random.Random) -> None:
    file = MemoryFiles().open("tags", create=True)
    table = tags.TagTable(1000)
    table.put(0, 64, b"".join(tag(5) for _ in range(64)), rng.randbytes(4 * 64))
    table.unknown.update((3, 17, 18))
    table.mark_unknown()
    tags_file.write(file, table.take_dirty())
    assert tags_file.load(file, table.slots, 1000).unknown == {3, 17, 18}
    table.put(17, 1, tag(6), bytes(4))
    tags_file.write(file, table.take_dirty())
    assert tags_file.load(file, table.slots, 1000).unknown == {3, 18}


def test_a_lost_slot_is_written_as_lost() -> None:
    """What the disk could not read today it may read tomorrow; it must not come back then."""
    file = MemoryFiles().open("tags", create=True)
    table = tags.TagTable(1000)
    table.put(0, 1, tag(5), bytes(4))
    table.put(8, 1, tag(5), bytes(4))
    tags_file.write(file, table.take_dirty())
    kept = file.pread(SLOT_SIZE, 0)
    file.pwritev([bytes(SLOT_SIZE)], 0)
    damaged = tags_file.load(file, 2, 1000)
    assert damaged.lost == [0] and damaged.is_unknown(0) and not damaged.is_unknown(8)
    tags_file.write(file, damaged.take_dirty())
    assert file.pread(SLOT_SIZE, 0) == slots.encode(0, None) != kept
    assert tags_file.load(file, 2, 1000).lost == [0]


def test_written_and_checksums() -> None:
    assert slots.held_in(tag(3) + ZERO_TAG + tag(0, 1), 0) == 2 and slots.held_in(tag(3) * 3, 0b101) == 1
    assert journal.checksums(bytes(2 * SECTOR_SIZE), 2) == struct.pack(">I", zlib.crc32(bytes(SECTOR_SIZE))) * 2


def test_sectors_that_were_not_counted_do_not_make_the_count_negative() -> None:
    """After a start by the index the slots of an interrupted checkpoint may hold more than the header tells."""
    table = tags.TagTable(1000)
    table.put(5, 1, pack_tag(1, 1), bytes(4))
    table.sectors_written = 0
    table.put(5, 1, pack_tag(0, 0, 0, 1), bytes(4))
    assert table.sectors_written == 0
    table.put(6, 1, pack_tag(1, 1), bytes(4))
    table.put(7, 1, pack_tag(1, 1), bytes(4))
    assert table.sectors_written == 1
