"""The file system, asked in the bytes of the kernel: what comes back is an answer or an errno."""

from __future__ import annotations

import errno
import os
import stat
import struct
from collections.abc import Callable, Iterator

import pytest
import trio

from dsreg.errors import (
    AuthenticationFailed,
    ClientClosed,
    DsregError,
    NodesFull,
    NoSpace,
    OperationTimeout,
    Outcome,
    OutOfRange,
)
from dsreg.store import Done, Flush, Read, Request, Trim, Write, Zero
from dsreg.volume import Volume, errno_of
from dsreg.volume.failures import ErrorLog
from dsreg.volume.stall import STALL_S, StallWatch
from fuse_frontend.direct import OPEN_FLAGS, REFUSED, DirectBinding
from fuse_frontend.files import IMAGE_INODE, SYNC_HANDLE, DiskFiles
from fuse_frontend.kernel import (
    FOPEN_DIRECT_IO,
    FOPEN_NOFLUSH,
    FOPEN_PARALLEL_DIRECT_WRITES,
    Opcode,
)
from fuse_frontend.requests import KEEP_SIZE, PUNCH_HOLE, ROOT_INODE, ZERO_RANGE
from tests.fuse.kernel_end import KernelEnd, io_in
from tests.fuse.test_kernel import AttrOut, EntryOut, FallocateIn, SetattrIn, Statfs, parsed

SIZE = 16 * 4096
MAYBE = Outcome.MAY_HAVE_HAPPENED


class Disk:
    """A disk in memory; `error`, if set, is what every request ends with, as an answer or, if it is a bug, at once.
    Requests end at once, or, with `holds`, at the end of the turn."""

    def __init__(self, holds: bool) -> None:
        self.size = SIZE
        self.is_cached = False
        self.obstacle = ""
        self.content = bytearray(os.urandom(SIZE))
        self.flushes = self.trims = 0
        self.error: Exception | None = None
        self._holds = holds
        self._held: list[Callable[[], None]] = []

    def submit(self, request: Request, done: Done) -> None:
        if self.error is not None and not isinstance(self.error, DsregError):
            raise self.error
        if self._holds:
            self._held.append(lambda: self._end(request, done))
        else:
            self._end(request, done)

    def end_turn(self) -> None:
        held, self._held = self._held, []
        for end in held:
            end()

    def _end(self, request: Request, done: Done) -> None:
        if isinstance(self.error, DsregError):
            done(b"", self.error)
        elif isinstance(request, Read):
            done(bytes(self.content[request.offset:request.offset + request.length]), None)
        elif isinstance(request, Write):
            self.content[request.offset:request.offset + len(request.data)] = request.data
            self.flushes += request.fua
            done(b"", None)
        elif isinstance(request, Zero | Trim):
            self.content[request.offset:request.offset + request.length] = bytes(request.length)
            self.flushes += isinstance(request, Zero) and request.fua
            self.trims += isinstance(request, Trim)
            done(b"", None)
        else:
            assert isinstance(request, Flush)
            self.flushes += 1
            done(b"", None)


@pytest.fixture(params=[False, True], ids=["at once", "at the end of the turn"])
def disk(request: pytest.FixtureRequest) -> Disk:
    return Disk(request.param)


@pytest.fixture
def files(disk: Disk) -> DiskFiles:
    return DiskFiles(Volume(disk), 1000, 1001)


@pytest.fixture
def kernel(files: DiskFiles, end: KernelEnd, nursery: trio.Nursery) -> Iterator[Kernel]:
    binding = DirectBinding(files, end.fd)
    nursery.start_soon(binding.run)
    yield Kernel(end)
    assert not files.volume.stall_watch.started
    binding.close()


