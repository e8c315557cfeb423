"""Files with holes, and files that a copy goes on with."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from dsreg.cli import image as image_module
from dsreg.cli.holes import parts, sink_of, source_of
from dsreg.cli.image import ImageError, PartialImage, What
from dsreg.constants import MAX_RUN_BYTES, SECTOR_SIZE

WHAT = What(bytes(range(16)), 5, 1000)
# In place of 256 MiB.
CHECKPOINT_BYTES = 8 << 20


def mixture(rng: random.Random, sectors: int) -> bytes:
    """Stretches of zeros and of data, some of which has zeros in it."""
    found = b""
    while len(found) < sectors * SECTOR_SIZE:
        count = rng.randrange(1, 40)
        kind = rng.randrange(3)
        found += (rng.randbytes(count * SECTOR_SIZE) if kind == 0 else bytes(count * SECTOR_SIZE) if kind == 1
                  else bytes(SECTOR_SIZE - 1) + b"\1")
    return found[: sectors * SECTOR_SIZE]


def allocated(path: Path) -> int:
    return path.stat().st_blocks * 512


@pytest.fixture
def descriptor(tmp_path: Path) -> Iterator[int]:
    """Of the file `tmp_path / "file"`, which is empty."""
    descriptor = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    yield descriptor
    os.close(descriptor)


def test_parts(rng: random.Random) -> None:
    for _ in range(50):
        data = mixture(rng, rng.randrange(1, MAX_RUN_BYTES // SECTOR_SIZE + 1))
        found, at = list(parts(data)), 0
        for begin, end, is_zero in found:
            sectors = [data[place : place + SECTOR_SIZE] for place in range(begin, end, SECTOR_SIZE)]
            assert begin == at and end > begin and all((sector == bytes(SECTOR_SIZE)) is is_zero for sector in sectors)
            at = end
        assert at == len(data)
        assert all(one[2] is not other[2] for one, other in zip(found, found[1:], strict=False))


async def test_zeros_are_holes_of_a_file(tmp_path: Path, descriptor: int, rng: random.Random) -> None:
    data = mixture(rng, 1500)
    sink = sink_of(descriptor, "file")
    for at in range(0, len(data), 100 * SECTOR_SIZE):
        await sink(data[at : at + 100 * SECTOR_SIZE])
        assert os.fstat(descriptor).st_size == min(at + 100 * SECTOR_SIZE, len(data))
    assert (tmp_path / "file").read_bytes() == data
    stored = sum(end - begin for at in range(0, len(data), MAX_RUN_BYTES)
                 for begin, end, is_zero in parts(data[at : at + MAX_RUN_BYTES]) if not is_zero)
    assert stored <= allocated(tmp_path / "file") < stored + (64 << 10)


@pytest.mark.parametrize("before", [0, 5])
async def test_what_is_written_several_times(tmp_path: Path, descriptor: int, rng: random.Random, before: int) -> None:
    """`before`: sectors that are there already, and are written over."""
    (tmp_path / "file").write_bytes(b"x" * (before * SECTOR_SIZE))
    sink, data = sink_of(descriptor, "file"), mixture(rng, 20)
    await sink(data, 3)
    await sink(bytes(MAX_RUN_BYTES), 100)
    await sink(data)
    found = (tmp_path / "file").read_bytes()
    assert found == 3 * data + bytes(100 * MAX_RUN_BYTES) + data
    assert before or allocated(tmp_path / "file") < 5 * len(data)


async def test_zeros_over_what_is_there_are_written(tmp_path: Path, descriptor: int) -> None:
    (tmp_path / "file").write_bytes(b"x" * (3 * SECTOR_SIZE))
    await sink_of(descriptor, "file")(bytes(2 * SECTOR_SIZE))
    assert (tmp_path / "file").read_bytes() == bytes(2 * SECTOR_SIZE) + b"x" * SECTOR_SIZE


async def test_zeros_that_are_appended(tmp_path: Path) -> None:
    for before in (b"", b"before"):
        (tmp_path / "file").write_bytes(before)
        descriptor = os.open(tmp_path / "file", os.O_WRONLY | os.O_APPEND)
        sink = sink_of(descriptor, "file")
        for data in (bytes(SECTOR_SIZE), b"x" * SECTOR_SIZE, bytes(SECTOR_SIZE)):
            await sink(data)
        os.close(descriptor)
        expected = before + bytes(SECTOR_SIZE) + b"x" * SECTOR_SIZE + bytes(SECTOR_SIZE)
        assert (tmp_path / "file").read_bytes() == expected


@pytest.mark.parametrize("tail", [b"", b"end", bytes(3)])
async def test_holes_are_read_as_zeros(tmp_path: Path, descriptor: int, rng: random.Random, tail: bytes) -> None:
    data = mixture(rng, 2000)
    await sink_of(descriptor, "file")(data[:MAX_RUN_BYTES])
    for at in range(MAX_RUN_BYTES, len(data), MAX_RUN_BYTES):
        await sink_of(descriptor, "file")(data[at : at + MAX_RUN_BYTES])
    os.ftruncate(descriptor, len(data) + (8 << 20))  # and a large hole
    os.lseek(descriptor, 0, os.SEEK_END)
    os.write(descriptor, tail)
    os.lseek(descriptor, 0, os.SEEK_SET)
    source, found = source_of(descriptor, "file"), bytearray()
    while part := await source(size := rng.choice((SECTOR_SIZE, 77 * SECTOR_SIZE, MAX_RUN_BYTES))):
        found += part
        assert len(part) == size or not await source(1)
    assert found == data + bytes(8 << 20) + tail


async def test_a_hole_is_not_read(tmp_path: Path, descriptor: int, monkeypatch: pytest.MonkeyPatch) -> None:
    os.ftruncate(descriptor, 1 << 40)
    reads: list[int] = []
    monkeypatch.setattr("dsreg.cli.holes._read_fully", lambda descriptor, size: reads.append(size))
    source = source_of(descriptor, "file")
    for _ in range(100):
        assert await source(MAX_RUN_BYTES) == bytes(MAX_RUN_BYTES)
    assert not reads


async def test_a_copy_goes_on_where_it_was_safe(
    tmp_path: Path, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was written after the last checkpoint is not trusted: a crash of this host may have kept it in part."""
    monkeypatch.setattr(image_module, "CHECKPOINT_BYTES", CHECKPOINT_BYTES)
    path, data = tmp_path / "image", rng.randbytes(MAX_RUN_BYTES)
    image = PartialImage(path, WHAT)
    runs = CHECKPOINT_BYTES // MAX_RUN_BYTES
    with image.opened(resume=True) as sink:
        assert image.done == 0
        for run in range(runs + 3):
            await sink(data if run % 3 == 0 or run >= runs else bytes(MAX_RUN_BYTES))
    assert not path.exists()
    with image.part.open("r+b") as torn:
        torn.seek(CHECKPOINT_BYTES)
        torn.write(bytes(3 * MAX_RUN_BYTES))
    again = PartialImage(path, WHAT)
    with again.opened(resume=True) as sink:
        assert again.done == CHECKPOINT_BYTES // SECTOR_SIZE
        await sink(data)
    again.complete()
    assert path.stat().st_size == CHECKPOINT_BYTES + MAX_RUN_BYTES and os.listdir(tmp_path) == [path.name]
    with path.open("rb") as stream:
        for run in range(runs + 1):
            assert stream.read(MAX_RUN_BYTES) == (data if run % 3 == 0 or run == runs else bytes(MAX_RUN_BYTES))


