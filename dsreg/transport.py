"""Transport: one connected stream socket with a bounded habit: read what is there, write what has been put.

Sending is tried at once, without a task switch; only what the kernel does not take waits for the
writer task. It uses the plain socket with trio's wait_readable and wait_writable, which saves a
checkpoint per call against trio.SocketStream.
"""

from __future__ import annotations

import contextlib
import itertools
import select
import socket
import struct
from collections import deque
from collections.abc import Callable, Sequence

import trio

from dsreg.constants import RECV_BYTES
from dsreg.protocol.messages import Buffer
from dsreg.protocol.sealed import MAX_RECORD_BYTES, RECORD_OVERHEAD, Sealer

# The kernel takes at most 1024 buffers in one sendmsg (IOV_MAX).
_MAX_BUFFERS = 1024
# States of a TCP connection, as the first byte of TCP_INFO gives them.
_TCP_ESTABLISHED, _TCP_CLOSE_WAIT = 1, 8
# In TCP_INFO: how often in a row something was sent again without an answer, or the other side was asked whether its
# window is open again; and how many milliseconds ago data, and an acknowledgement, came last.
_TCP_UNANSWERED = struct.Struct("2xBB")
_TCP_LAST_HEARD = struct.Struct("52xII")
# Receives that may go by without letting other tasks run, if the bytes are already there.
_MAX_EAGER = 4
# After so many receives in a row before which nothing was there yet, only one in so many is tried before the wait: with
# little in flight each try is in vain, and with much in flight it saves the wait more often than not.
_FUTILE = 8
# A connection whose other machine is gone is given up after 5 + 3 * 2 s of silence, or after UNACKED_MS with
# something unacknowledged on a link. Far above a pause of a healthy machine, far below the kernel's 15 minutes.
KEEPALIVE_IDLE_S = 5
KEEPALIVE_INTERVAL_S = 2
KEEPALIVE_PROBES = 3
UNACKED_MS = 10_000
SILENCE_S = KEEPALIVE_IDLE_S + KEEPALIVE_PROBES * KEEPALIVE_INTERVAL_S


