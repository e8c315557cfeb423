"""One connection and what it does to others, over real sockets and nodes: good clients, bad ones, dead ones."""

from __future__ import annotations

import random
import resource
import socket
import struct
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
import trio
import trio.testing

from dsreg.client import Attach, Client
from dsreg.constants import SECTOR_SIZE
from nbd_frontend import attachment, connection
from nbd_frontend import server as server_module
from nbd_frontend.codec import MAX_OPTION_BYTES, MAX_PAYLOAD_BYTES
from nbd_frontend.commands import MAX_IN_FLIGHT_BYTES
from nbd_frontend.numbers import CommandFlag, CommandType, Error, OptionType, Reply
from tests.nbd import client as sent
from tests.nbd.client import RawClient, go_data
from tests.nbd.tools import EXPORT, SIZE, Serving, serving

READ, WRITE, FLUSH, DISC = CommandType.READ, CommandType.WRITE, CommandType.FLUSH, CommandType.DISC
SECTOR = b"x" * SECTOR_SIZE


async def free_again(server: Serving) -> RawClient:
    """The next client that gets the disk, when that is free."""
    return await server.entered()


# --- good clients -----------------------------------------------------------------------------------
@pytest.mark.parametrize("tcp", [False, True], ids=["unix", "tcp"])
@pytest.mark.parametrize("structured", [False, True], ids=["simple", "structured"])
async def test_a_client_writes_and_reads(tmp_path: Path, tcp: bool, structured: bool) -> None:
    async with serving(tmp_path) as server:
        client = await server.entered(tcp, structured)
        assert client.size == SIZE
        assert (await client.call(WRITE, 1000, data=b"hello")).error == 0
        assert (await client.call(READ, 998, 9)).data == b"\0\0hello\0\0"
        assert (await client.call(FLUSH)).error == 0
        for kind in (READ, WRITE, CommandType.TRIM, CommandType.WRITE_ZEROES, CommandType.CACHE):
            answer = await client.call(kind, 5, 0)
            assert (answer.error, answer.data) == (0, b"")
        await client.begin(DISC)
        assert await client.at_end()


async def test_many_requests_at_once_are_answered_each(tmp_path: Path, rng: random.Random) -> None:
    """In one packet, more than may be in flight; and the last of them is a disconnect, which waits for all."""
    async with serving(tmp_path) as server:
        client = await server.entered()
        count = 400
        stream = b"".join(sent.request(WRITE, number * SECTOR_SIZE, cookie=number, data=SECTOR)
                          for number in range(count))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.stream.send_all, stream + sent.request(DISC))
            answered = [await client.answer() for _ in range(count)]
        assert {answer.cookie for answer in answered} == set(range(count))
        assert {answer.error for answer in answered} == {0}
        assert await client.at_end()
        reader = await free_again(server)
        assert (await reader.call(READ, 0, count * SECTOR_SIZE)).data == SECTOR * count


async def test_a_pipelining_client_need_not_wait_for_answers_to_options(tmp_path: Path) -> None:
    """From its flags to its first commands in one packet."""
    async with serving(tmp_path) as server:
        client = await server.client()
        await client.stream.send_all(
            struct.pack(">I", 3) + sent.option(OptionType.LIST) + sent.option(OptionType.GO, go_data())
            + sent.request(WRITE, 0, cookie=7, data=SECTOR) + sent.request(READ, 0, 3, cookie=8))
        await client.exactly(18)
        while (reply := (await read_reply(client))).kind != Reply.ACK or reply.option != OptionType.GO:
            pass
        assert {(answer.cookie, answer.error, answer.data) for answer in
                [await client.answer({8: 3}), await client.answer({8: 3})]} == {(7, 0, b""), (8, 0, b"xxx")}


async def read_reply(client: RawClient) -> sent.OptionReply:
    head = await client.exactly(20)
    return sent.option_replies(head + await client.exactly(struct.unpack(">I", head[16:])[0]))[0]