class Kernel:
    """Asks as the kernel does. An errno is raised as OSError."""

    def __init__(self, end: KernelEnd) -> None:
        self.end = end

    async def ask(self, opcode: int, inode: int, body: bytes = b"") -> bytes:
        error, answer = await self.end.ask(opcode, inode, body)
        if error:
            raise OSError(error, os.strerror(error))
        return answer

    async def open(self, flags: int) -> tuple[int, int]:
        """The handle, and what the kernel is told about it."""
        answer = await self.ask(Opcode.OPEN, IMAGE_INODE, struct.pack("=II", flags, 0))
        handle, open_flags = struct.unpack("=QI4x", answer)
        return handle, open_flags

    async def read(self, offset: int, size: int, handle: int = IMAGE_INODE) -> bytes:
        return await self.ask(Opcode.READ, IMAGE_INODE, io_in(handle, offset, size))

    async def write(self, offset: int, data: bytes, handle: int = IMAGE_INODE) -> int:
        answer = await self.ask(Opcode.WRITE, IMAGE_INODE, io_in(handle, offset, len(data)) + data)
        [count] = struct.unpack("=I4x", answer)
        return int(count)

    async def fsync(self, flags: int = 0) -> None:
        assert await self.ask(Opcode.FSYNC, IMAGE_INODE, struct.pack("=QII", IMAGE_INODE, flags, 0)) == b""

    async def allocate(self, mode: int, offset: int, length: int, handle: int = IMAGE_INODE) -> None:
        asked = bytes(FallocateIn(handle, offset, length, mode, 0))
        assert await self.ask(Opcode.FALLOCATE, IMAGE_INODE, asked) == b""

    async def getattr(self, inode: int) -> dict[str, int]:
        return parsed(AttrOut, await self.ask(Opcode.GETATTR, inode, bytes(16)))

    async def setattr(self, bits: int, inode: int = IMAGE_INODE, **fields: int) -> dict[str, int]:
        return parsed(AttrOut, await self.ask(Opcode.SETATTR, inode, bytes(SetattrIn(valid=bits, **fields))))


async def expect(code: int, operation: object) -> None:
    with pytest.raises(OSError) as caught:
        await operation  # type: ignore[misc]
    assert caught.value.errno == code


@pytest.mark.parametrize("opcode", REFUSED)
async def test_nothing_comes_and_nothing_goes(kernel: Kernel, opcode: Opcode) -> None:
    await expect(errno.EPERM, kernel.ask(opcode, ROOT_INODE, bytes(16) + b"disk.img\0new\0"))


@pytest.mark.parametrize("opcode", [22, 34, 52, 1000])
async def test_what_is_not_there_is_not_asked_for_again(kernel: Kernel, opcode: int) -> None:
    """Extended attributes and the like: the kernel takes ENOSYS for an answer for ever."""
    await expect(errno.ENOSYS, kernel.ask(opcode, IMAGE_INODE, bytes(16)))


async def test_names(kernel: Kernel) -> None:
    found = parsed(EntryOut, await kernel.ask(Opcode.LOOKUP, ROOT_INODE, b"disk.img\0"))
    assert (found["nodeid"], found["ino"], found["generation"]) == (IMAGE_INODE, IMAGE_INODE, 0)
    assert (found["entry_valid"], found["attr_valid"]) == (3600, 1)
    for name in (b".\0", b"..\0"):
        assert parsed(EntryOut, await kernel.ask(Opcode.LOOKUP, ROOT_INODE, name))["nodeid"] == ROOT_INODE
    await expect(errno.ENOENT, kernel.ask(Opcode.LOOKUP, ROOT_INODE, b"disk.IMG\0"))
    await expect(errno.ENOENT, kernel.ask(Opcode.LOOKUP, IMAGE_INODE, b"disk.img\0"))
    await expect(errno.ENOENT, kernel.getattr(99))
    await expect(errno.ENOTDIR, kernel.ask(Opcode.OPENDIR, IMAGE_INODE, bytes(8)))


async def test_the_directory(kernel: Kernel) -> None:
    await kernel.ask(Opcode.OPENDIR, ROOT_INODE, bytes(8))
    entry = struct.pack("=QQII8s", IMAGE_INODE, 1, 8, stat.S_IFREG >> 12, b"disk.img")
    for offset, size, expected in ((0, 4096, entry), (0, len(entry), entry), (0, len(entry) - 1, b""), (1, 4096, b"")):
        assert await kernel.ask(Opcode.READDIR, ROOT_INODE, io_in(ROOT_INODE, offset, size)) == expected
    for opcode in (Opcode.RELEASEDIR, Opcode.FSYNCDIR):
        assert await kernel.ask(opcode, ROOT_INODE, bytes(24)) == b""


