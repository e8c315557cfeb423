"""The HTTP server: what is asked, answered and refused, over connections in memory."""

from __future__ import annotations

import base64
from collections.abc import Mapping

import pytest
import trio
import trio.testing

from dsreg.metrics import http
from dsreg.metrics.http import MAX_CONNECTIONS, MAX_REQUEST_BYTES, Page, Pages

PATIENCE_S = 30.0
GET = b"GET /page?x=1 HTTP/1.1\r\nHost: localhost\r\nAccept: text/x\r\n\r\n"


class Server:
    def __init__(self, nursery: trio.Nursery, token: bytes = b"") -> None:
        self._nursery = nursery
        self.asked: list[Mapping[str, str]] = []
        self.go_on = trio.Event()
        self._pages = Pages({"/page": self._page, "/later": self._later}, "here.example", token)

    def _page(self, headers: Mapping[str, str]) -> Page:
        self.asked.append(headers)
        return Page(200, "text/x", b"body\n")

    async def _later(self, headers: Mapping[str, str]) -> Page:
        await self.go_on.wait()
        return Page(200, "text/x", b"late\n", (("X-More", "yes"),))

    def connect(self) -> trio.StapledStream[trio.abc.SendStream, trio.abc.ReceiveStream]:
        ours, theirs = trio.testing.memory_stream_pair()
        self._nursery.start_soon(self._pages._connection, theirs)
        return ours  # type: ignore[return-value]


