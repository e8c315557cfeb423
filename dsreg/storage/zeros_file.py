"""The file `zeros`: the runs of chunks that were zeroed by one command each (dsreg.storage.zero_runs).

    copy = magic[8] | seq u64 | count u64 | 0[8] | start u64 x count | stop u64 x count | tag[16] x count | crc32 u32

All big-endian; the runs [start, stop) of chunks ascend and do not touch under one tag; the checksum is of the node's
salt (Identity.salt) and all before it. Two copies, COPY_AT bytes apart, which say the same once a write has returned:
they are written one after the other, each synced, and never first over the only good one. The newer one counts. What
is not there yet is in the journal.
"""

from __future__ import annotations

import struct
from typing import Final

from dsreg.constants import CRC_SIZE, TAG_SIZE
from dsreg.errors import DamagedStorage
from dsreg.storage.checksum import salted_crc
from dsreg.storage.failure import NO_SPACE
from dsreg.storage.files import File, pread_or_zeros, write_copy
from dsreg.storage.layout import RESTORE_ADVICE, ZEROS
from dsreg.storage.numbers import from_bytes, to_bytes
from dsreg.storage.zero_runs import ZeroRuns

MAGIC: Final = b"dsregZRS"
_HEAD: Final = struct.Struct(">8sQQ8x")
RUN_BYTES: Final = 16 + TAG_SIZE
# More are not taken: longer commands are done chunk by chunk then. At 2 MiB a copy a checkpoint takes some ms longer.
MAX_RUNS: Final = 65_536
# Twice the room that these take: one run over many newer ones makes one more for each gap between those.
COPY_AT: Final = 8 << 20
_PLACES: Final = (0, COPY_AT)
_PAGE: Final = 4096
# Allocated beyond what is in use, if there is room, so that what is on a full disk can be zeroed.
AHEAD_RUNS: Final = 512


def size_of(runs: int) -> int:
    """Bytes of a copy with so many runs, in whole pages."""
    return -(-(_HEAD.size + runs * RUN_BYTES + CRC_SIZE) // _PAGE) * _PAGE


def encode(seq: int, runs: ZeroRuns, salt: int) -> bytes:
    body = _HEAD.pack(MAGIC, seq, len(runs)) + to_bytes(runs.starts, "big")
    body += to_bytes(runs.stops, "big") + runs.tags
    return (body + salted_crc(body, salt)).ljust(size_of(len(runs)), b"\0")


def _copy_at(file: File, place: int, salt: int) -> tuple[int, bytes] | None:
    """Sequence number and bytes of a valid copy."""
    magic, seq, count = _HEAD.unpack(pread_or_zeros(file, _HEAD.size, place))
    if magic != MAGIC or (size := _HEAD.size + count * RUN_BYTES) + CRC_SIZE > COPY_AT:
        return None
    raw = pread_or_zeros(file, size + CRC_SIZE, place)
    return (seq, raw[:size]) if raw[size:] == salted_crc(raw[:size], salt) else None


def read(file: File, salt: int) -> tuple[int, ZeroRuns]:
    """The sequence number of the last write, and the runs. Raises DamagedStorage."""
    copies = [copy for place in _PLACES if (copy := _copy_at(file, place, salt)) is not None]
    if not copies:
        raise DamagedStorage(f"both copies in the file {ZEROS} are damaged, and with them which chunks are zeros: "
                             + RESTORE_ADVICE)
    seq, raw = max(copies)
    runs, count = ZeroRuns(), (len(raw) - _HEAD.size) // RUN_BYTES
    middle = _HEAD.size + count * 8
    runs.starts = from_bytes("Q", raw[_HEAD.size:middle], "big")
    runs.stops = from_bytes("Q", raw[middle:middle + count * 8], "big")
    runs.tags = bytearray(raw[middle + count * 8:])
    return seq, runs


def begin(file: File, salt: int) -> None:
    """There are no runs. Whatever was in the file does not count."""
    file.truncate(0)
    file.write_in_place()
    write(file, encode(1, ZeroRuns(), salt), salt)


def write(file: File, raw: bytes, salt: int) -> None:
    """Durably. `raw`: of `encode`."""
    newest = max(_PLACES, key=lambda place: (_copy_at(file, place, salt) or (-1, b""))[0])
    for place in sorted(_PLACES, key=newest.__eq__):
        write_copy(file, raw, place)


def allocated(file: File) -> int:
    """Bytes of each copy for which there is room for good."""
    return max(0, file.size() - COPY_AT)


def allocate(file: File, before: int, wanted: int) -> None:
    """Have so many bytes of each copy allocated, of which `before` are: the later copy last, by which `allocated` goes.
    Raises OSError if there is no room."""
    for place in _PLACES:
        file.allocate(place + before, wanted - before)


def allocate_ahead(file: File, chunks: int) -> None:
    """On a disk of so many chunks; as far as there is room."""
    before, wanted = allocated(file), size_of(2 * min(AHEAD_RUNS, chunks))
    if before < wanted:
        try:
            allocate(file, before, wanted)
        except OSError as error:
            if error.errno not in NO_SPACE:
                raise
