"""The layouts, against the kernel's header written down once more, field by field, with ctypes."""

from __future__ import annotations

import ctypes
import errno
import stat
from collections.abc import Iterator

import pytest

from fuse_frontend import kernel
from fuse_frontend.kernel import BadRequest, Init
from fuse_frontend.requests import Attributes, Entry, RequestError, SetAttr, Space

U16, U32, U64, I32, I64 = ctypes.c_uint16, ctypes.c_uint32, ctypes.c_uint64, ctypes.c_int32, ctypes.c_int64


def fields(kind: type, names: str) -> list[tuple[str, type]]:
    return [(name, kind) for name in names.split()]


class InHeader(ctypes.Structure):
    _fields_ = [*fields(U32, "len opcode"), *fields(U64, "unique nodeid"), *fields(U32, "uid gid pid"),
                *fields(U16, "total_extlen padding")]


class OutHeader(ctypes.Structure):
    _fields_ = [("len", U32), ("error", I32), ("unique", U64)]


class Attr(ctypes.Structure):
    _fields_ = [*fields(U64, "ino size blocks"), *fields(I64, "atime mtime ctime"),
                *fields(U32, "atimensec mtimensec ctimensec mode nlink uid gid rdev blksize flags")]


class EntryOut(ctypes.Structure):
    _fields_ = [*fields(U64, "nodeid generation entry_valid attr_valid"),
                *fields(U32, "entry_valid_nsec attr_valid_nsec"), ("attr", Attr)]


class AttrOut(ctypes.Structure):
    _fields_ = [("attr_valid", U64), *fields(U32, "attr_valid_nsec dummy"), ("attr", Attr)]


class SetattrIn(ctypes.Structure):
    _fields_ = [*fields(U32, "valid padding"), *fields(U64, "fh size lock_owner"), *fields(I64, "atime mtime ctime"),
                *fields(U32, "atimensec mtimensec ctimensec mode unused4 uid gid unused5")]


class ReadIn(ctypes.Structure):
    _fields_ = [*fields(U64, "fh offset"), *fields(U32, "size read_flags"), ("lock_owner", U64),
                *fields(U32, "flags padding")]


class FallocateIn(ctypes.Structure):
    _fields_ = [*fields(U64, "fh offset length"), *fields(U32, "mode padding")]


class InitOut(ctypes.Structure):
    _fields_ = [*fields(U32, "major minor max_readahead flags"), *fields(U16, "max_background congestion_threshold"),
                *fields(U32, "max_write time_gran"), *fields(U16, "max_pages map_alignment"),
                *fields(U32, "flags2 u1 u2 u3 u4 u5 u6 u7")]


class OpenOut(ctypes.Structure):
    _fields_ = [("fh", U64), *fields(U32, "open_flags padding")]


class Statfs(ctypes.Structure):
    _fields_ = [*fields(U64, "blocks bfree bavail files ffree"),
                *fields(U32, "bsize namelen frsize padding s1 s2 s3 s4 s5 s6")]


class Dirent(ctypes.Structure):
    _fields_ = [*fields(U64, "ino off"), *fields(U32, "namelen type")]


def parsed(layout: type[ctypes.Structure], data: bytes) -> dict[str, int]:
    """Every field of `data`, which must be as long as `layout`."""
    assert len(data) == ctypes.sizeof(layout)
    return dict(_flat(layout.from_buffer_copy(data)))


def _flat(structure: ctypes.Structure) -> Iterator[tuple[str, int]]:
    for name, *_ in structure._fields_:  # type: ignore[misc]
        value = getattr(structure, name)
        if isinstance(value, ctypes.Structure):
            yield from _flat(value)
        else:
            yield name, value


ATTRIBUTES = Attributes(
    7, stat.S_IFREG | 0o600, 3, 12_345, 4096, 1000, 1001, 1_500_000_000_000_000_001, -1, 2_000_000_003, 60, 5
)
EXPECTED = {
    "ino": 7, "size": 12_345, "blocks": 25, "atime": 1_500_000_000, "mtime": -1, "ctime": 2, "atimensec": 1,
    "mtimensec": 999_999_999, "ctimensec": 3, "mode": stat.S_IFREG | 0o600, "nlink": 3, "uid": 1000, "gid": 1001,
    "rdev": 0, "blksize": 4096, "flags": 0,
}


def test_attributes() -> None:
    assert parsed(AttrOut, kernel.attr_out(ATTRIBUTES)) == {
        "attr_valid": 5, "attr_valid_nsec": 0, "dummy": 0, **EXPECTED}
    assert parsed(EntryOut, kernel.entry_out(ATTRIBUTES)) == {
        "nodeid": 7, "generation": 0, "entry_valid": 60, "attr_valid": 5, "entry_valid_nsec": 0, "attr_valid_nsec": 0,
        **EXPECTED}


def test_reads_and_writes() -> None:
    """What they have in common stands at the same places in both."""
    header = InHeader(80, 15, 6, 2, 1, 1, 1)
    data = bytes(header) + bytes(ReadIn(1 << 32, 1 << 40, 4096, 1, 3, 4))
    assert kernel.IO_HEAD_BYTES == len(data) == 80 and kernel.IN_HEADER.size == 40
    assert kernel.IO_HEAD.unpack(data) == (80, 15, 6, 2, 1 << 32, 1 << 40, 4096)
    written = kernel.WRITE_ANSWER.pack(24, 0, 6, 4096)
    assert parsed(OutHeader, written[:16]) == {"len": 24, "error": 0, "unique": 6}
    assert written[16:] == bytes(U32(4096)) + bytes(4)