async def test_export_name(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        client = await server.client()
        await client.greet(sent.FIXED)
        await client.stream.send_all(sent.option(OptionType.EXPORT_NAME, b"disk"))
        size, _ = struct.unpack(">QH124x", await client.exactly(134))
        assert size == SIZE
        assert (await client.call(READ, SIZE - 4, 4)).data == bytes(4)


@pytest.mark.allow_logs("has been waiting for 5 s", "requests are answered again")  # 32 MiB, on a busy machine
async def test_the_largest_payload_there_and_back(tmp_path: Path, rng: random.Random) -> None:
    async with serving(tmp_path) as server:
        client = await server.entered(structured=True)
        data = rng.randbytes(MAX_PAYLOAD_BYTES)
        assert (await client.call(WRITE, 512, data=data)).error == 0
        assert (await client.call(READ, 512, MAX_PAYLOAD_BYTES, flags=CommandFlag.DF)).data == data


async def test_info_and_refused_options_attach_nothing(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        holder, other = await server.entered(), await server.client()
        await other.greet()
        assert [reply.kind for reply in await other.ask(OptionType.INFO, go_data())][-1] == Reply.ACK
        assert [reply.kind for reply in await other.ask(OptionType.GO, go_data("no"))] == [Reply.ERR_UNKNOWN]
        assert [reply.kind for reply in await other.ask(OptionType.ABORT)] == [Reply.ACK]
        assert await other.at_end()
        assert (await holder.call(WRITE, 0, data=b"still here")).error == 0


# --- bad clients ------------------------------------------------------------------------------------
async def closes(client: RawClient, data: bytes) -> bool:
    await client.stream.send_all(data)
    return await client.at_end()


@pytest.mark.parametrize("data", [
    struct.pack(">I", 4),
    struct.pack(">I", 3) + b"GET / HTTP/1.1\r\n\r\n",
    struct.pack(">I", 3) + sent.option(OptionType.GO, length=1 << 30),
    struct.pack(">I", 3) + sent.option(OptionType.EXPORT_NAME, b"no such name"),
    struct.pack(">I", 0) + sent.option(OptionType.GO, go_data()),
], ids=["flags", "http", "absurd", "name", "old"])
async def test_what_is_no_client_is_cut_off(tmp_path: Path, data: bytes) -> None:
    async with serving(tmp_path) as server:
        client = await server.client()
        await client.exactly(18)
        assert await closes(client, data)
        await free_again(server)


async def test_errors_of_options_leave_the_connection_usable(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        client = await server.client()
        await client.greet()
        for number, data, kind in (
            (99, b"what", Reply.ERR_UNSUP), (OptionType.STARTTLS, b"", Reply.ERR_POLICY),
            (OptionType.GO, b"", Reply.ERR_INVALID), (OptionType.INFO, bytes(MAX_OPTION_BYTES + 1), Reply.ERR_TOO_BIG),
        ):
            assert [reply.kind for reply in await client.ask(number, data)] == [kind]
        assert (await client.ask(OptionType.GO, go_data()))[-1].kind == Reply.ACK


@pytest.mark.parametrize("structured", [False, True], ids=["simple", "structured"])
async def test_errors_of_commands_leave_the_connection_usable(tmp_path: Path, structured: bool) -> None:
    async with serving(tmp_path) as server:
        client = await server.entered(structured=structured)
        for kind, offset, length, flags, error in (
            (READ, SIZE, 1, 0, Error.EINVAL), (99, 0, 0, 0, Error.EINVAL), (READ, 0, 1, 1 << 9, Error.EINVAL),
            (CommandType.TRIM, SIZE, 1, 0, Error.ENOSPC), (CommandType.BLOCK_STATUS, 0, 1, 0, Error.EINVAL),
            (CommandType.WRITE_ZEROES, 0, 1, CommandFlag.FAST_ZERO, Error.ENOTSUP),
        ):
            assert (await client.call(kind, offset, length, flags=flags)).error == error
        assert (await client.call(WRITE, SIZE - 1, data=b"ab")).error == Error.ENOSPC
        assert (await client.call(WRITE, 0, data=bytes(MAX_PAYLOAD_BYTES + 1))).error == Error.EINVAL
        assert (await client.call(READ, 0, 4)).data == bytes(4)


@pytest.mark.parametrize("cut", [1, 27, 28, 28 + 100], ids=["magic", "header", "empty", "payload"])
async def test_half_a_request_is_nothing(tmp_path: Path, cut: int) -> None:
    """The connection ends within a request: what was whole before it is done, and it is not."""
    async with serving(tmp_path) as server:
        client = await server.entered()
        assert (await client.call(WRITE, 0, data=SECTOR)).error == 0
        await client.stream.send_all(sent.request(WRITE, 0, data=b"y" * SECTOR_SIZE)[:cut])
        await client.stream.aclose()
        assert (await (await free_again(server)).call(READ, 0, SECTOR_SIZE)).data == SECTOR


async def test_a_request_with_a_wrong_magic_ends_the_connection_alone(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        client = await server.entered()
        assert await closes(client, sent.request(READ, 0, 1, magic=1))
        await free_again(server)


async def test_random_bytes_do_no_harm(tmp_path: Path, rng: random.Random) -> None:
    async with serving(tmp_path) as server:
        for _ in range(20):
            client = await server.client()
            data = struct.pack(">I", 3) * rng.randrange(2) + rng.randbytes(rng.randrange(2000))
            try:
                await client.stream.send_all(data)
            except trio.BrokenResourceError:
                pass
            await client.stream.aclose()
        client = await free_again(server)
        await client.stream.send_all(rng.randbytes(1000))
        await client.stream.aclose()
        await free_again(server)


async def test_a_client_that_says_nothing_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "PATIENCE_S", 0.2)
    async with serving(tmp_path) as server:
        client = await server.client()
        await client.exactly(18)
        assert await client.at_end()
        monkeypatch.setattr(connection, "PATIENCE_S", 3.0)
        slow = await server.entered()  # one that has the disk may be silent for as long as it likes
        await trio.sleep(3.5)
        assert (await slow.call(READ, 0, 1)).error == 0


def descriptors() -> set[str]:
    """Those that are open, with what they are of."""
    found = set()
    for path in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # it has just been closed
            found.add(f"{path.name} {path.readlink()}")
    return {entry for entry in found if "/proc/" not in entry}


@pytest.mark.allow_logs("no client can be accepted for the moment: Too many open files")
async def test_clients_wait_while_there_are_no_descriptors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "NO_DESCRIPTORS_PAUSE_S", 0.05)
    async with serving(tmp_path) as server:
        holder, waiting = await server.entered(), await server.client()
        await waiting.exactly(18)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        with ExitStack() as stack:
            is_accepted = True
            while is_accepted:
                # A client's socket first; then the lowest limit that has no room for another one.
                another = stack.enter_context(socket.socket(socket.AF_UNIX))
                another.setblocking(False)
                open_before = descriptors()
                resource.setrlimit(resource.RLIMIT_NOFILE, (another.fileno() + 1, hard))
                try:
                    another.connect(str(server.path))
                    assert (await holder.call(WRITE, 0, data=SECTOR)).error == 0
                    with trio.move_on_after(0.3) as waits:
                        await trio.lowlevel.wait_readable(another)
                    assert (await holder.call(READ, 0, SECTOR_SIZE)).data == SECTOR
                finally:
                    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
                is_accepted = not waits.cancelled_caught
                # The nodes are of this process: one of them may have closed a file, so that there was a descriptor.
                assert not is_accepted or open_before - descriptors(), "accepted"
            with trio.fail_after(30):
                await trio.lowlevel.wait_readable(another)
            assert another.recv(18) == b"NBDMAGICIHAVEOPT\0\3"


# --- one at a time ------------------------------------------------------------------------------------
@pytest.mark.allow_logs("does not get the disk: process .* has the disk, and is alive")
async def test_a_second_client_waits_and_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attachment, "DECIDED_S", 1.0)
    async with serving(tmp_path) as server:
        first, second = await server.entered(), await server.client()
        started_s = trio.current_time()
        reply = await second.go()
        assert (reply.kind, b"has the disk, and is alive" in reply.data) == (Reply.ERR_POLICY, True)
        assert trio.current_time() - started_s >= 1.0
        monkeypatch.undo()
        await first.stream.aclose()
        assert (await second.ask(OptionType.GO, go_data()))[-1].kind == Reply.ACK  # it may try again


async def test_a_second_client_gets_the_disk_once_the_first_is_gone(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        first, second = await server.entered(), await server.client()
        replies: list[Reply] = []

        async def go() -> None:
            replies.append((await second.go()).kind)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(go)
            assert (await first.call(WRITE, 0, data=SECTOR)).error == 0
            assert not replies
            await first.stream.aclose()
        assert replies == [Reply.ACK]
        assert (await second.call(READ, 0, SECTOR_SIZE)).data == SECTOR


async def test_a_client_that_waits_for_the_disk_and_goes_claims_nothing(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        first, second = await server.entered(), await server.client()
        await second.greet()
        await second.stream.send_all(sent.option(OptionType.GO, go_data()))
        await second.stream.aclose()
        await first.stream.aclose()
        await free_again(server)


@pytest.mark.allow_logs("does not get the disk: the disk is attached by another host", "is attached")
async def test_a_disk_that_another_host_has_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attachment, "DECIDED_S", 1.0)
    async with serving(tmp_path) as server:
        client = await server.client()
        async with Client(server.config, attach=Attach(name="another host")) as other:
            await other.attached()
            reply = await client.go()
            assert reply.kind == Reply.ERR_POLICY and b"attached by another host" in reply.data
        monkeypatch.undo()
        assert (await client.ask(OptionType.GO, go_data()))[-1].kind == Reply.ACK


async def test_each_client_has_a_newer_epoch(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        epochs = []
        for _ in range(3):
            client = await server.entered()
            async with Client(server.config) as observer:
                epochs.append(max([(await observer.status(rank, 30.0))["epoch"] for rank in (1, 2, 3)]))
            await client.stream.aclose()
        assert epochs == sorted(set(epochs))


async def test_multi_conn_shares_one_attachment(tmp_path: Path) -> None:
    async with serving(tmp_path, export=EXPORT._replace(is_multi_conn=True)) as server:
        clients = [await server.entered() for _ in range(4)]
        for number, client in enumerate(clients):
            assert (await client.call(WRITE, number, data=bytes([number + 1]))).error == 0
        await clients[0].stream.aclose()
        for client in clients[1:]:
            assert (await client.call(READ, 0, 4)).data == b"\1\2\3\4"
            await client.stream.aclose()
        assert (await (await free_again(server)).call(READ, 0, 4)).data == b"\1\2\3\4"


# --- caches -------------------------------------------------------------------------------------------
@pytest.mark.parametrize("ends_in_order", [False, True], ids=["gone", "disconnect"])
async def test_what_is_in_the_cache_is_there_for_the_next_client(tmp_path: Path, ends_in_order: bool) -> None:
    """A client that reconnects has not crashed: it expects to find what was acknowledged, flushed or not."""
    async with serving(tmp_path, is_cached=True) as server:
        client = await server.entered()
        for number in range(50):
            assert (await client.call(WRITE, number * SECTOR_SIZE, data=SECTOR)).error == 0
        if ends_in_order:
            await client.begin(DISC)
            assert await client.at_end()
        await client.stream.aclose()
        assert (await (await free_again(server)).call(READ, 0, 50 * SECTOR_SIZE)).data == SECTOR * 50


async def test_what_is_flushed_is_at_the_nodes(tmp_path: Path) -> None:
    async with serving(tmp_path, is_cached=True) as server:
        client = await server.entered()
        await client.call(WRITE, 0, data=SECTOR)
        await client.call(FLUSH)
        await client.call(WRITE, SECTOR_SIZE, data=SECTOR, flags=CommandFlag.FUA)
        async with Client(server.config) as other:
            assert await other.read(0, 2) == SECTOR * 2


# --- bounds -------------------------------------------------------------------------------------------
async def test_a_client_that_takes_no_answers_is_not_read_either(tmp_path: Path) -> None:
    """It asks for far more than may be in flight, and reads nothing: its requests stay where they are. Others have
    nothing to wait for."""
    async with serving(tmp_path, export=EXPORT._replace(is_multi_conn=True)) as server:
        slow, other = await server.entered(), await server.entered()
        count = 64
        requests = [sent.request(READ, 0, 4 << 20, cookie=number) for number in range(count)]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(slow.stream.send_all, b"".join(requests))
            held = 0
            for turn in range(200):
                assert (await other.call(WRITE, turn, data=b"x")).error == 0
                held = max(held, server.server.held_bytes)
            assert 0 < held <= MAX_IN_FLIGHT_BYTES
            for _ in range(count):
                answer = await slow.answer(dict.fromkeys(range(count), 4 << 20))
                assert answer.error == 0 and len(answer.data) == 4 << 20


async def test_the_server_ends_when_what_is_in_flight_has_ended(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        client, idle = await server.entered(), await server.client()
        await idle.greet()
        cookies = [await client.begin(WRITE, number * SECTOR_SIZE, data=SECTOR) for number in range(20)]
        assert (await client.answer()).error == 0
        server.stop()
        answered = [await client.answer() for _ in cookies[1:]]
        assert {answer.error for answer in answered} <= {0, Error.ESHUTDOWN}
        assert await client.at_end() and await idle.at_end()
