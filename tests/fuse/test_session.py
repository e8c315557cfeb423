"""The dispatcher, by crafted messages: what is malformed, unknown or a bug costs that one request."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio

from dsreg.protocol.messages import Buffer
from fuse_frontend.kernel import Opcode, Request
from fuse_frontend.mounts import MountError
from fuse_frontend.requests import RequestError
from fuse_frontend.session import MAX_PER_TURN, Session, mount
from tests.fuse.kernel_end import KernelEnd, io_in


class Echo:
    """Answers with what was asked. The data of a write may say what goes wrong. `turns`: requests of each turn."""

    def __init__(self, fd: int) -> None:
        self.session = Session(fd, self)
        self.turns = [0]
        self.failures: list[tuple[str, str]] = []

    def read(self, unique: int, fh: int, offset: int, size: int) -> None:
        self.turns[-1] += 1
        self.session.answer(unique, bytes([fh]) * size)

    def write(self, unique: int, fh: int, offset: int, data: bytes) -> None:
        self.turns[-1] += 1
        if data == b"bug":
            raise ZeroDivisionError(data)
        self.session.answer_write(unique, len(data) + offset)

    def other(self, request: Request) -> Buffer | None:
        self.turns[-1] += 1
        if request.opcode == 4000:
            raise RequestError(errno.ENOSYS)
        return struct.pack("=Q", request.inode) + request.body

    def failure(self, opcode: int, error: Exception) -> int:
        self.failures.append((Opcode(opcode).name if opcode < 4000 else "", type(error).__name__))
        return error.code if isinstance(error, RequestError) else errno.EIO

    def end_turn(self) -> None:
        self.turns.append(0)


@pytest.fixture
def echo(end: KernelEnd) -> Iterator[Echo]:
    echo = Echo(end.fd)
    yield echo
    echo.session.close()


@pytest.fixture
async def running(echo: Echo, nursery: trio.Nursery) -> Echo:
    nursery.start_soon(echo.session.run)
    return echo


async def test_requests_of_all_lengths(running: Echo, end: KernelEnd) -> None:
    """Shorter and longer than the part that every request is taken apart by; data up to the end."""
    for length in (0, 1, 39, 40, 41, 88, 5000):
        body = os.urandom(length)
        assert await end.ask(Opcode.LOOKUP, 9, body) == (0, struct.pack("=Q", 9) + body)
    for length in (0, 1, 4096, 100_000):
        assert await end.ask(Opcode.READ, 2, io_in(7, 0, length)) == (0, bytes([7]) * length)
        written = await end.ask(Opcode.WRITE, 2, io_in(7, 5, length) + bytes(length))
        assert written == (0, struct.pack("=II", length + 5, 0))


async def test_what_arrived_together_is_one_turn(echo: Echo, end: KernelEnd, nursery: trio.Nursery) -> None:
    """And other tasks run in between if it is more than MAX_PER_TURN."""
    for _ in range(MAX_PER_TURN + 6):
        end.send(Opcode.READ, 2, io_in(1, 0, 1))
    nursery.start_soon(echo.session.run)
    for _ in range(MAX_PER_TURN + 6):
        await end.receive()
    assert echo.turns[:2] == [MAX_PER_TURN, 6]


async def test_a_bug_and_an_unknown_request_fail_alone(running: Echo, end: KernelEnd) -> None:
    assert await end.ask(Opcode.WRITE, 2, io_in(1, 0, 3) + b"bug") == (errno.EIO, b"")
    assert await end.ask(4000, 2) == (errno.ENOSYS, b"")
    assert running.failures == [("WRITE", "ZeroDivisionError"), ("", "RequestError")]
    assert await end.ask(Opcode.READ, 2, io_in(1, 0, 1)) == (0, b"\1")


@pytest.mark.parametrize("body", [b"", io_in(1, 0, 5)[:-1], io_in(1, 0, 5) + b"1234", io_in(1, 0, 5) + b"123456"])
async def test_a_write_that_does_not_add_up_is_not_carried_out(running: Echo, end: KernelEnd, body: bytes) -> None:
    assert await end.ask(Opcode.WRITE, 2, body) == (errno.EIO, b"")
    assert running.failures == [("WRITE", "BadRequest")]


async def test_a_read_that_does_not_add_up(running: Echo, end: KernelEnd) -> None:
    for body in (b"", io_in(1, 0, 5)[:-1], io_in(1, 0, 5) + b"1"):
        assert await end.ask(Opcode.READ, 2, body) == (errno.EIO, b"")


async def test_what_has_no_proper_header_is_logged(
    running: Echo, end: KernelEnd, allow_logs: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    allow_logs("a request of ")
    end.socket.send(b"what")
    end.send(Opcode.READ, 2, io_in(1, 0, 5), length=79)
    end.send(Opcode.LOOKUP, 2, b"", length=41)
    assert await end.ask(Opcode.READ, 2, io_in(1, 0, 1)) == (0, b"\1")
    assert len(caplog.records) == 3 and not running.failures


async def test_interrupts_are_declined_and_forgets_not_answered(running: Echo, end: KernelEnd) -> None:
    end.send(Opcode.FORGET, 2, bytes(8))
    end.send(Opcode.BATCH_FORGET, 0, struct.pack("=IIQQ", 1, 0, 2, 1))
    assert await end.ask(Opcode.INTERRUPT, 0, bytes(8)) == (errno.ENOSYS, b"")
    assert end.is_silent()


async def test_init_and_destroy(echo: Echo, end: KernelEnd, nursery: trio.Nursery) -> None:
    with trio.fail_after(10):
        async with trio.open_nursery() as serving:
            serving.start_soon(echo.session.run)
            error, body = await end.ask(Opcode.INIT, 0, struct.pack("=16I", 7, 45, 4096, 1 << 22, *[0] * 12))
            assert error == 0 and struct.unpack_from("=IIIIHH", body) == (7, 38, 4096, 1 << 22, 256, 256)
            assert await end.ask(Opcode.DESTROY, 0) == (0, b"")


async def test_an_old_kernel_is_refused(echo: Echo, end: KernelEnd, nursery: trio.Nursery) -> None:
    end.send(Opcode.INIT, 0, struct.pack("=IIII", 7, 19, 4096, 0))
    with trio.fail_after(10), pytest.raises(MountError, match=r"7\.19 .* 7\.31 or newer"):
        await echo.session.run()
    assert (await end.receive())[1:] == (errno.EPROTO, b"")


async def test_the_end_of_the_device_ends_the_session(echo: Echo, end: KernelEnd) -> None:
    end.close()
    with trio.fail_after(10):
        await echo.session.run()


async def test_answers_after_the_end(
    echo: Echo, end: KernelEnd, allow_logs: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    """One that is not taken is logged, and raises nothing. After `close` there is nobody to take it."""
    allow_logs("kernel refused the answer")
    end.close()
    echo.session.answer(2, b"x")
    echo.session.answer_write(4, 1)
    assert len(caplog.records) == 2
    echo.session.close()
    echo.session.answer(6, b"x")
    echo.session.fail(8, errno.EIO)
    assert len(caplog.records) == 2
    echo.session.close()


@pytest.mark.parametrize(
    ("script", "message"),
    [("echo no mount today >&2; exit 1", "no mount today"), ("exit 3", "exit code 3"),
     ("exit 0", "sent no descriptor"), (None, "not installed")],
)
async def test_what_fusermount_says_is_in_the_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str | None, message: str
) -> None:
    if script is not None:
        program = tmp_path / "fusermount3"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MountError, match=message):
        await mount(tmp_path, {"fsname=test"})
