"""Transport: the ends of connections, which the tests of real processes cannot time."""

from __future__ import annotations

import contextlib
import socket

import pytest
import trio
import trio.testing

from dsreg import transport
from dsreg.protocol.sealed import MAX_RECORD_BYTES, Opener, Sealer
from dsreg.transport import Transport
from tests.chaos.namespaces import Network, why_no_namespaces

KEY = bytes(range(32))


def connected_port(buffer_bytes: int = 0) -> tuple[Transport, socket.socket]:
    """A port, and the other end of its connection. `buffer_bytes`: what the kernel keeps at each end; 0: as ever."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        far = socket.create_connection(listener.getsockname())
        near, _ = listener.accept()
    if buffer_bytes:
        near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer_bytes)
        far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
    return Transport(near, "test"), far


async def test_several_ports_may_close_while_their_writers_wait() -> None:
    """A writer that is woken by `close` must not wait for a descriptor that is gone: all of those are the same -1,
    and trio lets one task wait for a descriptor."""
    pairs = [connected_port() for _ in range(3)]
    async with trio.open_nursery() as nursery:
        for port, _ in pairs:
            nursery.start_soon(port.run_writer)
        await trio.testing.wait_all_tasks_blocked()
        for port, _ in pairs:
            port.close()
    for _, far in pairs:
        far.close()


async def test_a_port_closes_while_the_kernel_takes_no_more() -> None:
    port, far = connected_port()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(port.run_writer)
        while not port.outgoing_bytes:
            port.put([bytes(1 << 20)])
            port.flush()
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(port.drained, 0)
        await trio.testing.wait_all_tasks_blocked()
        port.close()
    assert port.closed and port.outgoing_bytes == 0
    assert await port.receive() == b""
    far.close()


async def test_all_who_wait_for_a_port_to_drain_are_woken() -> None:
    """By the bytes that go, each at its own limit: who waits for a part of them need not wait for the rest."""
    port, far = connected_port(65536)
    far.setblocking(False)
    woken: list[int] = []
    half = 4 << 20

    async def wait(limit_bytes: int) -> None:
        await port.drained(limit_bytes)
        assert port.outgoing_bytes <= limit_bytes
        woken.append(limit_bytes)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(port.run_writer)
        port.put([bytes(2 * half)])
        port.flush()
        for limit_bytes in (0, half, half, 0):
            nursery.start_soon(wait, limit_bytes)
            await trio.testing.wait_all_tasks_blocked()
        while len(woken) < 4:
            await trio.testing.wait_all_tasks_blocked()
            with contextlib.suppress(BlockingIOError):
                far.recv(1 << 16)
                continue
            assert port.outgoing_bytes, f"all has gone, and only {woken} were woken"
            await trio.lowlevel.wait_readable(far)
            assert woken == [half, half] or port.outgoing_bytes > half // 2
        nursery.cancel_scope.cancel()
    assert woken == [half, half, 0, 0]
    port.close()
    far.close()


async def test_what_the_kernel_does_not_take_at_once_arrives_in_order() -> None:
    port, far = connected_port()
    sent = b"".join(bytes([i]) * 100_000 for i in range(100))
    received = bytearray()
    far.setblocking(False)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(port.run_writer)
        port.put([sent[at:at + 4096] for at in range(0, len(sent), 4096)])
        port.flush()
        assert port.outgoing_bytes, "the kernel took everything: nothing was tested"
        while len(received) < len(sent):
            await trio.lowlevel.wait_readable(far)
            received += far.recv(1 << 20)
        await port.drained(0)
        nursery.cancel_scope.cancel()
    assert received == sent
    port.close()
    far.close()


# --- sealed ---------------------------------------------------------------------------------------------
def received(far: socket.socket, opener: Opener, size: int) -> list[bytes]:
    """What is in the next records, `size` bytes together."""
    far.settimeout(10)
    found: list[bytes] = []
    while sum(map(len, found)) < size:
        found += map(bytes, opener.feed(far.recv(1 << 20)))
    return found


async def test_a_record_ends_where_the_next_frame_would_be_too_much() -> None:
    port, far = connected_port()
    port.seal(Sealer(KEY))
    port.record_bytes = 5
    for frame in (b"ab", b"cd", b"ef", b"longer than that", b"g", b"h"):
        port.put([frame])
    port.flush()
    assert received(far, Opener(KEY), 24) == [b"abcd", b"ef", b"longer than that", b"gh"]
    assert port.largest_record == 16 and port.outgoing_bytes == 0
    port.close()
    far.close()


async def test_what_is_put_between_two_flushes_is_one_record() -> None:
    port, far = connected_port()
    port.put([b"in clear text"])
    port.seal(Sealer(KEY))
    port.put([b"a", b"bc"])
    port.put([b"def"])
    assert port.is_sealed and port.outgoing_bytes == 13 + 6
    port.flush()
    assert port.outgoing_bytes == 0
    assert far.recv(13) == b"in clear text"
    opener = Opener(KEY)
    assert received(far, opener, 6) == [b"abcdef"]
    port.flush()
    port.put([b"ghi"])
    port.flush()
    assert received(far, opener, 3) == [b"ghi"] and not opener.buffered
    port.close()
    far.close()


async def test_a_record_is_full_and_the_next_one_begins() -> None:
    """Whole frames, in order, however much is put at once, and also what is put because there is room again."""
    port, far = connected_port()
    port.seal(Sealer(KEY))
    frames = [bytes([number]) * (MAX_RECORD_BYTES // 3) for number in range(8)]
    more = [[b"last"]]
    port.on_room = lambda: port.put(more.pop()) if more else None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(port.run_writer)
        for frame in frames:
            port.put([frame[:10], frame[10:]])
        port.flush()
        found = await trio.to_thread.run_sync(received, far, Opener(KEY), 8 * len(frames[0]) + 4)
        nursery.cancel_scope.cancel()
    assert [len(part) / len(frames[0]) for part in found[:2]] == [3, 3]
    assert b"".join(found) == b"".join(frames) + b"last"
    assert port.outgoing_bytes == 0
    port.close()
    far.close()


async def test_what_is_not_sent_is_dropped_with_the_connection() -> None:
    port, far = connected_port()
    port.seal(Sealer(KEY))
    port.put([b"never sent"])
    port.close()
    assert port.outgoing_bytes == 0
    port.flush()
    assert far.recv(100) == b""
    far.close()


@pytest.mark.parametrize("family", ["tcp", "unix"])
async def test_the_end_of_the_other_side_is_seen_behind_bytes_that_nobody_has_read(family: str) -> None:
    if family == "tcp":
        port, far = connected_port()
    else:
        near, far = socket.socketpair()
        port = Transport(near, "test")
    far.sendall(b"unread")
    assert not port.has_ended() and not port.is_unheard()
    far.shutdown(socket.SHUT_WR)
    with trio.fail_after(10):
        while not port.has_ended():
            await trio.testing.wait_all_tasks_blocked()
    assert await port.receive() == b"unread" and await port.receive() == b""
    assert not port.is_unheard()
    port.close()
    assert port.has_ended() and port.is_unheard()
    far.close()


async def test_empty_buffers_are_nothing_to_send() -> None:
    port, far = connected_port()
    for buffers in ([b""], [b"ab", b""], [b"", b"c", b"", b"d"]):
        port.put(buffers)
        port.flush()
    assert port.outgoing_bytes == 0
    port.close()
    assert far.recv(100, socket.MSG_WAITALL) == b"abcd"
    far.close()


LOOKS, LOOK_S = 60, 0.05


async def unheard(port: Transport) -> list[bool]:
    """What is said of a port over three seconds in which something is to be acknowledged: the kernel of the other side
    is asked after 0.2 s, 0.4 s, 0.8 s and so on."""
    said = []
    for _ in range(LOOKS):
        await trio.sleep(LOOK_S)
        said.append(port.is_unheard())
    return said


async def test_a_reader_that_reads_nothing_is_not_taken_for_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its kernel says that it has no room, which is to be heard from."""
    monkeypatch.setattr(transport, "SILENCE_S", 0.5)
    port, far = connected_port(65536)
    port.put([bytes(4 << 20)])
    port.flush()
    assert port.outgoing_bytes
    assert not any(await unheard(port))
    port.close()
    far.close()


@pytest.mark.skipif(why_no_namespaces() is not None, reason=str(why_no_namespaces()))
async def test_a_machine_that_has_lost_its_power_is_taken_for_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    """With something unacknowledged, of which the kernel would go on sending for a quarter of an hour."""
    monkeypatch.setattr(transport, "SILENCE_S", 0.5)
    with Network(["near", "far"]) as network:
        with network.inside("near"):
            listener = socket.create_server((network.addresses["near"], 0))
        with network.inside("far"):
            far = socket.create_connection(listener.getsockname())
        near, _ = listener.accept()
        port = Transport(near, "test")
        assert not any(await unheard(port))
        network.down("far")
        assert not port.is_unheard()
        port.put([b"never acknowledged"])
        port.flush()
        said = await unheard(port)
        assert said[-1] and not said[0] and not port.has_ended()
        for opened in (listener, far):
            opened.close()
        port.close()
