"""A storage directory on the real file system, and everything that can happen to its files."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from dsreg.constants import MIN_JOURNAL_BYTES, SECTOR_SIZE, ZERO_SECTOR
from dsreg.errors import StorageError
from dsreg.protocol.tags import pack_tag, tag_at
from dsreg.storage import Identity, OsFiles, StableStorage
from dsreg.storage.journal import RECORDS_AT
from dsreg.storage.layout import IDENTITY, JOURNALS, LIVES, LOCK, SECTORS, STATE, TAGS
from tests.crash_states.demands import value

CLUSTER = bytes(range(16))
DISK = 400
FILES = (*JOURNALS, TAGS, SECTORS, STATE, IDENTITY, LIVES, LOCK)


def identity(rank: int) -> Identity:
    return Identity(CLUSTER, rank, (1, 2, 3), DISK)


@dataclass
class Victim:
    """A directory as a process left it that was killed (or that ended in order), and what was acknowledged there.

    `batches`: those in the live end of the journal, each with its position and what it replaced. Damage to the last
    one looks like a write that a power cut tore, which nobody was told of, and damage to several up to the last like
    a journal that ends earlier: it is the one loss that cannot be noticed.
    """

    path: Path
    rank: int = 1
    tags: dict[int, bytes] = field(default_factory=dict)
    numbers: dict[tuple[int, bytes], int] = field(default_factory=dict)
    batches: list[tuple[int, dict[int, bytes]]] = field(default_factory=list)
    live: str = ""  # the file that they are in
    ts_reserved: int = 0
    incarnation: int = 0

    @classmethod
    def make(cls, path: Path, rank: int, rng: random.Random, in_order: bool, starts: int = 2) -> Victim:
        """Some batches, a checkpoint among them, `starts` times."""
        victim = cls(path, rank)
        scratch = path.with_name(path.name + "-live")
        files = OsFiles(scratch)
        for start in range(starts):
            storage = StableStorage.open(files, identity(rank), MIN_JOURNAL_BYTES)
            victim.incarnation = storage.incarnation
            for batch in range(12):
                victim._batch(storage, rng, ts=1 + 50 * start + batch)
                if batch == 5:
                    checkpoint = storage.next_checkpoint()
                    assert checkpoint is not None
                    checkpoint.run()
                    storage.finish_checkpoint(checkpoint)
                    victim.batches.clear()
            if start < starts - 1 or in_order:
                storage.close()
        if not in_order:
            victim.live = JOURNALS[storage._segment.generation % 2]
        shutil.copytree(scratch, path)
        if not in_order:
            storage.close()
        files.close()
        shutil.rmtree(scratch)
        return victim

    def _batch(self, storage: StableStorage, rng: random.Random, ts: int) -> None:
        replaced: dict[int, bytes] = {}
        for _ in range(rng.randint(1, 4)):
            count = rng.randint(1, 12)
            first = rng.randrange(DISK - count)
            tag = pack_tag(ts, rng.randint(1, 3))
            numbers = [self.numbers.setdefault((sector, tag), len(self.numbers) + self.rank * 1_000_000)
                       for sector in range(first, first + count)]
            data = b"".join(value(first + index, number) for index, number in enumerate(numbers))
            storage.persist(first, count, tag * count, data)
            for sector in range(first, first + count):
                if tag > self.tags.get(sector, bytes(16)):
                    replaced.setdefault(sector, self.tags.get(sector, bytes(16)))
                    self.tags[sector] = tag
        storage.reserve(ts * 10)
        self.ts_reserved = ts * 10
        commit = storage.next_commit()
        assert commit is not None
        at = storage._position if storage._segment_written else RECORDS_AT
        self.batches.append((at, replaced))
        commit.run()
        storage.finish_commit(commit)

    def copy(self, path: Path) -> Victim:
        shutil.copytree(self.path, path, copy_function=shutil.copyfile)
        return Victim(path, self.rank, self.tags, self.numbers, self.batches, self.live, self.ts_reserved,
                      self.incarnation)

    # --- what must hold -----------------------------------------------------------------------------
    def check(self, lost_from: int | None = None) -> str:
        """Open it. Returns what came of it; AssertionError if a wrong or old value would be served.

        `lost_from`: the journal may end at this byte without anybody noticing.
        """
        files = OsFiles(self.path)
        try:
            storage = StableStorage.open(files, identity(self.rank), MIN_JOURNAL_BYTES)
        except StorageError as error:
            files.close()
            return type(error).__name__
        try:
            assert storage.incarnation > self.incarnation and storage.ts_reserved >= self.ts_reserved
            known = [sector for sector in range(DISK) if not storage.unknown(sector, 1)]
            absent = [sector for sector in known if not self._check_sector(storage, sector, lost_from)]
        finally:
            storage.close()
            files.close()
        if len(known) < DISK:
            return "unknown"
        return "missing" if absent else "whole"

    def _check_sector(self, storage: StableStorage, sector: int, lost_from: int | None) -> bool:
        """Whether its value is there."""
        loaded = storage.load(sector, 1, wait=True)
        assert loaded is not None
        tag = tag_at(loaded.tags, 0)
        expected = {self.tags.get(sector, bytes(16))}
        for (_, replaced), (end, _) in zip(self.batches, [*self.batches[1:], (1 << 62, {})], strict=True):
            if lost_from is not None and lost_from < end and sector in replaced:
                expected.add(replaced[sector])
        assert tag in expected, f"sector {sector} has tag {tag.hex()} instead of {[tag.hex() for tag in expected]}"
        if loaded.missing:
            return False
        right = value(sector, self.numbers[sector, tag]) if any(tag) else ZERO_SECTOR
        assert loaded.data == right, f"sector {sector} does not have the value of its tag"
        return True


# --- damage ---------------------------------------------------------------------------------------
def lost_from(victim: Victim, name: str, start: int, end: int) -> int | None:
    """Where the journal may end unnoticed, if bytes [start, end) of a file are damaged: they reach its last batch."""
    return start if name == victim.live and end > victim.batches[-1][0] else None


def _range(victim: Victim, rng: random.Random, name: str) -> tuple[int, int]:
    size = (victim.path / name).stat().st_size
    used = min(size, RECORDS_AT + 600_000) if name in JOURNALS else size
    start = rng.randrange(max(1, rng.choice((used, min(used, 9000)))))
    return start, min(size, start + rng.choice((1, 4, 16, 256, 512, 4096, SECTOR_SIZE * 4, size)))


def overwrite(make: Callable[[random.Random, bytes], bytes]) -> Callable[[Victim, random.Random, str], int | None]:
    """A damage that puts other bytes in the place of some."""

    def damage(victim: Victim, rng: random.Random, name: str) -> int | None:
        start, end = _range(victim, rng, name)
        with open(victim.path / name, "r+b") as file:
            file.seek(start)
            old = file.read(end - start)
            file.seek(start)
            file.write(make(rng, old))
        return lost_from(victim, name, start, end)

    return damage


def truncate(victim: Victim, rng: random.Random, name: str) -> int | None:
    start, _ = _range(victim, rng, name)
    os.truncate(victim.path / name, start)
    return None  # its size gives it away


def extend(victim: Victim, rng: random.Random, name: str) -> int | None:
    with open(victim.path / name, "ab") as file:
        file.write(rng.randbytes(rng.choice((1, 256, 4096, 70_000))))
    return None


def remove(victim: Victim, rng: random.Random, name: str) -> int | None:
    (victim.path / name).unlink()
    return None


def make_directory(victim: Victim, rng: random.Random, name: str) -> int | None:
    (victim.path / name).unlink()
    (victim.path / name).mkdir()
    return None


def make_loop(victim: Victim, rng: random.Random, name: str) -> int | None:
    (victim.path / name).unlink()
    (victim.path / name).symlink_to(name)
    return None


def forbid(victim: Victim, rng: random.Random, name: str) -> int | None:
    (victim.path / name).chmod(0)
    return None


def flip(rng: random.Random, old: bytes) -> bytes:
    out = bytearray(old)
    for _ in range(rng.choice((1, 1, 8))):
        if out:
            out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


DAMAGES: dict[str, Callable[[Victim, random.Random, str], int | None]] = {
    "flipped bits": overwrite(flip),
    "zeros": overwrite(lambda rng, old: bytes(len(old))),
    "random bytes": overwrite(lambda rng, old: rng.randbytes(len(old))),
    "truncated": truncate,
    "extended": extend,
    "removed": remove,
    "a directory": make_directory,
    "a symlink to itself": make_loop,
    "no permission": forbid,
}
