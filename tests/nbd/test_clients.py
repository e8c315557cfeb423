"""Other people's clients against a server on real nodes: libnbd's tools, qemu's, fio, nbdfuse."""

from __future__ import annotations

import json
import os
import random
import shlex
from pathlib import Path

import pytest
import trio

from tests.conftest import why_no_fuse
from tests.nbd.tools import EXPORT, SIZE, nbdsh, needs, run, serving

# These tools have up to 64 requests in flight, of 256 KiB or more: on a loaded machine the last of them waits for
# seconds, and the server says so.
pytestmark = pytest.mark.allow_logs("has been waiting for 5 s", "requests are answered again")


def sparse_file(path: Path, rng: random.Random, size: int = SIZE) -> Path:
    """As large as the disk, with some data and much that is none."""
    with path.open("wb") as file:
        for _ in range(10):
            file.seek(rng.randrange(size - (size >> 6)))
            file.write(rng.randbytes(rng.randrange(size >> 6)))
        file.truncate(size)
    return path


# --- libnbd -------------------------------------------------------------------------------------------
@needs("nbdinfo")
async def test_nbdinfo(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        told = json.loads((await run("nbdinfo", "--json", server.uri)).stdout)
        [export] = told["exports"]
        assert export["export-size"] == SIZE and export["contexts"] == ["base:allocation"]
        sizes = [export[f"block_size_{which}"] for which in ("minimum", "preferred", "maximum")]
        assert sizes == [512, 4096, 32 << 20]
        assert not export["is_read_only"] and not export["can_multi_conn"]
        assert all(export[f"can_{what}"] for what in ("cache", "df", "fast_zero", "flush", "fua", "trim", "zero"))
        assert "disk" in (await run("nbdinfo", "--list", server.uri)).stdout


async def until_told(expected: list[tuple[int, ...]], keys: tuple[str, ...], *command: str) -> None:
    """Ask for the map until it is this one: what the nodes do not agree about in time is data, as while one is slow."""
    with trio.fail_after(120):
        while [tuple(extent[key] for key in keys) for extent in json.loads((await run(*command)).stdout)] != expected:
            pass  # each of them is a process


@needs("nbdcopy")
async def test_holes_are_told(tmp_path: Path) -> None:
    mib = 1 << 20
    source = tmp_path / "source"
    with source.open("wb") as stream:
        stream.truncate(SIZE)
        stream.seek(5 * mib)
        stream.write(b"x" * 4096)
    async with serving(tmp_path) as server:
        by_nbdinfo = ("offset", "length", "type"), "nbdinfo", "--json", "--map", server.uri
        await until_told([(0, SIZE, 3)], *by_nbdinfo)
        await run("nbdcopy", "--destination-is-zero", "--flush", source, server.uri)
        await until_told([(0, 5 * mib, 3), (5 * mib, mib, 0), (6 * mib, SIZE - 6 * mib, 3)], *by_nbdinfo)


@needs("qemu-img")
async def test_holes_are_zeros_to_qemu(tmp_path: Path) -> None:
    mib = 1 << 20
    async with serving(tmp_path) as server:
        await run("qemu-io", "-f", "raw", "-c", "write 5M 64k", server.uri)
        expected: list[tuple[int, ...]] = [
            (0, 5 * mib, True, False), (5 * mib, mib, False, True), (6 * mib, SIZE - 6 * mib, True, False),
        ]
        await until_told(expected, ("start", "length", "zero", "data"), "qemu-img", "map", "--output=json", "-f", "raw",
                         server.uri)


@needs("nbdcopy")
@pytest.mark.parametrize("multi_conn", [False, True], ids=["one", "multi-conn"])
async def test_nbdcopy_there_and_back(tmp_path: Path, rng: random.Random, multi_conn: bool) -> None:
    async with serving(tmp_path, export=EXPORT._replace(is_multi_conn=multi_conn)) as server:
        source = sparse_file(tmp_path / "source", rng)
        await run("nbdcopy", "--flush", source, server.uri)
        await run("nbdcopy", server.uri, tmp_path / "back")
        await run("cmp", source, tmp_path / "back")


@needs("nbdcopy")
async def test_nbdcopy_of_what_is_sparse(tmp_path: Path, rng: random.Random) -> None:
    """Holes are trimmed or zeroed on a disk that has data there, and left out where it is known to be zeros."""
    async with serving(tmp_path) as server:
        source = sparse_file(tmp_path / "source", rng)
        await run("nbdcopy", "--destination-is-zero", source, server.uri)
        await run("nbdcopy", "--sparse=4096", server.uri, tmp_path / "back")
        await run("cmp", source, tmp_path / "back")
        assert (tmp_path / "back").stat().st_blocks * 512 < source.stat().st_blocks * 512 + (1 << 20)
        size = 8 << 20
        other = sparse_file(tmp_path / "other", rng, size)
        await run("nbdcopy", "--flush", other, server.uri)
        await run("nbdcopy", server.uri, tmp_path / "back")
        await run("cmp", "-n", str(size), other, tmp_path / "back")
        await run("cmp", "-i", str(size), source, tmp_path / "back")


COMMANDS = r"""
import errno
def refused(number, call, *arguments, **flags):
    try:
        call(*arguments, **flags)
    except nbd.Error as error:
        assert error.errnum == number, error
    else:
        raise AssertionError("not refused")

h.set_strict_mode(0)    # what libnbd would not send is sent
size = h.get_size()
assert h.get_block_size(nbd.SIZE_MINIMUM) == 512 and h.get_block_size(nbd.SIZE_MAXIMUM) == 32 << 20
assert h.get_structured_replies_negotiated() and h.can_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
h.pwrite(b"a" * 10000, 100)
h.pwrite(b"b" * 512, 512, nbd.CMD_FLAG_FUA)
assert h.pread(10300, 0) == bytes(100) + b"a" * 412 + b"b" * 512 + b"a" * 9076 + bytes(200)
assert h.pread(600, 500, nbd.CMD_FLAG_DF) == b"a" * 12 + b"b" * 512 + b"a" * 76
chunks = []
h.pread_structured(70000, 0, lambda data, offset, status, error: chunks.append((len(data), offset)))
assert chunks == [(70000, 0)], chunks
h.zero(300, 200)
h.zero(100, 512, nbd.CMD_FLAG_NO_HOLE | nbd.CMD_FLAG_FUA)
h.trim(50, 700, nbd.CMD_FLAG_FUA)
model = bytearray(bytes(100) + b"a" * 412 + b"b" * 512 + b"a" * 9076)
for offset, length in ((200, 300), (512, 100), (700, 50)):
    model[offset : offset + length] = bytes(length)
assert h.pread(10100, 0) == model
h.cache(4096, 0)
h.flush()
extents = []
h.block_status(1 << 20, 4096, lambda context, offset, entries, error: extents.append((context, offset, list(entries))))
h.block_status(8192, 0, lambda context, offset, entries, error: extents.append((context, offset, list(entries))),
               nbd.CMD_FLAG_REQ_ONE)
begun, one = extents
assert begun[:2] == ("base:allocation", 4096) and begun[2] in ([(1 << 20) - 4096, 0, 4096, 3], [1 << 20, 0]), extents
assert one == ("base:allocation", 0, [8192, 0])
h.zero(2 << 20, 1 << 20, nbd.CMD_FLAG_FAST_ZERO)
refused(errno.ENOTSUP, h.zero, 4096, 0, nbd.CMD_FLAG_FAST_ZERO)
refused(errno.EINVAL, h.pread, 512, size)
refused(errno.ENOSPC, h.pwrite, b"x", size)
refused(errno.ENOSPC, h.trim, 1024, size - 512)
refused(errno.EINVAL, h.block_status, 1024, size - 512, lambda *arguments: 0)
refused(errno.EINVAL, h.flush, 1 << 9)
assert h.pread(1, size - 1) == bytes(1)
print("done")
"""
OPTIONS = r"""
h.set_opt_mode(True)
h.connect_unix(PATH)
names = []
h.opt_list(lambda name, description: names.append(name))
assert names == ["disk"], names
h.set_export_name("other")
for ask in (h.opt_info, h.opt_go):
    try:
        ask()
    except nbd.Error:
        pass
    else:
        raise AssertionError("there is no such export")
h.set_export_name("disk")
h.opt_info()
assert h.get_size() == SIZE
contexts = []
h.opt_list_meta_context(lambda name: contexts.append(name))
assert contexts == ["base:allocation"], contexts
h.opt_go()
assert h.pread(512, 0) == bytes(512)
h.shutdown()
a = nbd.NBD()
a.set_opt_mode(True)
a.connect_unix(PATH)
a.opt_abort()
old = nbd.NBD()
old.set_handshake_flags(0)
old.set_request_structured_replies(False)
old.connect_unix(PATH)
assert old.get_size() == SIZE and not old.can_df()
old.pwrite(b"z", 77)
assert old.pread(3, 76) == b"\0z\0"
print("done")
"""


@needs("nbdsh")
async def test_every_command_and_flag(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        connect = f"h.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION)\nh.connect_uri({server.uri!r})\n"
        assert (await nbdsh("", connect + COMMANDS)).strip() == "done"


@needs("nbdsh")
async def test_options_and_the_old_handshake(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        script = f"PATH, SIZE = {str(server.path)!r}, {SIZE}\n{OPTIONS}"
        assert (await nbdsh("", script)).strip() == "done"


@needs("nbdsh")
async def test_a_read_only_export(tmp_path: Path) -> None:
    script = r"""
h.set_strict_mode(0)
assert h.is_read_only() and not h.can_trim() and not h.can_zero()
for change in (lambda: h.pwrite(b"x", 0), lambda: h.zero(512, 0), lambda: h.trim(512, 0)):
    try:
        change()
    except nbd.Error as error:
        assert error.errno == "EPERM", error
    else:
        raise AssertionError("not refused")
assert h.pread(4, 0) == bytes(4)
print("done")
"""
    async with serving(tmp_path, export=EXPORT._replace(is_read_only=True)) as server:
        assert (await nbdsh(server.uri, script)).strip() == "done"


@needs("nbdfuse", "fusermount3")
@pytest.mark.skipif(why_no_fuse() is not None, reason=str(why_no_fuse()))
async def test_nbdfuse(tmp_path: Path, rng: random.Random) -> None:
    async with serving(tmp_path) as server:
        mountpoint, data = tmp_path / "mount", rng.randbytes(200 * 512)
        mountpoint.mkdir()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run, "nbdfuse", mountpoint, server.uri)
            image = mountpoint / "nbd"
            with trio.fail_after(60):
                while not image.exists():  # noqa: ASYNC110
                    await trio.sleep(0.05)
            copy = f"dd if=/dev/stdin of={shlex.quote(str(image))} bs=4k seek=3 conv=notrunc,fsync status=none"
            (tmp_path / "data").write_bytes(data)
            await run("sh", "-c", f"{copy} < {shlex.quote(str(tmp_path / 'data'))}")
            await run("cmp", "-n", str(len(data)), "-i", "0:12288", tmp_path / "data", image)
            await run("fusermount3", "-u", mountpoint)


# --- qemu ---------------------------------------------------------------------------------------------
@needs("qemu-img")
async def test_qemu_img(tmp_path: Path, rng: random.Random) -> None:
    async with serving(tmp_path) as server:
        source = sparse_file(tmp_path / "source", rng)
        await run("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", source, server.uri)
        assert "identical" in (await run("qemu-img", "compare", "-f", "raw", "-F", "raw", source, server.uri)).stdout
        info = json.loads((await run("qemu-img", "info", "--output=json", server.uri)).stdout)
        assert (info["virtual-size"], info["format"]) == (SIZE, "raw")
        extents = json.loads((await run("qemu-img", "map", "--output=json", "-f", "raw", server.uri)).stdout)
        assert sum(extent["length"] for extent in extents) == SIZE
        await run("qemu-img", "convert", "-f", "raw", "-O", "raw", server.uri, tmp_path / "back")
        await run("cmp", source, tmp_path / "back")


@needs("qemu-img")
async def test_a_qcow2_on_the_disk(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        await run("qemu-img", "create", "-q", "-f", "qcow2", server.uri, "32M")
        await run("qemu-io", "-f", "qcow2", "-c", "write -P 0x5a 5M 3M", "-c", "write -z 6M 64k", server.uri)
        assert "No errors" in (await run("qemu-img", "check", "-f", "qcow2", server.uri)).stdout
        done = await run("qemu-io", "-f", "qcow2", "-c", "read -P 0x5a 5M 1M", "-c", "read -P 0 6M 64k", server.uri)
        assert "Pattern verification failed" not in done.stdout


@needs("qemu-io")
@pytest.mark.parametrize("cached", [False, True], ids=["none", "writeback"])
async def test_qemu_io(tmp_path: Path, cached: bool) -> None:
    """Its own patterns; each read is compared with what has to be there. Another process reads what the first wrote."""
    writes = ["write -P 1 0 1M", "aio_write -P 2 1M 64k", "aio_write -P 3 1100k 4k", "aio_flush",
              "write -z 128k 64k", "write -z -u 256k 64k", "discard 384k 64k", "write -P 4 -f 513k 3k",
              "write -P 5 700001 77", "flush"]
    reads = ["read -P 1 0 128k", "read -P 0 128k 64k", "read -P 1 192k 64k", "read -P 0 256k 64k", "read -P 0 384k 64k",
             "read -P 4 513k 3k", "read -P 1 516k 100k", "read -P 5 700001 77", "read -P 2 1M 64k",
             "read -P 3 1100k 4k", f"read -P 0 {SIZE - 4096} 4096"]
    async with serving(tmp_path, is_cached=cached) as server:
        for commands in (writes + reads, reads):
            words = [word for command in commands for word in ("-c", command)]
            done = await run("qemu-io", "-f", "raw", *words, server.uri)
            assert "failed" not in done.stdout + done.stderr and "error" not in done.stdout, done.stdout
            assert done.stdout.count("read ") == len(reads)


@needs("fio")
async def test_fio_verifies_what_it_writes(tmp_path: Path) -> None:
    if " nbd\n" not in (await run("fio", "--enghelp")).stdout.replace("\t", " ") + "\n":
        pytest.skip("this fio has no ioengine nbd")
    async with serving(tmp_path) as server:
        await run("fio", "--name=verify", "--ioengine=nbd", f"--uri={server.uri}", "--rw=randrw", "--bsrange=512-64k",
                  "--iodepth=32", "--size=8M", "--verify=crc32c", "--verify_fatal=1", "--do_verify=1",
                  f"--aux-path={tmp_path}", f"--randseed={os.getpid()}")


@needs("qemu-storage-daemon", "qemu-img")
async def test_qemu_storage_daemon(tmp_path: Path, rng: random.Random) -> None:
    """It is a client of ours, and serves a qcow2 on the disk to others."""
    async with serving(tmp_path) as server:
        source, place = tmp_path / "source", tmp_path / "daemon.sock"
        source.write_bytes(rng.randbytes(5 << 20))
        await run("qemu-img", "create", "-q", "-f", "qcow2", server.uri, "32M")
        disk = f"driver=nbd,node-name=disk,server.type=unix,server.path={server.path}"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run, "qemu-storage-daemon", "--blockdev", disk, "--blockdev",
                               "driver=qcow2,node-name=image,file=disk,discard=unmap",
                               "--nbd-server", f"addr.type=unix,addr.path={place}",
                               "--export", "type=nbd,id=export,node-name=image,name=image,writable=on")
            beyond = f"driver=nbd,server.type=unix,server.path={place},export=image,open-timeout=60"
            await run("qemu-img", "convert", "-n", "-f", "raw", source, "--target-image-opts", beyond)
            await run("qemu-io", "--image-opts", beyond, "-c", "discard 1M 1M", "-c", "write -P 7 2M 64k")
            done = await run("qemu-io", "--image-opts", beyond, "-c", "read -P 7 2M 64k", "-c", "read -P 0 1M 1M")
            assert "failed" not in done.stdout + done.stderr
            nursery.cancel_scope.cancel()
        assert "No errors" in (await run("qemu-img", "check", "-f", "qcow2", server.uri)).stdout
