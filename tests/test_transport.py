"""Transport: the ends of connections, which the tests of real processes cannot time."""

from __future__ import annotations

import contextlib
import socket

import pytest
import trio
import trio.testing

from dsreg import transport as transport_module
from dsreg.protocol.sealed import MAX_RECORD_BYTES, Opener, Sealer
from dsreg.transport import Transport
from tests.chaos.namespaces import Network, why_no_namespaces

KEY = bytes(range(32))


def connected_transport(buffer_bytes: int = 0) -> tuple[Transport, socket.socket]:
    """And the other end of its connection. `buffer_bytes`: what the kernel keeps at each end; 0: as ever."""
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
    pairs = [connected_transport() for _ in range(3)]
    async with trio.open_nursery() as nursery:
        for transport, _ in pairs:
            nursery.start_soon(transport.run_writer)
        await trio.testing.wait_all_tasks_blocked()
        for transport, _ in pairs:
            transport.close()
    for _, far in pairs:
        far.close()


async def test_a_port_closes_while_the_kernel_takes_no_more() -> None:
    transport, far = connected_transport()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(transport.run_writer)
        while not transport.outgoing_bytes:
            transport.put([bytes(1 << 20)])
            transport.flush()
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(transport.drained, 0)
        await trio.testing.wait_all_tasks_blocked()
        transport.close()
    assert transport.closed and transport.outgoing_bytes == 0
    assert await transport.receive() == b""
    far.close()


async def test_all_who_wait_for_a_port_to_drain_are_woken() -> None:
    """By the bytes that go, each at its own limit: who waits for a part of them need not wait for the rest."""
    transport, far = connected_transport(65536)
    far.setblocking(False)
    woken: list[int] = []
    half = 4 << 20

    async def wait(limit_bytes: int) -> None:
        await transport.drained(limit_bytes)
        assert transport.outgoing_bytes <= limit_bytes
        woken.append(limit_bytes)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(transport.run_writer)
        transport.put([bytes(2 * half)])
        transport.flush()
        for limit_bytes in (0, half, half, 0):
            nursery.start_soon(wait, limit_bytes)
            await trio.testing.wait_all_tasks_blocked()
        while len(woken) < 4:
            await trio.testing.wait_all_tasks_blocked()
            with contextlib.suppress(BlockingIOError):
                far.recv(1 << 16)
                continue
            assert transport.outgoing_bytes, f"all has gone, and only {woken} were woken"
            await trio.lowlevel.wait_readable(far)
            assert woken == [half, half] or transport.outgoing_bytes > half // 2
        nursery.cancel_scope.cancel()
    assert woken == [half, half, 0, 0]
    transport.close()
    far.close()


async def test_what_the_kernel_does_not_take_at_once_arrives_in_order() -> None:
    transport, far = connected_transport()
    sent = b"".join(bytes([i]) * 100_000 for i in range(100))
    received = bytearray()
    far.setblocking(False)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(transport.run_writer)
        transport.put([sent[at:at + 4096] for at in range(0, len(sent), 4096)])
        transport.flush()
        assert transport.outgoing_bytes, "the kernel took everything: nothing was tested"
        while len(received) < len(sent):
            await trio.lowlevel.wait_readable(far)
            received += far.recv(1 << 20)
        await transport.drained(0)
        nursery.cancel_scope.cancel()
    assert received == sent
    transport.close()
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
    transport, far = connected_transport()
    transport.seal(Sealer(KEY))
    transport.record_bytes = 5
    for frame in (b"ab", b"cd", b"ef", b"longer than that", b"g", b"h"):
        transport.put([frame])
    transport.flush()
    assert received(far, Opener(KEY), 24) == [b"abcd", b"ef", b"longer than that", b"gh"]
    assert transport.largest_record == 16 and transport.outgoing_bytes == 0
    transport.close()
    far.close()


async def test_what_is_put_between_two_flushes_is_one_record() -> None:
    transport, far = connected_transport()
    transport.put([b"in clear text"])
    transport.seal(Sealer(KEY))
    transport.put([b"a", b"bc"])
    transport.put([b"def"])
    assert transport.is_sealed and transport.outgoing_bytes == 13 + 6
    transport.flush()
    assert transport.outgoing_bytes == 0
    assert far.recv(13) == b"in clear text"
    opener = Opener(KEY)
    assert received(far, opener, 6) == [b"abcdef"]
    transport.flush()
    transport.put([b"ghi"])
    transport.flush()
    assert received(far, opener, 3) == [b"ghi"] and not opener.buffered
    transport.close()
    far.close()