class Transport:
    """Takes over `sock`, of TCP or of the unix domain. `peer`: how to name the other side in messages to people."""

    def __init__(self, sock: socket.socket, peer: str) -> None:
        sock.setblocking(False)
        self._is_tcp = sock.family != socket.AF_UNIX
        if self._is_tcp:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # A machine that lost its power sends no FIN: ask, after some silence, whether it is there.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_S)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)
        self.peer = peer
        self.outgoing_bytes = 0
        self.on_room: Callable[[], None] = lambda: None  # called when bytes have gone; may `put` more
        self._sock = sock
        self._out: deque[Buffer] = deque()
        self.is_sealed = False
        self.features = 0  # of the other side, as it has said in its greeting: see Hello
        self._sealer: Sealer | None = None
        self._frames: list[Buffer] = []  # to be sealed at the next flush
        self._frames_bytes = 0
        self.record_bytes = MAX_RECORD_BYTES  # of frames in one record, unless a single one is longer
        self.largest_record = 0  # bytes of frames in the largest record so far
        self._blocked = trio.Event()  # the kernel's buffer is full: the writer task has work
        self._sent: trio.Event | None = None  # set, and forgotten, when bytes have gone; all who wait share it
        self._closed = False
        self._eager = 0  # receives in a row that had not to wait
        self._futile = 0  # receives in a row that had to, or were thought to

    async def receive(self) -> bytes:
        """Some bytes; b"" once the connection is over, for whatever reason."""
        if self._eager >= _MAX_EAGER:
            self._eager = 0
            await trio.lowlevel.checkpoint()
        has_waited = False
        while not self._closed:
            try:
                if has_waited or self._futile < _FUTILE or self._futile % _FUTILE == 0:
                    data = self._sock.recv(RECV_BYTES)
                    self._eager += 1
                    if not has_waited:
                        self._futile = 0
                    return data
            except BlockingIOError:
                pass
            except OSError:
                self.close()
                break
            self._eager = 0
            self._futile += 1
            has_waited = True
            try:
                await trio.lowlevel.wait_readable(self._sock)
            except trio.ClosedResourceError:
                break
        return b""

    def seal(self, sealer: Sealer) -> None:
        """What is put from now on is sealed: what has been put since the last flush becomes one record, or several of
        at most `record_bytes`."""
        assert self._sealer is None
        self._sealer = sealer
        self.is_sealed = True

    def put(self, buffers: Sequence[Buffer]) -> None:
        """Queue a frame; `flush` sends it. Frames put after the connection broke are dropped."""
        if self._closed:
            return
        size = sum(map(len, buffers))
        self.outgoing_bytes += size
        if self._sealer is None:
            self._out.extend(buffers)
            return
        if self._frames and self._frames_bytes + size > self.record_bytes:
            self._seal_frames(self._sealer)
        self._frames.extend(buffers)
        self._frames_bytes += size

    def _seal_frames(self, sealer: Sealer) -> None:
        self._out.extend(sealer.seal(self._frames))
        self.outgoing_bytes += RECORD_OVERHEAD
        self.largest_record = max(self.largest_record, self._frames_bytes)
        self._frames.clear()
        self._frames_bytes = 0

    def flush(self) -> None:
        """Send what the kernel takes now."""
        out = self._out
        while (out or self._frames) and not self._closed:
            if self._frames and self._sealer is not None:
                self._seal_frames(self._sealer)
            buffers = list(itertools.islice(out, _MAX_BUFFERS))
            try:
                sent = self._sock.sendmsg(buffers)
            except BlockingIOError:
                self._blocked.set()
                return
            except OSError:
                self.close()
                return
            self._drop_sent(sent)
            self._wake_drained()
            self.on_room()

    def _drop_sent(self, sent: int) -> None:
        out = self._out
        self.outgoing_bytes -= sent
        while out and len(out[0]) <= sent:  # empty ones as well
            sent -= len(out.popleft())
        if sent:
            out[0] = memoryview(out[0])[sent:]

    async def run_writer(self) -> None:
        """Sends on what `flush` could not, until the connection is closed."""
        while not self._closed:
            await self._blocked.wait()
            self._blocked = trio.Event()
            if self.closed:
                return  # the socket has no descriptor left to wait for
            with contextlib.suppress(trio.ClosedResourceError):
                await trio.lowlevel.wait_writable(self._sock)
            self.flush()

    async def drained(self, limit_bytes: int) -> None:
        """Wait until at most `limit_bytes` wait to be sent, or the connection is over."""
        while self.outgoing_bytes > limit_bytes and not self._closed:
            if self._sent is None:
                self._sent = trio.Event()
            await self._sent.wait()

    def _wake_drained(self) -> None:
        sent, self._sent = self._sent, None
        if sent is not None:
            sent.set()

    def close(self) -> None:
        """At once; what was not sent is dropped. Wakes everybody who waits here."""
        if self._closed:
            return
        self._closed = True
        self._out.clear()
        self._frames.clear()
        self._frames_bytes = self.outgoing_bytes = 0
        trio.lowlevel.notify_closing(self._sock)
        self._sock.close()
        self._blocked.set()
        self._wake_drained()

    def is_dead(self) -> bool:
        """Whether the connection is over, other than by the other side's having said all it had to say."""
        if self._closed:
            return True
        state = self._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
        return state not in (_TCP_ESTABLISHED, _TCP_CLOSE_WAIT)

    def has_ended(self) -> bool:
        """Whether the other side sends nothing more, whatever of it has yet to be received; or all is over."""
        if self._closed:
            return True
        poll = select.poll()
        poll.register(self._sock, select.POLLRDHUP)
        return bool(poll.poll(0))

    def is_unheard(self) -> bool:
        """Whether the other machine has acknowledged nothing for SILENCE_S of what it has to acknowledge, so that it
        must be taken for gone. The kernel notices it by itself where nothing is to be acknowledged (keepalive); else
        only after a quarter of an hour, or with TCP_USER_TIMEOUT, which takes a slow reader for dead as well."""
        if self._closed or not self._is_tcp:
            return self._closed
        info = self._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_LAST_HEARD.size)
        unanswered: int = max(_TCP_UNANSWERED.unpack_from(info))
        silent_ms: int = min(_TCP_LAST_HEARD.unpack_from(info))
        return unanswered > 1 and silent_ms > SILENCE_S * 1000  # one may be on its way at this moment

    @property
    def closed(self) -> bool:
        return self._closed


async def dial(host: str, port: int, unacked_ms: int = 0) -> Transport:
    """Connect; OSError if that fails. A peer that leaves our bytes unread for `unacked_ms` is given up, too, if that is
    not 0."""
    stream = await trio.open_tcp_stream(host, port)
    plain = socket.socket(fileno=stream.socket.detach())
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, unacked_ms)
    return Transport(plain, f"{host}:{port}")
