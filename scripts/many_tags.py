"""What a node's memory and start cost with so much written: `python -m scripts.many_tags 100GiB [--one-in-8]`.

Makes a storage directory with the tags of so many bytes written, as a node would have left it, but without the values
(the file `sectors` stays empty), and opens it: in a new process, so that its memory is that of a start.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click

from dsreg.config.sizes import parse_size
from dsreg.constants import CRC_SIZE, SECTOR_SIZE, ZERO_TAG
from dsreg.protocol.tags import pack_tag
from dsreg.storage import Identity, OsFiles, StableStorage, index_file, journal
from dsreg.storage.index import SlotIndex
from dsreg.storage.journal import SegmentHeader
from dsreg.storage.layout import GROUP_SECTORS, INDEX, JOURNALS, SLOT_SIZE, TAGS
from dsreg.storage.slots import Slot, encode

JOURNAL_BYTES = 2 << 20
BATCH = 4096
QUESTIONS = 1000


def identity(groups: int) -> Identity:
    return Identity(bytes(16), 1, (1, 2, 3), groups * GROUP_SECTORS)


def make(directory: Path, groups: int, per_group: int) -> None:
    """Groups in a random order of runs of 64, as if written so."""
    files = OsFiles(directory)
    StableStorage.open(files, identity(groups), JOURNAL_BYTES).close()
    salt = identity(groups).salt
    tag = pack_tag(5, 1)
    tags = tag * per_group + ZERO_TAG * (GROUP_SECTORS - per_group)
    runs = list(range(0, groups, 64))
    random.Random(1).shuffle(runs)
    index, slot, raw = SlotIndex(), 0, bytearray()
    with open(directory / TAGS, "r+b") as file:
        for run in runs:
            for group in range(run, min(run + 64, groups)):
                raw += encode(slot, Slot(group, tags, bytes(CRC_SIZE * GROUP_SECTORS), 0), salt)
                index.add(group, slot)
                slot += 1
            if len(raw) >= BATCH * SLOT_SIZE or run == runs[-1]:
                file.write(raw)
                raw.clear()
    for number in (0, 1):
        log = files.open(JOURNALS[number])
        header = journal.read_header(log, salt)
        generation = header.generation if header is not None else number
        journal.write_header(log, salt, SegmentHeader(generation, True, 1, slot, groups * per_group, ZERO_TAG))
    # What has been added to `tags` since the index was written last: as much as a start may find at worst.
    tail = max(index_file.MIN_TAIL_SLOTS, slot // index_file.TAIL_SHARE) - 1
    if slot > tail:
        index_file.write(files, files.open(TAGS), index, slot - tail, [], salt)


def resident_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * 4096


def measure(directory: Path, groups: int) -> dict[str, float]:
    """Seconds to the first answer, and to more of them at random; bytes of memory then, and after all was touched."""
    before = resident_bytes()
    began = time.perf_counter()
    storage = StableStorage.open(OsFiles(directory), identity(groups), JOURNAL_BYTES)
    assert storage.tags(GROUP_SECTORS * (groups // 2), 1) == pack_tag(5, 1)
    first = time.perf_counter() - began
    rng = random.Random(2)
    began = time.perf_counter()
    for _ in range(QUESTIONS):
        assert storage.tags(GROUP_SECTORS * rng.randrange(groups), 1) == pack_tag(5, 1)
    cold = (time.perf_counter() - began) / QUESTIONS
    for group in range(0, groups, max(1, groups // 200_000)):
        storage.tags(GROUP_SECTORS * group, 1)
    used = resident_bytes() - before
    return {"first answer, s": first, "a tag that is not in memory, us": cold * 1e6, "memory, bytes": used,
            "sectors written": storage.sectors_written, "memory, bytes a sector": used / storage.sectors_written}


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("size", default="100GiB")
@click.option("--one-in-8", is_flag=True, help="One sector of each group of 8 is written.")
@click.option("--without-index", is_flag=True, help="Remove the index: all of the tags are read.")
@click.option("--directory", type=click.Path(path_type=Path), help="Where to make it, and keep it.")
@click.option("--measure-only", hidden=True, is_flag=True)
def main(size: str, one_in_8: bool, without_index: bool, directory: Path | None, measure_only: bool) -> None:
    """Memory and start of a node with SIZE written."""
    per_group = 1 if one_in_8 else GROUP_SECTORS
    groups = parse_size(size) // SECTOR_SIZE // per_group
    if measure_only:
        assert directory is not None
        print(json.dumps(measure(directory, groups)))
        return
    with tempfile.TemporaryDirectory(prefix="dsreg-tags-") as temporary:
        where = directory or Path(temporary)
        make(where, groups, per_group)
        if without_index:
            (where / INDEX).unlink(missing_ok=True)
        options = ["--one-in-8"] if one_in_8 else []
        command = [sys.executable, "-m", "scripts.many_tags", size, *options, "--directory", str(where)]
        done = subprocess.run([*command, "--measure-only"], check=True, capture_output=True, text=True)
        for name, value in json.loads(done.stdout).items():
            print(f"{name:35} {value:,.2f}")


if __name__ == "__main__":
    main()