async def answer(stream: trio.abc.Stream, *, head: bool = False) -> tuple[bytes, bytes]:
    """Head and body of one answer."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += await some(stream)
    before, _, body = received.partition(b"\r\n\r\n")
    length = int(next(line for line in before.lower().split(b"\r\n") if line.startswith(b"content-length")).split()[1])
    while not head and len(body) < length:
        body += await some(stream)
    assert len(body) == (0 if head else length), "nothing comes after it"
    return before, body


async def some(stream: trio.abc.Stream) -> bytes:
    data = await stream.receive_some(65536)
    assert data, "the connection is over"
    return bytes(data)


async def test_pages_over_one_connection(nursery: trio.Nursery) -> None:
    server = Server(nursery)
    stream = server.connect()
    for _ in range(3):
        await stream.send_all(GET)
        before, body = await answer(stream)
        assert before.startswith(b"HTTP/1.1 200") and b"text/x" in before and body == b"body\n"
    assert [headers["accept"] for headers in server.asked] == ["text/x"] * 3
    await stream.send_all(GET.replace(b"GET", b"HEAD"))
    before, _ = await answer(stream, head=True)
    assert b"200" in before and b"5" in before
    await stream.send_all(GET)
    assert (await answer(stream))[1] == b"body\n", "a HEAD has no body"


@pytest.mark.parametrize(("request_", "status"), [
    (b"GET /other HTTP/1.1\r\nHost: localhost\r\n\r\n", b"404"),
    (b"POST /page HTTP/1.1\r\nHost: localhost\r\n\r\n", b"405"),
    (b"\0\1\2\3\r\n\r\n", b"400"), (b"GET /page HTTP/1.1\r\n\r\n", b"400"),
    (b"GET /page HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n", b"400"),
    (b"GET /page HTTP/1.1\r\nHost: localhost\r\nA: " + b"a" * MAX_REQUEST_BYTES + b"\r\n", b"431"),
    (b"GET /page HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\nab", b"413"),
])
async def test_what_is_refused(nursery: trio.Nursery, request_: bytes, status: bytes) -> None:
    stream = Server(nursery).connect()
    with trio.fail_after(PATIENCE_S):
        await stream.send_all(request_)
        before, _ = await answer(stream)
        assert before.split()[1] == status
        if status not in (b"404", b"405"):
            assert b"connection: close" in before.lower() and await stream.receive_some(1) == b""


async def test_connections_are_bounded(nursery: trio.Nursery) -> None:
    server = Server(nursery)
    open_ = [server.connect() for _ in range(MAX_CONNECTIONS)]
    for stream in open_:
        await stream.send_all(GET)
        await answer(stream)
    with trio.fail_after(PATIENCE_S):  # else it is let go only because it says nothing
        assert await server.connect().receive_some(1) == b"", "one too many"
    await open_[0].aclose()
    await trio.testing.wait_all_tasks_blocked()
    again = server.connect()
    await again.send_all(GET)
    assert (await answer(again))[1] == b"body\n"


async def test_who_says_nothing_is_let_go(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> None:
    stream, began_s = Server(nursery).connect(), trio.current_time()
    assert await stream.receive_some(1) == b""
    assert trio.current_time() - began_s == pytest.approx(http.IDLE_S)


async def test_who_says_it_slowly_is_let_go(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> None:
    stream, began_s = Server(nursery).connect(), trio.current_time()
    for byte in GET[:8]:
        await stream.send_all(bytes([byte]))
        await trio.sleep(1.0)
    assert await stream.receive_some(1) == b""
    assert trio.current_time() - began_s == pytest.approx(http.REQUEST_S)


async def test_who_hangs_up_in_the_middle_is_no_fault(nursery: trio.Nursery) -> None:
    server = Server(nursery)
    for request in (b"", GET[:9], GET):
        stream = server.connect()
        await stream.send_all(request)
        await stream.aclose()
    await trio.testing.wait_all_tasks_blocked()
    stream = server.connect()
    await stream.send_all(GET)
    assert (await answer(stream))[1] == b"body\n"


async def test_a_page_that_takes_a_while_holds_up_nobody(nursery: trio.Nursery) -> None:
    server = Server(nursery)
    late, other = server.connect(), server.connect()
    await late.send_all(GET.replace(b"/page", b"/later"))
    await trio.testing.wait_all_tasks_blocked()
    await other.send_all(GET)
    assert (await answer(other))[1] == b"body\n"
    server.go_on.set()
    before, body = await answer(late)
    assert body == b"late\n" and b"X-More: yes" in before


async def test_nothing_is_kept_by_a_browser(nursery: trio.Nursery) -> None:
    stream = Server(nursery).connect()
    await stream.send_all(GET)
    before, _ = await answer(stream)
    assert b"Cache-Control: no-store" in before and b"X-Content-Type-Options: nosniff" in before


TOKEN = b"0123456789abcdef"


def basic(text: bytes) -> bytes:
    return b"Basic " + base64.b64encode(text)


@pytest.mark.parametrize("shown", [
    b"Bearer " + TOKEN, b"bearer   " + TOKEN + b" ", basic(b":" + TOKEN), basic(b"anybody:" + TOKEN),
])
async def test_who_shows_the_token_is_answered(nursery: trio.Nursery, shown: bytes) -> None:
    stream = Server(nursery, TOKEN).connect()
    await stream.send_all(GET.replace(b"Accept: text/x", b"Authorization: " + shown))
    assert (await answer(stream))[1] == b"body\n"


@pytest.mark.parametrize("shown", [
    None, b"", b"Bearer", b"Bearer " + TOKEN[:-1], b"Bearer " + TOKEN + b"x", TOKEN, basic(TOKEN), basic(TOKEN + b":"),
    basic(b":" + TOKEN) + b"!", b"Digest " + TOKEN, b"Bearer \xff\xfe", basic(b"\xff:\xff"),
])
@pytest.mark.parametrize("path", [b"/page", b"/nothing"])
async def test_who_does_not_is_told_nothing(nursery: trio.Nursery, path: bytes, shown: bytes | None) -> None:
    server = Server(nursery, TOKEN)
    stream = server.connect()
    request = GET.replace(b"/page", path)
    await stream.send_all(request if shown is None else request.replace(b"Accept: text/x", b"Authorization: " + shown))
    before, body = await answer(stream)
    assert before.startswith(b"HTTP/1.1 401") and b'WWW-Authenticate: Basic realm="dsreg"' in before
    assert b"a token is wanted" in body and b"/page" not in body and server.asked == []