def test_the_header_of_an_error() -> None:
    assert parsed(OutHeader, kernel.error_answer(8, errno.EIO)) == {"len": 16, "error": -errno.EIO, "unique": 8}
    assert kernel.OUT_HEADER.size == ctypes.sizeof(OutHeader)


def test_open_and_statfs() -> None:
    assert parsed(OpenOut, kernel.open_out(1 << 32, 65)) == {"fh": 1 << 32, "open_flags": 65, "padding": 0}
    answer = kernel.statfs_out(Space(blocks=10, free=3, files=4, free_files=5, block_size=4096))
    found = parsed(Statfs, answer)
    assert {name: value for name, value in found.items() if value} == {
        "blocks": 10, "bfree": 3, "bavail": 3, "files": 4, "ffree": 5, "bsize": 4096, "namelen": 255, "frsize": 4096}


@pytest.mark.parametrize("name", [b"a", b"disk.img", b"exactly8", b"n" * 255])
def test_directory_entries_are_padded(name: bytes) -> None:
    entry = kernel.dirent(Entry(name, ATTRIBUTES, 9))
    size = ctypes.sizeof(Dirent)
    assert parsed(Dirent, entry[:size]) == {"ino": 7, "off": 9, "namelen": len(name), "type": 8}
    assert entry[size:].rstrip(b"\0") == name and len(entry) % 8 == 0 and len(entry) - size - len(name) < 8


OFFER = Init(7, 45, 131_072, (1 << 30) | kernel.MAX_PAGES | kernel.ASYNC_DIO)


def test_init() -> None:
    body = b"".join(bytes(U32(value)) for value in (*OFFER, *range(12)))
    assert kernel.init_in(body) == kernel.init_in(body[:16]) == OFFER
    found = parsed(InitOut, kernel.init_out(OFFER, kernel.MAX_PAGES | kernel.BIG_WRITES, 256, 4096))
    assert {name: value for name, value in found.items() if value} == {
        "major": 7, "minor": 38, "max_readahead": 131_072, "flags": kernel.MAX_PAGES, "max_background": 256,
        "congestion_threshold": 256, "max_write": 1 << 20, "time_gran": 1, "max_pages": 256}
    older = parsed(InitOut, kernel.init_out(OFFER._replace(minor=31), 0, 256, 65536))
    assert (older["major"], older["minor"]) == (7, 31)
    assert older["max_pages"] == 16
    newer = parsed(InitOut, kernel.init_out(OFFER._replace(major=8, minor=1), 0, 256, 65536))
    assert {name: value for name, value in newer.items() if value} == {"major": 7, "minor": 38}
    for major, minor in ((7, 30), (6, 99)):
        with pytest.raises(RequestError) as caught:
            kernel.init_out(OFFER._replace(major=major, minor=minor), 0, 256, 65536)
        assert caught.value.code == errno.EPROTO


def test_setattr() -> None:
    given = SetattrIn(0, 0, 1, 4096, 2, -5, 6, 7, 8, 9, 10, 0o600, 0, 11, 12, 0)

    def asked(bits: int, more: bytes = b"") -> SetAttr:
        given.valid = bits
        return kernel.setattr_in(bytes(given) + more, now_ns=99)

    assert asked(0) == (None,) * 6
    assert asked(1 << 6 | 1 << 9 | 1 << 10) == (None,) * 6  # fh, lock owner, ctime
    assert asked(0b111111, b"more") == (4096, 0o600, 11, 12, -4_999_999_992, 6_000_000_009)
    assert asked(1 << 4 | 1 << 5 | 1 << 7 | 1 << 8) == (None, None, None, None, 99, 99)
    with pytest.raises(BadRequest):
        kernel.setattr_in(bytes(given)[:-1], 0)


def test_names() -> None:
    assert kernel.names_in(b"a\0", 0, 1) == [b"a"]
    assert kernel.names_in(b"12345678old\0new\0", 8, 2) == [b"old", b"new"]
    for body, fixed, count in ((b"a", 0, 1), (b"", 0, 1), (b"123", 8, 1), (b"one\0two", 0, 2)):
        with pytest.raises(BadRequest):
            kernel.names_in(body, fixed, count)


def test_other_fixed_parts() -> None:
    assert kernel.open_in(bytes(U32(0o1002)) + bytes(4)) == 0o1002
    assert kernel.fh_in(bytes(U64(1 << 32)) + bytes(8)) == 1 << 32
    assert kernel.readdir_in(bytes(ReadIn(1, 5, 4096))) == (1, 5, 4096)
    assert kernel.fallocate_in(bytes(FallocateIn(1, 2, 3, 4, 5)) + b"more") == (1, 2, 3, 4)
    for parse in (kernel.open_in, kernel.fh_in, kernel.readdir_in, kernel.init_in, kernel.fallocate_in):
        with pytest.raises(BadRequest):
            parse(bytes(7))


def test_names_of_requests() -> None:
    assert kernel.opcode_name(15) == "read" and kernel.opcode_name(52) == "request 52"
