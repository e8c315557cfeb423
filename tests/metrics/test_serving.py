"""Pages at an address: that it cannot be bound is said, and is the end of nothing."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from functools import partial

import pytest
import trio

from dsreg.listening import bind
from dsreg.metrics import serving
from dsreg.metrics.http import Page
from dsreg.metrics.serving import serve_pages

PATIENCE_S = 30.0
TOKEN = b"0123456789abcdef"
PAGES = {"/page": lambda headers: Page(200, "text/x", b"body\n")}


async def get(port: int, headers: bytes = b"Host: localhost", path: bytes = b"/page", version: bytes = b"1.1") -> bytes:
    """All that comes."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream:
        await stream.send_all(b"GET %b HTTP/%b\r\n" % (path, version) + headers + b"\r\nConnection: close\r\n\r\n")
        return b"".join([bytes(chunk) async for chunk in stream])


async def test_an_address_in_use_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, allow_logs: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    tries = 0

    def counted(host: str, port: int) -> list[socket.socket]:
        nonlocal tries
        tries += 1
        return bind(host, port)

    monkeypatch.setattr(serving, "RETRY_S", 0.05)
    monkeypatch.setattr(serving, "bind", counted)
    allow_logs("metrics are served on 127.0.0.1")
    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            with socket.create_server(("127.0.0.1", 0)) as other:
                port = other.getsockname()[1]
                nursery.start_soon(serve_pages, PAGES, ("127.0.0.1", port))
                while tries < 4:
                    await trio.lowlevel.checkpoint()
                assert [record.getMessage() for record in caplog.records] == [
                    f"no metrics are served on 127.0.0.1:{port}: Address already in use. All else goes on, and the "
                    "address is tried again every 0 s"], "it is said once"
            while len(caplog.records) < 2:
                await trio.lowlevel.checkpoint()
            assert (await get(port)).endswith(b"\r\n\r\nbody\n")
            assert "are served on" in caplog.records[1].getMessage()
            nursery.cancel_scope.cancel()


async def test_a_host_that_there_is_not_is_said(
    allow_logs: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    allow_logs("no metrics are served on nothing.invalid:9601")
    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve_pages, PAGES, ("nothing.invalid", 9601))
            while not caplog.records:
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()


async def test_without_a_token_no_other_host_is_served(
    allow_logs: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    allow_logs("no metrics are served on 0.0.0.0")
    with trio.fail_after(PATIENCE_S):
        await serve_pages(PAGES, ("0.0.0.0", 0))
        assert "other hosts can reach that, and there is no token" in caplog.text
        async with trio.open_nursery() as nursery:
            port = await nursery.start(partial(serve_pages, PAGES, ("0.0.0.0", 0), token=TOKEN))
            assert (await get(port)).startswith(b"HTTP/1.1 401")
            nursery.cancel_scope.cancel()


@pytest.fixture
async def port(nursery: trio.Nursery) -> int:
    """Of a server without a token."""
    port: int = await nursery.start(serve_pages, PAGES, ("127.0.0.1", 0))
    return port


@pytest.mark.parametrize("host", [
    b"localhost", b"localhost:9601", b"LocalHost:80", b"127.0.0.1", b"127.0.0.1:9601", b"10.1.2.3:1", b"[::1]",
    b"[::1]:9601", b"[2001:db8::7]", b" 127.0.0.1:9601 ", b"127.0.0.1:",
])
async def test_an_address_and_localhost_are_answered_without_a_token(port: int, host: bytes) -> None:
    with trio.fail_after(PATIENCE_S):
        assert (await get(port, b"Host:" + host)).endswith(b"\r\n\r\nbody\n")


@pytest.mark.parametrize("host", [
    b"evil.example", b"evil.example:9601", b"localhost.evil.example", b"127.0.0.1.evil.example:9601", b"127.0.0.1:x",
    b"", b":9601", b"localhost:9601:9601", b"[evil.example]", b"[::1", b"[127.0.0.1]", b"[]", b"::1", b"2130706433",
    b"0x7f.1", b"evil@localhost", b"[::1].evil.example", b"::1.evil.example",
])
@pytest.mark.parametrize("path", [b"/page", b"/nothing"])
async def test_who_asks_under_another_name_is_told_nothing(port: int, path: bytes, host: bytes) -> None:
    """A page of a stranger, whose name leads here by now, has a browser of this host ask so."""
    with trio.fail_after(PATIENCE_S):
        answer = await get(port, b"Host: " + host, path)
    assert answer.startswith(b"HTTP/1.1 421") and b"without a token" in answer
    assert b"body" not in answer and b"/page" not in answer


async def test_each_request_of_a_connection_has_a_name(port: int) -> None:
    with trio.fail_after(PATIENCE_S):
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        async with stream:
            for host, status in ((b"localhost", b"200"), (b"evil.example", b"421"), (b"localhost", b"200")):
                await stream.send_all(b"GET /page HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")
                answer = b""
                while not answer.endswith((b"body\n", b"listen at\n")):
                    answer += (chunk := bytes(await stream.receive_some(4096)))
                    assert chunk, answer
                assert answer.startswith(b"HTTP/1.1 " + status)


async def test_no_name_is_a_fault_of_a_request(port: int) -> None:
    with trio.fail_after(PATIENCE_S):
        assert (await get(port, b"X: y")).startswith(b"HTTP/1.1 400")
        assert (await get(port, b"X: y", version=b"1.0")).endswith(b"\r\n\r\nbody\n"), "which no browser is of"


async def test_the_name_that_it_listens_at_is_answered(nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "bind", lambda host, port: bind("127.0.0.1", port))  # as /etc/hosts may have it
    with trio.fail_after(PATIENCE_S):
        port = await nursery.start(serve_pages, PAGES, ("Host-A.internal", 0))
        for host in (b"host-a.internal", b"HOST-A.internal:9601", b"127.0.0.1"):
            assert (await get(port, b"Host: " + host)).endswith(b"\r\n\r\nbody\n")
        assert (await get(port, b"Host: host-b.internal")).startswith(b"HTTP/1.1 421")


async def test_with_a_token_any_name_will_do(nursery: trio.Nursery) -> None:
    with trio.fail_after(PATIENCE_S):
        port = await nursery.start(partial(serve_pages, PAGES, ("127.0.0.1", 0), token=TOKEN))
        shown = b"Host: node1.example:9601\r\nAuthorization: Bearer " + TOKEN
        assert (await get(port, shown)).endswith(b"\r\n\r\nbody\n")
        assert (await get(port, b"Host: node1.example:9601")).startswith(b"HTTP/1.1 401")


async def test_a_name_that_takes_long_is_not_waited_for_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, over = threading.Event(), threading.Event()

    def resolves(host: str, port: int) -> list[socket.socket]:
        asked.set()
        over.wait(PATIENCE_S)
        return []

    monkeypatch.setattr(serving, "bind", resolves)
    began_s = time.monotonic()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_pages, PAGES, ("name.example", 9601))
        while not asked.is_set():
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    took_s = time.monotonic() - began_s
    over.set()
    assert took_s < PATIENCE_S / 2
