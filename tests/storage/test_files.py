"""One contract for the real directory and the one in memory."""

from __future__ import annotations

import ctypes
import errno
import os
import random
from pathlib import Path

import pytest

from dsreg.errors import StorageLocked
from dsreg.storage.files import MAX_BUFFERS, Files, OsFiles
from dsreg.testing.memory_files import Kind, MemoryFiles, drop_all, keep_all, random_chooser


@pytest.fixture(params=["os", "memory"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Files:
    return OsFiles(tmp_path / "new" / "directory") if request.param == "os" else MemoryFiles()


def test_read_and_write_anywhere(files: Files) -> None:
    file = files.open("a", create=True)
    file.pwritev([b"abc", bytearray(b"defg"), memoryview(b"hi")], 10000)
    assert file.size() == 10009
    assert file.pread(9, 10000) == b"abcdefghi"
    assert file.pread(100, 10007) == b"hi"
    assert file.pread(100, 20000) == b""
    assert file.pread(4, 9998) == b"\0\0ab"
    assert files.open("a").pread(3, 10000) == b"abc"


def test_more_buffers_than_the_kernel_takes_at_once(files: Files) -> None:
    buffers = [bytes([index % 251]) * (index % 7) for index in range(2 * MAX_BUFFERS + 5)]
    file = files.open("a", create=True)
    file.pwritev(buffers, 3)
    assert file.pread(10**6, 3) == b"".join(buffers)


def test_nowait_reads_all_or_raises(files: Files) -> None:
    file = files.open("a", create=True)
    file.pwritev([b"x" * 8192], 0)
    assert bytes(file.pread_nowait(8192, 0)) == b"x" * 8192
    with pytest.raises(BlockingIOError):
        file.pread_nowait(8192, 4096)


def test_allocate_and_truncate(files: Files) -> None:
    file = files.open("a", create=True)
    file.allocate(0, 10000)
    assert file.size() == 10000 and file.pread(10000, 0) == bytes(10000)
    file.pwritev([b"x" * 5000], 0)
    file.truncate(4500)
    file.truncate(6000)
    assert file.pread(6000, 0) == b"x" * 4500 + bytes(1500)
    file.fdatasync()


def test_punch(files: Files) -> None:
    file = files.open("a", create=True)
    file.pwritev([b"x" * 5 * 4096], 0)
    assert file.punch(4096, 2 * 4096)
    assert file.pread(10**6, 0) == b"x" * 4096 + bytes(2 * 4096) + b"x" * 2 * 4096
    assert file.punch(3 * 4096, 100 * 4096), "beyond the end"
    assert file.size() == 5 * 4096 and file.pread(10**6, 3 * 4096) == bytes(2 * 4096)
    file.pwritev([b"y" * 4096], 4096)
    assert file.pread(4096, 4096) == b"y" * 4096
    file.close()


def test_names(files: Files) -> None:
    with pytest.raises(FileNotFoundError):
        files.open("a")
    file = files.open("a", create=True)
    file.pwritev([b"a"], 0)
    file.close()
    files.open("b", create=True).close()
    assert files.list() == ["a", "b"] and files.exists("a") and not files.exists("c")
    files.rename("a", "b")
    files.sync_dir()
    assert files.list() == ["b"] and files.open("b").pread(1, 0) == b"a"
    files.remove("b")
    assert files.list() == []
    for change in (lambda: files.remove("b"), lambda: files.rename("b", "c")):
        with pytest.raises(FileNotFoundError):
            change()


def test_one_holder_of_the_lock(files: Files) -> None:
    lock = files.lock("lock")
    with pytest.raises(StorageLocked):
        files.lock("lock")
    lock.close()
    files.lock("lock").close()


def test_a_closed_file_is_closed(files: Files) -> None:
    file = files.open("a", create=True)
    file.close()
    file.close()
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        file.pread(1, 0)


def test_short_writes_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pwrite, pwritev = os.pwrite, os.pwritev
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: pwrite(fd, memoryview(data)[:3], at))
    monkeypatch.setattr(os, "pwritev", lambda fd, buffers, at: pwritev(fd, buffers[:1], at))
    file = OsFiles(tmp_path).open("a", create=True)
    file.pwritev([b"abcdefgh"], 0)
    file.pwritev([b"12345", b"6789"], 8)
    assert file.pread(100, 0) == b"abcdefgh123456789"


# --- the fake alone -----------------------------------------------------------------------------
def test_power_loss_takes_what_was_not_synced() -> None:
    files = MemoryFiles()
    file = files.open("a", create=True)
    file.pwritev([b"1" * 2048], 0)
    file.fdatasync()
    files.sync_dir()
    file.pwritev([b"2" * 2048], 0)
    files.open("b", create=True)
    before = list(files.log)
    after = files.crash(drop_all)
    assert after.list() == ["a"] and after.open("a").pread(4096, 0) == b"1" * 2048
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        file.pread(1, 0)
    after = MemoryFiles.from_log(before).crash(keep_all)
    assert after.list() == ["a", "b"] and after.open("a").pread(4096, 0) == b"2" * 2048
    after = MemoryFiles.from_log(before).crash(lambda operation: 0b0101)
    assert after.open("a").pread(4096, 0) == (b"2" * 512 + b"1" * 512) * 2


def test_torn_writes_break_at_disk_sectors(rng: random.Random) -> None:
    files = MemoryFiles()
    file = files.open("a", create=True)
    files.sync_dir()
    file.pwritev([b"x" * 3000], 100)
    assert files.log[-1].pieces == 7
    after = files.crash(random_chooser(rng)).open("a").pread(4096, 0).ljust(4096, b"\0")
    for start in range(0, 4096, 512):
        piece = after[max(start, 100):min(start + 512, 3100)]
        assert len(set(piece)) <= 1


def test_injected_errors_and_capacity() -> None:
    files = MemoryFiles(capacity=2)
    file = files.open("a", create=True)
    files.fail(Kind.SYNC, nth=2, name="a")
    file.fdatasync()
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        file.fdatasync()
    file.fdatasync()
    file.pwritev([bytes(8192)], 0)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        file.pwritev([b"x"], 8192)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        file.pwritev([b"12", b"z" * 9000], 8190)
    assert file.size() == 8192 and file.pread(2, 8190) == b"12"
    file.pwritev([b"y"], 0)
    files.damage("a", 0, 1)
    assert file.pread(2, 0) == b"\x86\0"
    files.unreadable("a", 1)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        file.pread(1, 4096)


def test_dropped_from_memory(files: Files) -> None:
    file = files.open("a", create=True)
    file.pwritev([b"x" * (2 << 20)], 0)
    file.fdatasync()
    file.drop_cached(8192, 4096)
    if isinstance(files, OsFiles):
        with pytest.raises(BlockingIOError):
            file.pread_nowait(4096, 8192)
        assert bytes(file.pread_nowait(8192, 1 << 20)) == b"x" * 8192  # not too much
    assert file.pread(2 << 20, 0) == b"x" * (2 << 20)


def test_a_file_system_that_cannot_punch_is_told_from_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = OsFiles(tmp_path).open("file", create=True)
    file.pwritev([b"x" * (4 * 4096)], 0)
    for number, raises in ((errno.EOPNOTSUPP, False), (errno.ENOSPC, False), (errno.EIO, True)):
        def refused(*args: int, number: int = number) -> int:
            ctypes.set_errno(number)
            return -1

        monkeypatch.setattr("dsreg.storage.files._fallocate", refused)
        if raises:
            with pytest.raises(OSError, match="Input/output"):
                file.punch(0, 4096)
        else:
            assert not file.punch(0, 4096)
    file.close()