async def test_a_record_is_full_and_the_next_one_begins() -> None:
    """Whole frames, in order, however much is put at once, and also what is put because there is room again."""
    transport, far = connected_transport()
    transport.seal(Sealer(KEY))
    frames = [bytes([number]) * (MAX_RECORD_BYTES // 3) for number in range(8)]
    more = [[b"last"]]
    transport.on_room = lambda: transport.put(more.pop()) if more else None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(transport.run_writer)
        for frame in frames:
            transport.put([frame[:10], frame[10:]])
        transport.flush()
        found = await trio.to_thread.run_sync(received, far, Opener(KEY), 8 * len(frames[0]) + 4)
        nursery.cancel_scope.cancel()
    assert [len(part) / len(frames[0]) for part in found[:2]] == [3, 3]
    assert b"".join(found) == b"".join(frames) + b"last"
    assert transport.outgoing_bytes == 0
    transport.close()
    far.close()


async def test_what_is_not_sent_is_dropped_with_the_connection() -> None:
    transport, far = connected_transport()
    transport.seal(Sealer(KEY))
    transport.put([b"never sent"])
    transport.close()
    assert transport.outgoing_bytes == 0
    transport.flush()
    assert far.recv(100) == b""
    far.close()


@pytest.mark.parametrize("family", ["tcp", "unix"])
async def test_the_end_of_the_other_side_is_seen_behind_bytes_that_nobody_has_read(family: str) -> None:
    if family == "tcp":
        transport, far = connected_transport()
    else:
        near, far = socket.socketpair()
        transport = Transport(near, "test")
    far.sendall(b"unread")
    assert not transport.has_ended() and not transport.is_unheard()
    far.shutdown(socket.SHUT_WR)
    with trio.fail_after(10):
        while not transport.has_ended():
            await trio.testing.wait_all_tasks_blocked()
    assert await transport.receive() == b"unread" and await transport.receive() == b""
    assert not transport.is_unheard()
    transport.close()
    assert transport.has_ended() and transport.is_unheard()
    far.close()


async def test_empty_buffers_are_nothing_to_send() -> None:
    transport, far = connected_transport()
    for buffers in ([b""], [b"ab", b""], [b"", b"c", b"", b"d"]):
        transport.put(buffers)
        transport.flush()
    assert transport.outgoing_bytes == 0
    transport.close()
    assert far.recv(100, socket.MSG_WAITALL) == b"abcd"
    far.close()


LOOKS, LOOK_S = 60, 0.05


async def unheard(transport: Transport) -> list[bool]:
    """What is said of a transport over three seconds in which something is to be acknowledged: the kernel of the other
    side is asked after 0.2 s, 0.4 s, 0.8 s and so on."""
    said = []
    for _ in range(LOOKS):
        await trio.sleep(LOOK_S)
        said.append(transport.is_unheard())
    return said


async def test_a_reader_that_reads_nothing_is_not_taken_for_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its kernel says that it has no room, which is to be heard from."""
    monkeypatch.setattr(transport_module, "SILENCE_S", 0.5)
    transport, far = connected_transport(65536)
    transport.put([bytes(4 << 20)])
    transport.flush()
    assert transport.outgoing_bytes
    assert not any(await unheard(transport))
    transport.close()
    far.close()


@pytest.mark.skipif(why_no_namespaces() is not None, reason=str(why_no_namespaces()))
async def test_a_machine_that_has_lost_its_power_is_taken_for_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    """With something unacknowledged, of which the kernel would go on sending for a quarter of an hour."""
    monkeypatch.setattr(transport_module, "SILENCE_S", 0.5)
    with Network(["near", "far"]) as network:
        with network.inside("near"):
            listener = socket.create_server((network.addresses["near"], 0))
        with network.inside("far"):
            far = socket.create_connection(listener.getsockname())
        near, _ = listener.accept()
        transport = Transport(near, "test")
        assert not any(await unheard(transport))
        network.down("far")
        assert not transport.is_unheard()
        transport.put([b"never acknowledged"])
        transport.flush()
        said = await unheard(transport)
        assert said[-1] and not said[0] and not transport.has_ended()
        for opened in (listener, far):
            opened.close()
        transport.close()
