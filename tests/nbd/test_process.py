"""`dsreg-nbd` as it is used: a process of its own, and nodes that are processes as well."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import trio

from dsreg.client import Client
from dsreg.constants import CLIENT_KEY_SIZE, SECTOR_SIZE
from dsreg.volume.assemble import SIZE_PATIENCE_S
from nbd_frontend.codec import MAX_PAYLOAD_BYTES
from nbd_frontend.commands import MAX_IN_FLIGHT_BYTES
from nbd_frontend.numbers import CommandType, Error, OptionType, Reply
from tests.fuse.tools import ROOT, run, wait_until
from tests.metrics.scraping import listens, read
from tests.nbd import client as sent
from tests.nbd.client import RawClient, go_data
from tests.nbd.tools import SIZE
from tests.node_processes import Nodes, running_nodes
from tests.processes.cluster import free_addresses, until

NBD = [sys.executable, "-m", "nbd_frontend.cli"]
READ, WRITE = CommandType.READ, CommandType.WRITE
LIMIT_S = 120.0
# More than are in flight at once, so that some are still in the sockets when their client is gone.
WRITES = 600


class Daemon:
    """A server that has been started; its log in `log`."""

    def __init__(self, directory: Path, *options: str | Path) -> None:
        self.path = directory / "nbd.sock"
        self._log = directory / f"nbd.{len(list(directory.iterdir()))}.log"
        command = [*NBD, "--socket", str(self.path), *map(str, options)]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT)

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def wait_until_up(self) -> None:
        wait_until(lambda: "serving the disk on" in self.log or self.process.poll() is not None, "the server")
        assert self.process.poll() is None, self.log

    async def client(self) -> RawClient:
        return RawClient(await trio.open_unix_socket(str(self.path)))

    async def entered(self) -> RawClient:
        client = await self.client()
        assert (await client.go()).kind == Reply.ACK, self.log
        return client

    def rss_bytes(self) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        [kilobytes] = re.findall(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE)
        return int(kilobytes) * 1024


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    with running_nodes(tmp_path, SIZE) as nodes:
        yield nodes


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Daemon]]:
    """`start(*options)`: a server that is up, and gone after the test."""
    started: list[Daemon] = []

    def start(*options: str | Path) -> Daemon:
        daemon = Daemon(tmp_path, *options)
        started.append(daemon)
        daemon.wait_until_up()
        return daemon

    yield start
    for daemon in started:
        daemon.process.kill()
        daemon.process.wait()
        print(f"--- log of the server\n{daemon.log}")


@pytest.fixture
def daemon(start: Callable[..., Daemon], nodes: Nodes) -> Daemon:
    return start("--config", nodes.config.path)


def unread_bytes(port: int) -> int:
    """What has arrived at this port, and its process has not received."""
    total = 0
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if int(fields[1].rpartition(":")[2], 16) == port and fields[3] == "01":
            total += int(fields[4].rpartition(":")[2], 16)
    return total


def have_unread(nodes: Nodes, *ranks: int) -> bool:
    return all(unread_bytes(nodes.config.nodes[rank - 1].port) > 10 * SECTOR_SIZE for rank in ranks)


# --- the late request -----------------------------------------------------------------------------------
def sectors(word: bytes) -> list[bytes]:
    return [word + bytes([number % 256]) * (SECTOR_SIZE - len(word)) for number in range(WRITES)]


async def write_all(client: RawClient, values: list[bytes]) -> None:
    """All at once; returned when all are acknowledged."""
    requests = [sent.request(WRITE, number * SECTOR_SIZE, cookie=number, data=value)
                for number, value in enumerate(values)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.stream.send_all, b"".join(requests))
        for _ in values:
            assert (await client.answer()).error == 0


async def read_all(client: RawClient) -> bytes:
    return (await client.call(READ, 0, WRITES * SECTOR_SIZE)).data


@pytest.mark.parametrize("options", [(), ("--cache=writeback",)], ids=["none", "writeback"])
async def test_a_late_request_never_overwrites_newer_data(
    start: Callable[..., Daemon], nodes: Nodes, options: tuple[str, ...]
) -> None:
    """A client stalls with writes in flight, because a majority has stopped; it dies, and another one, which may be the
    same after a reconnect, writes newer values through a majority in which one node has yet to see the older ones. That
    one sees them last. With a cache they have been acknowledged, so that they come first."""
    daemon = start("--config", nodes.config.path, *options)
    with trio.fail_after(LIMIT_S):
        first = await daemon.entered()
        await write_all(first, sectors(b"first"))
        nodes.signal(signal.SIGSTOP, 1, 2)
        late = b"".join(sent.request(WRITE, number * SECTOR_SIZE, cookie=number, data=value)
                        for number, value in enumerate(sectors(b"late")))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(first.stream.send_all, late)
            await trio.to_thread.run_sync(wait_until, partial(have_unread, nodes, 1, 2), "writes at the stopped nodes")
            nursery.cancel_scope.cancel()  # the client is killed, with some requests sent in part
        await trio.aclose_forcefully(first.stream)
        second = await daemon.client()
        await second.greet()
        await second.stream.send_all(sent.option(OptionType.GO, go_data()))
        nodes.signal(signal.SIGCONT, 2)
        newest = b"".join(sectors(b"newer"))
        while (await reply_of(second)).kind != Reply.ACK:
            pass
        await write_all(second, sectors(b"newer"))
        assert (await second.call(CommandType.FLUSH)).error == 0
        nodes.signal(signal.SIGCONT, 1)
        assert await read_all(second) == newest
        await trio.aclose_forcefully(second.stream)
        # Read by majorities of which the late node is a part.
        wait_until(lambda: unread_bytes(nodes.config.nodes[0].port) == 0, "node 1 has caught up")
        for stopped in (2, 3):
            nodes.signal(signal.SIGSTOP, stopped)
            client = await daemon.entered()
            assert await read_all(client) == newest
            await trio.aclose_forcefully(client.stream)
            nodes.signal(signal.SIGCONT, stopped)


async def reply_of(client: RawClient) -> sent.OptionReply:
    head = await client.exactly(20)
    return sent.option_replies(head + await client.exactly(int.from_bytes(head[16:])))[0]


# --- bounds ---------------------------------------------------------------------------------------------
async def test_a_client_that_writes_while_nothing_is_done_is_held_back(daemon: Daemon, nodes: Nodes) -> None:
    """The nodes have stopped. A client offers far more than may be in flight: what the server takes of it, and what it
    needs for that, is bounded."""
    with trio.fail_after(LIMIT_S):
        client = await daemon.entered()
        assert (await client.call(WRITE, 0, data=bytes(MAX_PAYLOAD_BYTES))).error == 0
        before = daemon.rss_bytes()
        nodes.signal(signal.SIGSTOP, 1, 2, 3)
        request = sent.request(WRITE, 0, data=bytes(4 << 20))
        assert isinstance(client.stream, trio.SocketStream)
        sock = client.stream.socket
        accepted, idle = 0, 0
        while idle < 100:  # for two seconds nothing more is taken
            try:
                accepted += os.write(sock.fileno(), request[accepted % len(request):])
                idle = 0
            except BlockingIOError:
                idle += 1
                await trio.sleep(0.02)
            assert accepted < 1 << 30
        assert accepted <= MAX_IN_FLIGHT_BYTES + MAX_PAYLOAD_BYTES + (4 << 20)
        # What is in flight, once more as what goes to three nodes, and a payload that waits.
        assert daemon.rss_bytes() - before < 4 * MAX_IN_FLIGHT_BYTES
        nodes.signal(signal.SIGCONT, 1, 2, 3)
        await trio.aclose_forcefully(client.stream)
        assert (await (await daemon.entered()).call(READ, 0, 1)).error == 0


# --- start and end --------------------------------------------------------------------------------------
async def test_sigterm_writes_back_and_releases(start: Callable[..., Daemon], nodes: Nodes) -> None:
    daemon = start("--config", nodes.config.path, "--cache=writeback")
    with trio.fail_after(LIMIT_S):
        client = await daemon.entered()
        await write_all(client, sectors(b"cached"))
        daemon.process.terminate()
        assert await client.at_end()
        assert await trio.to_thread.run_sync(daemon.process.wait) == 0, daemon.log
    assert not daemon.path.exists()
    async with Client(nodes.config) as other:
        assert await other.read(0, WRITES) == b"".join(sectors(b"cached"))


async def test_a_killed_server_is_replaced_at_its_socket(
    start: Callable[..., Daemon], daemon: Daemon, nodes: Nodes
) -> None:
    with trio.fail_after(LIMIT_S):
        await write_all(await daemon.entered(), sectors(b"kept"))
        done = run(*NBD, "--config", nodes.config.path, "--socket", daemon.path, check=False)
        assert done.returncode == 1 and "another process listens on it" in done.stderr
        daemon.process.kill()
        await trio.to_thread.run_sync(daemon.process.wait)
        assert daemon.path.exists()
        again = start("--config", nodes.config.path)
        assert await read_all(await again.entered()) == b"".join(sectors(b"kept"))


async def test_a_shared_export_is_read_beside_the_one_who_has_the_disk(
    start: Callable[..., Daemon], daemon: Daemon, nodes: Nodes, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    other = Daemon(tmp_path / "other", "--config", nodes.config.path, "--read-only", "--shared")
    try:
        with trio.fail_after(LIMIT_S):
            await trio.to_thread.run_sync(other.wait_until_up)
            writer, reader = await daemon.entered(), await other.entered()
            await write_all(writer, sectors(b"first"))
            assert await read_all(reader) == b"".join(sectors(b"first"))
            await write_all(writer, sectors(b"second"))
            assert await read_all(reader) == b"".join(sectors(b"second"))
            assert (await reader.call(CommandType.TRIM, 0, SECTOR_SIZE)).error == Error.EPERM
    finally:
        other.process.kill()
        other.process.wait()


async def test_a_shared_export_has_the_size_that_a_majority_says(
    start: Callable[..., Daemon], nodes: Nodes, tmp_path: Path
) -> None:
    """It is told once, and a copy that ends there would be taken for all: also while nobody answers for a while."""
    old = nodes.config.path.with_name("old.toml")
    shutil.copy(nodes.config.path, old)
    async with Client(nodes.config) as serving:
        await serving.read(0)
    resize = (sys.executable, "-m", "dsreg", "resize", nodes.config.path, str(2 * SIZE), "--force")
    await trio.to_thread.run_sync(run, *resize)
    nodes.kill(1, 2, 3)
    daemon = start("--config", old, "--read-only", "--shared")
    client = await daemon.client()
    replies: list[Reply] = []

    async def go() -> None:
        replies.append((await client.go()).kind)

    with trio.fail_after(LIMIT_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(go)
            await trio.sleep(SIZE_PATIENCE_S + 1.0)
            assert replies == []
            nodes.start(1, 2, 3)
    assert replies == [Reply.ACK] and client.size == 2 * SIZE, daemon.log


def test_sockets_of_systemd(nodes: Nodes, tmp_path: Path) -> None:
    """As sd_listen_fds(3) has it: descriptor 3 is a socket, and LISTEN_PID is the process that it is for."""
    path = tmp_path / "activated.sock"
    with socket.socket(socket.AF_UNIX) as listener, (tmp_path / "log").open("wb") as log:
        listener.bind(str(path))
        listener.listen()
        script = f'exec 3<&{listener.fileno()}; LISTEN_PID=$$ LISTEN_FDS=1 exec "$@"'
        command = ["bash", "-c", script, "-", *NBD, "--config", str(nodes.config.path)]
        process = subprocess.Popen(command, pass_fds=[listener.fileno()], stderr=log, cwd=ROOT)
        with contextlib.ExitStack() as stack:
            stack.callback(process.wait)
            stack.callback(process.kill)
            listener.settimeout(30)
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(60)
                client.connect(str(path))
                assert client.recv(18, socket.MSG_WAITALL) == b"NBDMAGICIHAVEOPT\0\3"
            process.terminate()
            assert process.wait(60) == 0, (tmp_path / "log").read_text()
    assert path.exists(), "it is systemd's, who removes it"


def test_it_runs_nodes_where_there_is_no_configuration(
    start: Callable[..., Daemon], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DSREG_CONFIG", raising=False)
    for variable, name in (("XDG_DATA_HOME", "data"), ("XDG_CONFIG_HOME", "config")):
        monkeypatch.setenv(variable, str(tmp_path / "home" / name))

    async def use(word: bytes) -> None:
        daemon = start(*(("--size", "8MiB") if word == b"once" else ()))
        client = await daemon.entered()
        assert client.size == 8 << 20
        if word == b"once":
            await write_all(client, sectors(b"kept"))
        assert await read_all(client) == b"".join(sectors(b"kept"))
        daemon.process.terminate()
        assert await trio.to_thread.run_sync(daemon.process.wait) == 0, daemon.log

    for word in (b"once", b"again"):
        trio.run(use, word)


@pytest.mark.parametrize(("options", "code", "text"), [
    ((), 2, "name where to listen"),
    (("--socket", "/proc/no/such"), 1, "/proc/no/such cannot be listened on"),
    (("--socket", "/etc/hostname"), 1, "/etc/hostname exists, and is not a socket"),
    (("--socket", "x" * 200), 1, "cannot be listened on"),
    (("--port", "0", "--host", "203.0.113.1"), 1, "203.0.113.1:0 cannot be listened on"),
    (("--port", "0", "--tls-certs", "/etc"), 2, "server-cert.pem: is needed for TLS"),
    (("--port", "0", "--config", "/no/such.toml"), 2, "/no/such.toml"),
    (("--port", "0", "--export-name", "a\nb"), 2, "cannot be printed"),
    (("--port", "0", "--shared"), 2, "--shared is for --read-only"),
])
def test_what_it_cannot_do_it_says(options: tuple[str, ...], code: int, text: str) -> None:
    done = run(*NBD, *options, check=False)
    assert (done.returncode, done.stdout) == (code, "") and text in done.stderr.replace("\n", " "), done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("is_up", [True, False], ids=["nodes", "no nodes yet"])
def test_a_key_that_no_node_accepts_is_said_at_the_start(nodes: Nodes, tmp_path: Path, is_up: bool) -> None:
    """Or as soon as there are nodes to say so; units do not try again."""
    shutil.copytree(nodes.config.path.parent, tmp_path / "strange")
    (tmp_path / "strange" / "client.key").write_text("5a" * CLIENT_KEY_SIZE)
    if not is_up:
        nodes.kill(1, 2, 3)
    daemon = Daemon(tmp_path, "--config", tmp_path / "strange" / "cluster.toml")
    try:
        if not is_up:
            daemon.wait_until_up()
            nodes.start(1, 2, 3)
        assert daemon.process.wait(LIMIT_S) == 2
    finally:
        daemon.process.kill()
        daemon.process.wait()
    assert "dsreg-nbd: no node accepts the client key: client_key_file belongs to another cluster" in daemon.log
    assert "Traceback" not in daemon.log and not daemon.path.exists()


def test_tcp_for_others_without_tls_is_warned_of(start: Callable[..., Daemon], nodes: Nodes) -> None:
    daemon = start("--config", nodes.config.path, "--port", "0", "--host", "0.0.0.0")
    wait_until(lambda: "can read and write the disk" in daemon.log, "the warning")


async def test_metrics_go_on_from_client_to_client(start: Callable[..., Daemon], nodes: Nodes) -> None:
    [address] = free_addresses(1)
    daemon = start("--config", nodes.config.path, "--metrics", f"{address[0]}:{address[1]}")
    until(lambda: listens(address), "the metrics are served")
    assert "dsreg_client_attachment_epoch" not in read(address)
    with trio.fail_after(LIMIT_S):
        for number in (1, 2):
            client = await daemon.entered()
            assert (await client.call(WRITE, number * SECTOR_SIZE, data=bytes(SECTOR_SIZE))).error == 0
            found = read(address)
            assert found["dsreg_edge_request_duration_seconds_count{edge=nbd,operation=write}"] == number
            assert found["dsreg_client_attachment_epoch"] == number
            await client.stream.aclose()
            until(lambda: "dsreg_client_attachment_epoch" not in read(address), "the disk is released")