async def test_a_copy_that_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(b"an older one")
    for content in (b"x" * 2 * SECTOR_SIZE, b"y" * SECTOR_SIZE):
        (tmp_path / "image.progress").write_text("of something else")
        image = PartialImage(path, WHAT)
        with image.opened(resume=False) as sink:
            await sink(content)
            assert path.read_bytes() == b"an older one" or path.read_bytes() == b"x" * 2 * SECTOR_SIZE
        image.complete()
        assert path.read_bytes() == content and os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize(("progress", "size", "says"), [
    ("not json", SECTOR_SIZE, "cannot be understood"),
    ('{"cluster": "00", "first": 5}', SECTOR_SIZE, "cannot be understood"),
    ('{"cluster": "%s", "first": 6, "sectors": 1000, "done": 1}', SECTOR_SIZE, "of another copy"),
    ('{"cluster": "%s", "first": 5, "sectors": 999, "done": 1}', SECTOR_SIZE, "of another copy"),
    ('{"cluster": "00000000000000000000000000000000", "first": 5, "sectors": 1000, "done": 1}', SECTOR_SIZE,
     "of another copy"),
    ('{"cluster": "%s", "first": 5, "sectors": 1000, "done": 2}', SECTOR_SIZE, "is not what"),
    ('{"cluster": "%s", "first": 5, "sectors": 1000, "done": 2}', None, "is not what"),
])
def test_what_a_copy_cannot_go_on_with(tmp_path: Path, progress: str, size: int | None, says: str) -> None:
    image = PartialImage(tmp_path / "image", WHAT)
    (tmp_path / "image.progress").write_text(progress.replace("%s", WHAT.cluster.hex()))
    if size is not None:
        image.part.write_bytes(bytes(size))
    with pytest.raises(ImageError, match=says), image.opened(resume=True):
        raise AssertionError("it went on")
