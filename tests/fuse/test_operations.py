"""The handlers, called as pyfuse3 calls them: what leaves them is an answer or a FUSEError."""

from __future__ import annotations

import errno
import inspect
import os
import stat
from collections.abc import Callable

import pytest

pyfuse3 = pytest.importorskip("pyfuse3", reason="pyfuse3 is not installed")

from dsreg.errors import (  # noqa: E402
    AuthenticationFailed,
    ClientClosed,
    DsregError,
    NoSpace,
    OperationTimeout,
    Outcome,
    OutOfRange,
)
from fuse_frontend.operations import IMAGE_INODE, DiskOperations, ErrorLog, errno_of  # noqa: E402
from fuse_frontend.stall import STALL_S, StallWatch  # noqa: E402

SIZE = 16 * 4096
MAYBE = Outcome.MAY_HAVE_HAPPENED


class Disk:
    """A disk in memory; `error`, if set, is what every request raises."""

    def __init__(self) -> None:
        self.size = SIZE
        self.is_cached = False
        self.content = bytearray(os.urandom(SIZE))
        self.flushes = 0
        self.error: Exception | None = None

    def _fail(self) -> None:
        if self.error is not None:
            raise self.error

    async def read(self, offset: int, length: int) -> bytes:
        self._fail()
        return bytes(self.content[offset:offset + length])

    async def write(self, offset: int, data: bytes) -> None:
        self._fail()
        self.content[offset:offset + len(data)] = data

    async def flush(self) -> None:
        self._fail()
        self.flushes += 1


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
def operations(disk: Disk) -> DiskOperations:
    return DiskOperations(disk, 1000, 1001)


async def expect(code: int, operation: object) -> None:
    with pytest.raises(pyfuse3.FUSEError) as caught:
        await operation  # type: ignore[misc]
    assert caught.value.errno == code


def test_every_handler_is_wrapped() -> None:
    """A handler of ours without the wrapper, or one that pyfuse3 has and that would raise something else."""
    for name, method in inspect.getmembers(pyfuse3.Operations, inspect.iscoroutinefunction):
        ours = getattr(DiskOperations, name)
        if ours is not method:
            assert hasattr(ours, "__wrapped__"), f"{name} lets errors through"


@pytest.mark.parametrize("name", ["create", "mknod", "mkdir", "symlink", "link", "unlink", "rmdir", "rename"])
async def test_nothing_comes_and_nothing_goes(operations: DiskOperations, name: str) -> None:
    await expect(errno.EPERM, getattr(operations, name)(pyfuse3.ROOT_INODE, b"disk.img", 0o600, 0, None))


async def test_names(operations: DiskOperations) -> None:
    assert (await operations.lookup(pyfuse3.ROOT_INODE, b"disk.img")).st_ino == IMAGE_INODE
    assert (await operations.lookup(pyfuse3.ROOT_INODE, b"..")).st_ino == pyfuse3.ROOT_INODE
    await expect(errno.ENOENT, operations.lookup(pyfuse3.ROOT_INODE, b"disk.IMG"))
    await expect(errno.ENOENT, operations.lookup(IMAGE_INODE, b"disk.img"))
    await expect(errno.ENOENT, operations.getattr(99))
    await expect(errno.ENOTDIR, operations.opendir(IMAGE_INODE))