async def test_attributes(kernel: Kernel) -> None:
    image = await kernel.getattr(IMAGE_INODE)
    assert stat.S_ISREG(image["mode"]) and stat.S_IMODE(image["mode"]) == 0o600
    assert (image["size"], image["blocks"], image["blksize"]) == (SIZE, SIZE // 512, 1 << 20)
    assert (image["uid"], image["gid"]) == (1000, 1001)
    root = await kernel.getattr(ROOT_INODE)
    assert stat.S_ISDIR(root["mode"]) and stat.S_IMODE(root["mode"]) == 0o555
    assert parsed(Statfs, await kernel.ask(Opcode.STATFS, ROOT_INODE))["blocks"] == SIZE // 4096


async def test_open_goes_around_the_page_cache(kernel: Kernel) -> None:
    handle, flags = await kernel.open(os.O_RDWR)
    assert flags == OPEN_FLAGS == FOPEN_DIRECT_IO | FOPEN_PARALLEL_DIRECT_WRITES | FOPEN_NOFLUSH
    assert await kernel.ask(Opcode.RELEASE, IMAGE_INODE, struct.pack("=QIIQ", handle, 0, 0, 0)) == b""
    await expect(errno.EPERM, kernel.open(os.O_RDWR | os.O_TRUNC))
    await expect(errno.EISDIR, kernel.ask(Opcode.OPEN, ROOT_INODE, bytes(8)))
    await expect(errno.ENOENT, kernel.ask(Opcode.OPEN, 99, bytes(8)))


async def test_read_and_write_end_where_the_disk_ends(kernel: Kernel, disk: Disk) -> None:
    before = bytes(disk.content)
    assert await kernel.read(SIZE - 10, 100) == before[-10:]
    assert await kernel.read(SIZE, 1) == b""
    assert await kernel.read(SIZE + 5000, 1) == b""
    assert await kernel.write(SIZE - 3, b"12345") == 3
    assert bytes(disk.content) == before[:-3] + b"123"
    await expect(errno.ENOSPC, kernel.write(SIZE, b"1"))
    await expect(errno.ENOSPC, kernel.write(SIZE + 5000, b"1"))


async def test_reads_and_writes(kernel: Kernel, disk: Disk) -> None:
    for offset, length in ((0, 4096), (4096, 8192), (1, 1), (4095, 4098), (0, SIZE)):
        data = os.urandom(length)
        assert await kernel.write(offset, data) == length
        assert bytes(disk.content[offset:offset + length]) == await kernel.read(offset, length) == data


async def test_a_write_changes_the_times(kernel: Kernel) -> None:
    await kernel.setattr(1 << 4 | 1 << 5, atime=5, mtime=5)
    await kernel.write(0, b"x")
    after = await kernel.getattr(IMAGE_INODE)
    assert after["atime"] == 5 and after["mtime"] == after["ctime"] > 5


@pytest.mark.allow_logs("write: ")
async def test_a_write_that_failed_changes_no_times(kernel: Kernel, disk: Disk) -> None:
    before = await kernel.setattr(1 << 4 | 1 << 5, atime=5, mtime=5)
    disk.error = OperationTimeout("no majority", MAYBE)
    await expect(errno.EIO, kernel.write(0, b"x"))
    assert await kernel.getattr(IMAGE_INODE) == before
    disk.error = None
    await kernel.write(0, b"x")
    assert (await kernel.getattr(IMAGE_INODE))["mtime"] > 5


async def test_fsync_waits_for_the_disk_and_close_does_not(kernel: Kernel, disk: Disk) -> None:
    await kernel.fsync()
    await kernel.fsync(1)
    assert disk.flushes == 2
    assert await kernel.ask(Opcode.FLUSH, IMAGE_INODE, bytes(24)) == b""
    assert disk.flushes == 2


@pytest.mark.parametrize("flag", [os.O_SYNC, os.O_DSYNC])
async def test_a_synchronous_write_goes_through_a_cache(kernel: Kernel, disk: Disk, flag: int) -> None:
    for is_cached, expected in ((False, 0), (True, 1)):
        disk.is_cached = is_cached
        for flags in (os.O_RDWR | flag, os.O_RDWR):
            handle, _ = await kernel.open(flags)
            assert handle == (SYNC_HANDLE if is_cached and flags != os.O_RDWR else IMAGE_INODE)
            assert await kernel.write(0, b"x", handle) == 1
            assert await kernel.read(0, 1, handle) == b"x"
        assert disk.flushes == expected


async def test_the_size_is_fixed(kernel: Kernel) -> None:
    assert (await kernel.setattr(1 << 3, size=SIZE))["size"] == SIZE
    for size in (0, SIZE - 1, SIZE + 4096):
        await expect(errno.EPERM, kernel.setattr(1 << 3, size=size))
    await expect(errno.EPERM, kernel.setattr(1 << 3, ROOT_INODE, size=SIZE))
    for bit in (0, 1, 2):
        await expect(errno.EPERM, kernel.setattr(1 << bit))
    assert (await kernel.setattr(1 << 5, mtime=5, mtimensec=7))["mtime"] == 5
    now = await kernel.setattr(1 << 4 | 1 << 5 | 1 << 7)
    assert now["mtime"] == 0 and (now["atime"], now["atimensec"]) == (now["ctime"], now["ctimensec"])


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OperationTimeout("t", MAYBE), errno.EIO),
        (AuthenticationFailed("a", Outcome.DID_NOT_HAPPEN), errno.EIO),
        (ClientClosed("c", MAYBE), errno.EIO),
        (OutOfRange("o", Outcome.DID_NOT_HAPPEN), errno.EINVAL),
        (NoSpace("n"), errno.ENOSPC),
        (NodesFull("f", MAYBE), errno.ENOSPC),
        (DsregError("d"), errno.EIO),
    ],
)
async def test_operating_errors(
    kernel: Kernel, disk: Disk, error: DsregError, code: int, allow_logs: Callable[[str], None]
) -> None:
    allow_logs("(read|write|flush|trim|zero): ")
    assert errno_of(error) == code
    disk.error = error
    await expect(code, kernel.read(0, 10))
    await expect(code, kernel.write(0, b"x"))
    await expect(code, kernel.fsync())
    await expect(code, kernel.allocate(PUNCH_HOLE | KEEP_SIZE, 0, 4096))
    await expect(code, kernel.allocate(ZERO_RANGE, 1, 1))


