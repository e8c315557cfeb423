"""A client whose host has lost its power: the next one gets the disk, as soon as that is known and not before."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import trio

from dsreg import transport
from nbd_frontend import attachment
from nbd_frontend.numbers import CommandType, OptionType, Reply
from tests.chaos.namespaces import Network, why_no_namespaces
from tests.nbd import client as sent
from tests.nbd.client import RawClient, go_data
from tests.nbd.tools import LIMIT_S, serving
from tests.test_volume import nodes

READ, WRITE = CommandType.READ, CommandType.WRITE


async def connected(network: Network, host: str, address: tuple[str, int]) -> RawClient:
    with network.inside(host):
        sock = socket.create_connection(address)
    sock.setblocking(False)
    return RawClient(trio.SocketStream(trio.socket.from_stdlib_socket(sock)))


@pytest.mark.slow
@pytest.mark.skipif(why_no_namespaces() is not None, reason=str(why_no_namespaces()))
@pytest.mark.parametrize("is_owed", [False, True], ids=["idle", "unacknowledged"])
@pytest.mark.allow_logs("has not been heard for 11 s and is taken for dead")
async def test_a_client_whose_host_is_gone_makes_room(tmp_path: Path, is_owed: bool) -> None:
    """`is_owed`: answers to it are on their way, of which the kernel would send again for a quarter of an hour."""
    async with nodes(1024, LIMIT_S) as config:
        with Network(["server", "lost", "next"]) as network:
            with network.inside("server"):
                listener = socket.create_server((network.addresses["server"], 0))
            listener.setblocking(False)
            async with serving(tmp_path, config=config, listener=listener) as server:
                address = listener.getsockname()
                lost = await connected(network, "lost", address)
                assert (await lost.go()).kind == Reply.ACK
                assert (await lost.call(WRITE, 0, data=b"of the lost")).error == 0
                if is_owed:
                    # It takes none of what it asks for: the rest is unacknowledged when the network goes.
                    for cookie in range(16):
                        await lost.stream.send_all(sent.request(READ, 0, 2 << 20, cookie=cookie))
                    with trio.fail_after(30):
                        while server.server.held_bytes < 8 << 20:  # noqa: ASYNC110
                            await trio.sleep(0.02)
                network.down("lost")
                other = await connected(network, "next", address)
                await other.greet()
                started_s = trio.current_time()
                kinds = []
                while not kinds or kinds[-1] != Reply.ACK:  # it may be refused once, and asks again
                    kinds.append((await other.ask(OptionType.GO, go_data()))[-1].kind)
                waited_s = trio.current_time() - started_s
                assert len(kinds) <= 2 and transport.KEEPALIVE_IDLE_S < waited_s < 2 * attachment.DECIDED_S
                assert (await other.call(READ, 0, 11)).data == b"of the lost"
                await trio.aclose_forcefully(other.stream)
                await trio.aclose_forcefully(lost.stream)