async def test_attributes(operations: DiskOperations) -> None:
    entry = await operations.getattr(IMAGE_INODE)
    assert stat.S_ISREG(entry.st_mode) and stat.S_IMODE(entry.st_mode) == 0o600
    assert (entry.st_size, entry.st_blocks, entry.st_blksize) == (SIZE, SIZE // 512, 1 << 20)
    assert (entry.st_uid, entry.st_gid) == (1000, 1001)
    root = await operations.getattr(pyfuse3.ROOT_INODE)
    assert stat.S_ISDIR(root.st_mode) and stat.S_IMODE(root.st_mode) == 0o555
    assert (await operations.statfs()).f_blocks == SIZE // 4096


async def test_open_goes_around_the_page_cache(operations: DiskOperations) -> None:
    info = await operations.open(IMAGE_INODE, os.O_RDWR)
    assert info.direct_io and not info.keep_cache
    await operations.release(info.fh)
    await expect(errno.EPERM, operations.open(IMAGE_INODE, os.O_RDWR | os.O_TRUNC))
    await expect(errno.EISDIR, operations.open(pyfuse3.ROOT_INODE, os.O_RDONLY))


async def test_read_and_write_end_where_the_disk_ends(operations: DiskOperations, disk: Disk) -> None:
    before = bytes(disk.content)
    assert await operations.read(IMAGE_INODE, SIZE - 10, 100) == before[-10:]
    assert await operations.read(IMAGE_INODE, SIZE, 1) == b""
    assert await operations.read(IMAGE_INODE, SIZE + 5000, 1) == b""
    assert await operations.write(IMAGE_INODE, SIZE - 3, b"12345") == 3
    assert bytes(disk.content) == before[:-3] + b"123"
    await expect(errno.ENOSPC, operations.write(IMAGE_INODE, SIZE, b"1"))


async def test_fsync_waits_for_the_disk_and_close_does_not(operations: DiskOperations, disk: Disk) -> None:
    await operations.fsync(IMAGE_INODE, False)
    await operations.fsync(IMAGE_INODE, True)
    assert disk.flushes == 2
    await operations.flush(IMAGE_INODE)
    assert disk.flushes == 2


@pytest.mark.parametrize("flag", [os.O_SYNC, os.O_DSYNC])
async def test_a_synchronous_write_goes_through_a_cache(operations: DiskOperations, disk: Disk, flag: int) -> None:
    for is_cached, expected in ((False, 0), (True, 1)):
        disk.is_cached = is_cached
        for flags in (os.O_RDWR | flag, os.O_RDWR):
            info = await operations.open(IMAGE_INODE, flags)
            assert await operations.write(info.fh, 0, b"x") == 1
            assert await operations.read(info.fh, 0, 1) == b"x"
            await operations.release(info.fh)
        assert disk.flushes == expected


async def test_the_size_is_fixed(operations: DiskOperations) -> None:
    class Fields:
        update_mode = update_uid = update_gid = update_atime = update_mtime = update_size = False

    attr, fields = pyfuse3.EntryAttributes(), Fields()
    fields.update_size, attr.st_size = True, SIZE
    assert (await operations.setattr(IMAGE_INODE, attr, fields, None)).st_size == SIZE
    for size in (0, SIZE - 1, SIZE + 4096):
        attr.st_size = size
        await expect(errno.EPERM, operations.setattr(IMAGE_INODE, attr, fields, None))
    fields.update_size, fields.update_mode = False, True
    await expect(errno.EPERM, operations.setattr(IMAGE_INODE, attr, fields, None))
    fields.update_mode, fields.update_mtime, attr.st_mtime_ns = False, True, 5_000_000_000
    assert (await operations.setattr(IMAGE_INODE, attr, fields, None)).st_mtime_ns == 5_000_000_000


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OperationTimeout("t", MAYBE), errno.EIO),
        (AuthenticationFailed("a", Outcome.DID_NOT_HAPPEN), errno.EIO),
        (ClientClosed("c", MAYBE), errno.EIO),
        (OutOfRange("o", Outcome.DID_NOT_HAPPEN), errno.EINVAL),
        (NoSpace("n"), errno.ENOSPC),
        (DsregError("d"), errno.EIO),
    ],
)
async def test_operating_errors(
    operations: DiskOperations, disk: Disk, error: DsregError, code: int, allow_logs: Callable[[str], None]
) -> None:
    allow_logs("(read|write|fsync): ")
    assert errno_of(error) == code
    disk.error = error
    await expect(code, operations.read(IMAGE_INODE, 0, 10))
    await expect(code, operations.write(IMAGE_INODE, 0, b"x"))
    await expect(code, operations.fsync(IMAGE_INODE, False))


@pytest.mark.parametrize("bug", [ZeroDivisionError("b"), AssertionError("b"), ExceptionGroup("g", [ValueError()])])
async def test_a_bug_is_one_failed_request_and_a_traceback(
    operations: DiskOperations, disk: Disk, bug: Exception, allow_logs: Callable[[str], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    allow_logs("a bug in the file system")
    disk.error = bug
    await expect(errno.EIO, operations.read(IMAGE_INODE, 0, 10))
    assert type(bug).__name__ in caplog.text and "Traceback" in caplog.text
    disk.error = None
    assert len(await operations.read(IMAGE_INODE, 0, 10)) == 10


@pytest.mark.allow_logs("read: ")
def test_equal_errors_are_one_line_a_second(caplog: pytest.LogCaptureFixture) -> None:
    now = [100.0]
    errors = ErrorLog(clock=lambda: now[0])
    for _ in range(50):
        errors.error("read", NoSpace("full"), errno.ENOSPC)
    errors.error("read", OperationTimeout("t", MAYBE), errno.EIO)
    assert len(caplog.records) == 2
    now[0] += 1.0
    errors.error("read", NoSpace("full"), errno.ENOSPC)
    assert "(49 more like it)" in caplog.messages[-1]


@pytest.mark.allow_logs("has been waiting", "answered again")
def test_a_stall_is_said_once_and_so_is_its_end(caplog: pytest.LogCaptureFixture) -> None:
    now = [100.0]
    watch = StallWatch(clock=lambda: now[0])
    with watch.request("a read"):
        now[0] += STALL_S - 0.1
        watch.check()
        assert not watch.stalled
        with watch.request("a write"):
            now[0] += 0.2
            for _ in range(3):
                watch.check()
        assert watch.stalled and len(caplog.records) == 1 and "2 requests wait" in caplog.messages[0]
    watch.check()
    watch.check()
    assert not watch.stalled and len(caplog.records) == 2
