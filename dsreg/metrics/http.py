"""A small HTTP/1.1 server: pages that are asked for with GET, made when they are. h11 knows the protocol.

It is for a few scrapers and people on a trusted network, in a process that has other things to do: connections, sizes
and times are bounded, nothing that is sent to it is kept, and no fault of a client is more than the end of its
connection. Where it has a token, whoever does not show it is told nothing; where it has none, whoever asks for it under
a name of somebody else.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple

import h11
import trio

from dsreg.metrics.host import WRONG_HOST, is_own
from dsreg.metrics.token import TOKEN_WANTED, is_shown

# A scraper needs one, and a person with a browser a few.
MAX_CONNECTIONS = 16
# A request, all headers together: what h11 keeps of one at most.
MAX_REQUEST_BYTES = 8192
# From its first byte to the last one of the answer. What is kept open between two scrapes waits IDLE_S for the next.
REQUEST_S = 10.0
IDLE_S = 120.0
_RECEIVE_BYTES = 4096


_TEXT = "text/plain; charset=utf-8"
# What is shown is of this moment, and is what its media type says.
_ALWAYS = (("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff"))


class Page(NamedTuple):
    """An answer. `kind`: its media type; `headers`: those that it has besides."""

    status: int
    kind: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


# Makes the page, now or after a while. Is given the headers of the request, names in lower case.
Make = Callable[[Mapping[str, str]], Page | Awaitable[Page]]


class Pages:
    """`pages`: by path, without a query. `token`: what has to be shown for each of them; b"": nothing has. `host`: what
    it was told to listen at, a name or an address."""

    def __init__(self, pages: Mapping[str, Make], host: str, token: bytes = b"") -> None:
        self._pages = pages
        self._host = host
        self._token = token
        self._connections = 0

    async def serve(self, listeners: list[socket.socket]) -> None:
        """Until it is cancelled."""
        taken = [trio.SocketListener(trio.socket.from_stdlib_socket(listener)) for listener in listeners]
        await trio.serve_listeners(self._connection, taken)

    async def _connection(self, stream: trio.SocketStream) -> None:
        if self._connections >= MAX_CONNECTIONS:
            await trio.aclose_forcefully(stream)
            return
        self._connections += 1
        try:
            await self._requests(stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return  # whoever asked has gone
        finally:
            self._connections -= 1
            await trio.aclose_forcefully(stream)

    async def _requests(self, stream: trio.SocketStream) -> None:
        protocol = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_REQUEST_BYTES)
        while True:
            with trio.move_on_after(IDLE_S) as idle:
                first = await stream.receive_some(_RECEIVE_BYTES)
            if idle.cancelled_caught or not first:
                return
            with trio.move_on_after(REQUEST_S) as late:
                await self._request(stream, protocol, first)
            if late.cancelled_caught or protocol.our_state is not h11.DONE or protocol.their_state is not h11.DONE:
                return
            protocol.start_next_cycle()
            if protocol.trailing_data[0]:
                return  # who sends the next request before the answer is not a scraper

    async def _request(self, stream: trio.SocketStream, protocol: h11.Connection, received: bytes) -> None:
        """Take one request, and answer it."""
        is_head = False
        try:
            protocol.receive_data(received)
            request = await self._next(stream, protocol)
            if not isinstance(request, h11.Request):
                return
            page, is_head = await self._page(request), request.method == b"HEAD"
            if not isinstance(await self._next(stream, protocol), h11.EndOfMessage):
                page = Page(413, _TEXT, b"a request here has no body\n")
        except h11.RemoteProtocolError as error:
            page = Page(error.error_status_hint, _TEXT, b"this is no request of HTTP/1.1\n")
        if protocol.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        headers = [("Content-Type", page.kind), ("Content-Length", str(len(page.body))), *_ALWAYS, *page.headers]
        if protocol.their_state is not h11.DONE:
            headers.append(("Connection", "close"))
        body = [] if is_head else [h11.Data(data=page.body)]
        events = [h11.Response(status_code=page.status, headers=headers), *body, h11.EndOfMessage()]
        await stream.send_all(b"".join(protocol.send(event) or b"" for event in events))

    @staticmethod
    async def _next(stream: trio.SocketStream, protocol: h11.Connection) -> object:
        """The next event of the request. Raises h11.RemoteProtocolError."""
        while (event := protocol.next_event()) is h11.NEED_DATA:
            protocol.receive_data(await stream.receive_some(_RECEIVE_BYTES))
        return event

    async def _page(self, request: h11.Request) -> Page:
        headers = {name.decode("ascii"): value.decode("latin-1") for name, value in request.headers}
        if self._token and not is_shown(self._token, headers):
            return Page(401, _TEXT, TOKEN_WANTED, (("WWW-Authenticate", 'Basic realm="dsreg", charset="UTF-8"'),))
        # HTTP/1.1 has a host, h11 sees to that; browsers speak nothing older.
        if not self._token and not is_own(headers.get("host", "localhost"), self._host):
            return Page(421, _TEXT, WRONG_HOST)
        path = request.target.partition(b"?")[0].decode("ascii")
        if request.method not in (b"GET", b"HEAD"):
            return Page(405, _TEXT, b"only GET and HEAD\n", (("Allow", "GET, HEAD"),))
        if (make := self._pages.get(path)) is None:
            known = "\n".join(sorted(self._pages))
            return Page(404, _TEXT, f"there is nothing here; there is:\n{known}\n".encode())
        made = make(headers)
        return made if isinstance(made, Page) else await made