@pytest.mark.parametrize("bug", [ZeroDivisionError("b"), AssertionError("b"), ExceptionGroup("g", [ValueError()])])
async def test_a_bug_is_one_failed_request_and_a_traceback(
    kernel: Kernel, disk: Disk, bug: Exception, allow_logs: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    allow_logs("a bug in this program")
    disk.error = bug
    await expect(errno.EIO, kernel.read(0, 10))
    await expect(errno.EIO, kernel.write(0, b"x"))
    assert caplog.text.count("Traceback") >= 2 and type(bug).__name__ in caplog.text
    disk.error = None
    assert len(await kernel.read(0, 10)) == 10


async def test_what_the_kernel_never_sends_is_a_failed_request(
    kernel: Kernel, allow_logs: Callable[[str], None]
) -> None:
    allow_logs("a bug in this program")
    for opcode in (Opcode.LOOKUP, Opcode.SETATTR, Opcode.OPEN, Opcode.READ, Opcode.WRITE, Opcode.FALLOCATE):
        await expect(errno.EIO, kernel.ask(opcode, IMAGE_INODE, b"?"))
    assert len(await kernel.read(0, 10)) == 10


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
    watch = StallWatch(clock=lambda: now[0], why=lambda: "no space: the nodes 1, 2 have none")
    watch.started[2] = (watch.clock(), Read(8192, 4096))
    now[0] += STALL_S - 0.1
    watch.check()
    assert not watch.stalled
    watch.started[4] = (watch.clock(), Flush())
    now[0] += 0.2
    for _ in range(3):
        watch.check()
    assert watch.stalled and len(caplog.records) == 1
    assert caplog.messages[0].endswith("the nodes 1, 2 have none. Nothing is lost; they continue once that is over.")
    assert "a read of 4096 bytes at 8192 has been waiting for 5 s (2 requests wait)" in caplog.messages[0]
    del watch.started[2]
    watch.check()
    watch.check()
    assert not watch.stalled and len(caplog.records) == 2
    now[0] += STALL_S
    watch.check()
    assert "an fsync has been waiting for 5 s (1 requests wait)" in caplog.messages[2]
