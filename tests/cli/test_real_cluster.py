"""The commands against real node processes: `dsreg up`, and everything a person then does."""

from __future__ import annotations

import fcntl
import json
import os
import random
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from dsreg.cli.faults import EXIT_CONFIG, EXIT_FAILED, EXIT_NO_QUORUM
from dsreg.node.members import COMPLAIN_AFTER_S
from tests.cli.terminal import run_on_terminal
from tests.processes.cluster import free_addresses

SECTORS = 1024
TIMEOUT_S = 60
# Of commands that wait for nothing but a machine that is busy.
PATIENCE = "30"
# Of those that wait until it is over, since somebody does not answer.
ASK_S = "5"


class Cluster:
    """A `dsreg up` process of three nodes, and the commands to use it."""

    def __init__(self, directory: Path, dsreg: Sequence[str]) -> None:
        self.dsreg = list(dsreg)
        self.path = directory / "cluster.toml"
        options = [part for host, port in free_addresses(3) for part in ("--host", f"{host}:{port}")]
        self.run("init", directory, "--size", f"{SECTORS * 4}KiB", *options, check=True)
        self.began_s = time.monotonic()
        self.up = subprocess.Popen([*self.dsreg, "up", str(self.path)], stdin=subprocess.DEVNULL,
                                   stderr=subprocess.PIPE)
        self.log = b""

    def wait_for(self, part: bytes, times: int = 1) -> None:
        """Read the log of `dsreg up` until `part` stands in it that many times."""
        assert self.up.stderr is not None
        while self.log.count(part) < times:
            readable, _, _ = select.select([self.up.stderr], [], [], TIMEOUT_S)
            chunk = os.read(self.up.stderr.fileno(), 65536) if readable else b""
            assert chunk, f"{part!r} is not in the log: {self.log.decode()}"
            self.log += chunk

    def begun(self) -> None:
        """Until all nodes have told each other that they are new, and serve, and each is linked to the others."""
        until(lambda: self.run("health", self.path, "--timeout", PATIENCE).returncode == 0, "all is well")

    def run(
        self, *arguments: object, data: bytes | None = None, check: bool = False
    ) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run([*self.dsreg, *map(str, arguments)], input=data, capture_output=True, check=check,
                              timeout=TIMEOUT_S)

    def status(self, *options: str) -> tuple[int, dict[str, Any]]:
        done = self.run("status", self.path, "--json", *(options or ("--timeout", PATIENCE)))
        return done.returncode, json.loads(done.stdout)

    def node_pids(self) -> dict[int, int]:
        """The node processes that are children of `dsreg up`, by rank."""
        pids = {}
        for child in Path(f"/proc/{self.up.pid}/task/{self.up.pid}/children").read_text().split():
            arguments = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
            pids[int(arguments[arguments.index(b"--rank") + 1])] = int(child)
        return pids

    def stop(self) -> None:
        if self.up.poll() is None:
            self.up.terminate()
        _, rest = self.up.communicate(timeout=TIMEOUT_S)
        self.log += rest


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, what


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture
def cluster(tmp_path: Path, dsreg: list[str]) -> Iterator[Cluster]:
    started = Cluster(tmp_path / "cluster", dsreg)
    try:
        started.wait_for(b"all 3 nodes listen")
        yield started
    finally:
        started.stop()
        print(started.log.decode())


def test_from_the_start_to_the_end(cluster: Cluster, rng: random.Random) -> None:
    code, report = cluster.status()
    assert code == 0 and report["quorum"] and report["answering"] == 3 and report["needed"] == 2
    assert [node["rank"] for node in report["nodes"]] == [1, 2, 3]
    assert all(node["incarnation"] >= 1 and 0 < node["round_trip_s"] < 30 for node in report["nodes"])
    took_s = time.monotonic() - cluster.began_s

    data = rng.randbytes(700 * 4096)
    assert cluster.run("write", 5, "--config", cluster.path, data=data).returncode == 0
    assert cluster.run("read", 5, 700, "--config", cluster.path).stdout == data
    assert cluster.run("read", 0, 6, "--config", cluster.path).stdout == bytes(5 * 4096) + data[:4096]
    assert cluster.run("read", 704, 2, "--config", cluster.path).stdout == data[-4096:] + bytes(4096)

    odd = cluster.run("write", 900, "--config", cluster.path, data=bytes(4096) + b"odd")
    assert odd.returncode == EXIT_FAILED
    assert odd.stderr == (b"dsreg: the input ends 3 bytes into a sector; its length must be a multiple of 4096 "
                          b"(1 whole sectors are written)\n")

    done = cluster.run("bench", cluster.path, "--seconds", 1, "--mix", 50, "--depth", 8, "--yes", "--json", "--seed", 7)
    assert done.returncode == 0, done.stderr
    bench = json.loads(done.stdout)
    assert bench["reads"]["count"] > 0 and bench["writes"]["count"] > 0 and bench["seed"] == 7
    assert bench["reads"]["p50_ms"] <= bench["reads"]["p99_ms"] <= bench["reads"]["max_ms"]
    assert bench["client_cpu_us_per_op"] > 0 and bench["nodes_cpu_us_per_op"] > 0
    assert bench["nodes_counted"] == [1, 2, 3]

    pids = cluster.node_pids()
    cluster.stop()
    assert cluster.up.returncode == 0
    assert not any(alive(pid) for pid in pids.values())
    if took_s < COMPLAIN_AFTER_S:  # else a node may have said that it waits for the others
        assert cluster.log.count(b"\n") == 1, "quiet when all is well"


def test_what_a_person_gets_wrong(cluster: Cluster) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run([*cluster.dsreg, "read", "0", "-c", str(cluster.path)], stdout=full,
                              stderr=subprocess.PIPE, timeout=TIMEOUT_S, check=False)
    assert done.returncode == EXIT_FAILED and done.stderr == b"dsreg: stdout: No space left on device\n"

    other = cluster.path.with_name("other.toml")
    other.write_text(re.sub(r"(?m)^size = .*$", f"sectors = {2 * SECTORS}", cluster.path.read_text()))
    assert cluster.run("read", 0, "-c", other).returncode == 0, "the nodes know better"
    done = cluster.run("read", SECTORS, "-c", other)
    assert done.returncode == EXIT_FAILED and b"sectors 1024..1024 of 0..1023" in done.stderr
    assert b"1024 sectors; the file has 8MiB" in cluster.run("status", other, "--timeout", ASK_S).stdout

    cluster.path.with_name("client.key").write_text("5a" * 32 + "\n")
    code, report = cluster.status("--timeout", ASK_S)
    assert code == EXIT_CONFIG and report["fault"] == "no node accepts the client key"
    assert {node["fault"] for node in report["nodes"]} == {"has another client key"}
    once = (b"dsreg: no node accepts the client key: client_key_file belongs to another cluster; "
            b"copy it from a host of this one\n")
    for command in (("status", cluster.path, "--timeout", ASK_S), ("read", 0, "-c", cluster.path),
                    ("bench", cluster.path, "--mix", 100, "--seconds", 1)):
        done = cluster.run(*command)
        assert (done.returncode, done.stdout, done.stderr) == (EXIT_CONFIG, b"", once)
    done = cluster.run("health", cluster.path, "--timeout", ASK_S)
    assert (done.returncode, done.stdout, done.stderr) == (
        2, b"critical: 0 of 3 nodes answer; no quorum: no node accepts the client key\n", b"")
    done = cluster.run("health", cluster.path, "--rank", 2, "--timeout", ASK_S)
    assert done.returncode == 2 and done.stderr == b""
    assert re.fullmatch(rb"critical: node 2 \(127[.\d]+:\d+\): has another client key\n", done.stdout), done


def test_a_node_that_is_killed_comes_back(cluster: Cluster) -> None:
    before = cluster.status()[1]["nodes"][1]["incarnation"]
    os.kill(cluster.node_pids()[2], signal.SIGKILL)
    cluster.wait_for(b"WARNING node-2 dsreg.supervisor: killed by SIGKILL; starts again in 0.2 s")
    assert cluster.run("write", 0, "--config", cluster.path, data=b"\x01" * 4096).returncode == 0
    code, report = cluster.status("--timeout", "20")
    assert code == 0 and report["answering"] == 3
    assert report["nodes"][1]["incarnation"] > before


def test_stopped_nodes_and_no_quorum(cluster: Cluster) -> None:
    cluster.begun()
    pids = cluster.node_pids()
    os.kill(pids[3], signal.SIGSTOP)
    try:
        done = cluster.run("status", cluster.path, "--timeout", ASK_S)
        assert done.returncode == 0
        assert done.stdout.decode().splitlines()[-1] == "quorum: 2 of 3 nodes answer, 2 are needed"
        os.kill(pids[2], signal.SIGSTOP)
        done = cluster.run("status", cluster.path, "--timeout", ASK_S)
        assert done.returncode == EXIT_NO_QUORUM
        assert done.stdout.decode().splitlines()[-1].startswith("no quorum: 1 of 3 nodes answer, 2 are needed")
        done = cluster.run("read", 0, "--config", cluster.path, "--timeout", "0.5")
        assert done.returncode == EXIT_NO_QUORUM and done.stdout == b""
        assert done.stderr.count(b"\n") == 1 and b"certainly did not happen" in done.stderr
    finally:
        for rank in (2, 3):
            os.kill(pids[rank], signal.SIGCONT)


def test_a_check_for_monitoring(cluster: Cluster) -> None:
    def check(*options: object) -> tuple[int, str]:
        done = cluster.run("health", cluster.path, "--timeout", PATIENCE, *options)
        assert done.stderr == b""
        return done.returncode, done.stdout.decode()

    cluster.begun()
    assert check() == (0, "well: 3 of 3 nodes answer\n")
    assert check("--rank", 2) == (0, "well: node 2 answers\n")
    pids = cluster.node_pids()
    os.kill(pids[3], signal.SIGSTOP)
    try:
        code, said = check("--timeout", ASK_S)
        assert code == 1 and re.match(r"degraded: 2 of 3 nodes answer; node 3 \(127[.\d]+:\d+\): ", said), said
        assert "to do: start node 3, with its directory; what is missed is fetched then\n" in said
        assert check("--rank", 1)[0] == 0
        code, said = check("--rank", 3, "--timeout", "2")
        assert code == 2 and said.startswith("critical: node 3 (127.")
        assert cluster.run("health", cluster.path, "--rank", 3, "--timeout", 1).returncode == 2
        os.kill(pids[2], signal.SIGSTOP)
        code, said = check("--timeout", ASK_S, "--json")
        report = json.loads(said)
        assert code == 2 and report["health"] == "critical" and report["answering"] == 1
        assert report["findings"][0]["sentence"] == "no quorum: no majority answered a read within 5 s"
        assert report["checks"]["quorum_lost"] == "critical" and report["checks"]["damage"] == ""
    finally:
        for rank in (2, 3):
            os.kill(pids[rank], signal.SIGCONT)
    assert cluster.run("health", cluster.path, "--rank", 4).returncode == EXIT_CONFIG
    assert cluster.run("health", cluster.path.with_name("none.toml")).returncode == 2


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_the_table_fits_the_terminal(cluster: Cluster, columns: int) -> None:
    cluster.begun()
    cluster.run("wait", "--healed", cluster.path, "--timeout", TIMEOUT_S / 2, check=True)
    command = [*cluster.dsreg, "status", str(cluster.path), "--timeout", PATIENCE]
    code, output = run_on_terminal(command, columns, {"NO_COLOR": "1"})
    assert code == 0 and "\x1b" not in output, "no colours, no bold"
    title, can_lose, header, _, *rows = output.replace("\r\n", "\n").splitlines()
    assert title.startswith(str(cluster.path)) and header.split()[:4] == ["rank", "address", "state", "data"]
    assert can_lose.startswith("can lose ")
    assert all(len(line) <= columns for line in (header, *rows))
    for rank, row in enumerate(rows[:3], 1):
        assert row.split()[0] == str(rank) and re.search(r"127[.\d]+:\d{5} +answers +\S.*\S +2 of 2", row)
    assert rows[3:] == ["not attached, and never was", "quorum: 3 of 3 nodes answer, 2 are needed"]
    assert "\x1b[" in run_on_terminal(command, columns)[1]


@pytest.mark.slow
def test_nodes_say_which_others_are_lost_and_back(cluster: Cluster) -> None:
    with (cluster.path.parent / "node-3" / "lock").open() as lock:
        os.kill(cluster.node_pids()[3], signal.SIGKILL)
        fcntl.flock(lock, fcntl.LOCK_EX)  # got once it is dead; nobody can start it again before this is released
        for rank in (1, 2):
            cluster.wait_for(b"WARNING node-%d dsreg.node: node 3 (127." % rank)
        assert cluster.log.count(b"2 of 3 nodes are in reach, 2 are needed: the disk goes on") >= 2
    cluster.wait_for(b"is in reach again, after ", times=2)
    assert cluster.status()[0] == 0


def test_nodes_end_when_the_supervisor_is_killed(cluster: Cluster) -> None:
    watched = [os.pidfd_open(pid) for pid in cluster.node_pids().values()]
    assert len(watched) == 3
    cluster.up.kill()
    for descriptor in watched:
        readable, _, _ = select.select([descriptor], [], [], TIMEOUT_S)
        assert readable, "a node outlived its supervisor"
        os.close(descriptor)


def test_nobody_there(tmp_path: Path, dsreg: list[str]) -> None:
    port = free_port()
    subprocess.run([*dsreg, "init", str(tmp_path), "--nodes", "1", "--base-port", str(port)], check=True,
                   timeout=TIMEOUT_S)
    done = subprocess.run([*dsreg, "status", str(tmp_path / "cluster.toml"), "--timeout", ASK_S], capture_output=True,
                          text=True, check=False, timeout=TIMEOUT_S)
    assert done.returncode == EXIT_NO_QUORUM
    assert "connection refused" in done.stdout and "no quorum: 0 of 1 nodes" in done.stdout


def test_a_node_says_what_is_wrong_in_one_line(tmp_path: Path, dsreg: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        subprocess.run([*dsreg, "init", str(tmp_path / "c"), "--nodes", "1", "--base-port", str(port)], check=True,
                       timeout=TIMEOUT_S)
        node = [*dsreg, "node", "--config", str(tmp_path / "c" / "cluster.toml"), "--rank", "1"]
        done = subprocess.run(node, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)
        assert done.returncode == EXIT_FAILED
        assert done.stderr.endswith(f"CRITICAL node-1 dsreg.node: 127.0.0.1:{port}: Address already in use\n")
        assert done.stderr.count("\n") == 1
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "precious").write_text("data")
    for name in ("x1", "x2", "x3"):
        (foreign / name).touch()
    done = subprocess.run([*node, "--storage", str(foreign)], capture_output=True, text=True, check=False,
                          timeout=TIMEOUT_S)
    assert done.returncode == EXIT_FAILED and done.stderr.count("\n") == 1 and str(foreign) in done.stderr
    assert done.stderr.endswith("it holds precious, x1, x2 and 1 more; choose an empty directory\n")
    assert sorted(os.listdir(foreign)) == ["precious", "x1", "x2", "x3"]
    inside = foreign / "precious" / "storage"
    done = subprocess.run([*node, "--storage", str(inside)], capture_output=True, text=True, check=False,
                          timeout=TIMEOUT_S)
    assert done.returncode == EXIT_FAILED and done.stderr.endswith(f"dsreg.node: {inside}: Not a directory\n")


# Attaches the disk, says so, and keeps it until its standard input ends.
_HOLDER = """
import sys, trio
from pathlib import Path
from dsreg.client import Attach, Client
from dsreg.config import load_config
async def main():
    async with Client(load_config(Path(sys.argv[1])), attach=Attach(name="[b]the holder[/b]")) as client:
        print(await client.attached(), flush=True)
        await trio.to_thread.run_sync(sys.stdin.read)
trio.run(main)
"""


def test_a_disk_that_is_attached(cluster: Cluster) -> None:
    """Shown by status; not written beside its holder but by force; bench attaches it if nobody has it."""
    bench = ("bench", cluster.path, "--seconds", 0.2, "--depth", 4, "--yes", "--json")
    write = ("write", 5, "--config", cluster.path)
    def shown() -> bytes:
        return cluster.run("status", cluster.path, "--timeout", PATIENCE).stdout

    assert b"not attached, and never was" in shown()
    with subprocess.Popen([sys.executable, "-c", _HOLDER, str(cluster.path)], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"1\n"
        code, report = cluster.status()
        assert code == 0 and (report["epoch"], report["attached_by"]) == (1, "[b]the holder[/b]")
        assert b"attached by [b]the holder[/b] (epoch 1)" in shown()
        for refused in (cluster.run(*write, data=b"x" * 4096), cluster.run(*bench), cluster.run(*bench, "--attach")):
            assert refused.returncode == EXIT_FAILED, refused
            assert b"attached by [b]the holder[/b], which is alive" in refused.stderr
        assert cluster.run("read", 5, "--config", cluster.path).stdout == bytes(4096)
        assert cluster.run("bench", cluster.path, "--mix", 100, "--seconds", 0.2).returncode == 0
        assert cluster.run(*write, "--force", data=b"x" * 4096).returncode == 0
        assert cluster.run("read", 5, "--config", cluster.path).stdout == b"x" * 4096
        assert cluster.run(*bench, "--force").returncode == 0
        holder.communicate(timeout=TIMEOUT_S)
    until(lambda: b"not attached (epoch 1)" in shown(), "the nodes have seen that the holder is gone")
    done = cluster.run(*bench, "--attach", check=True)
    assert json.loads(done.stdout)["attached"] and json.loads(done.stdout)["writes"]["count"]
    assert cluster.run(*write, data=b"y" * 4096).returncode == 0
    assert cluster.status()[1]["epoch"] == 2
    both = cluster.run(*bench, "--attach", "--force")
    assert both.returncode == EXIT_CONFIG


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_node_drains_on_a_signal(tmp_path: Path, dsreg: list[str], number: signal.Signals) -> None:
    port = free_port()
    subprocess.run([*dsreg, "init", str(tmp_path / "c"), "--nodes", "1", "--base-port", str(port)], check=True,
                   timeout=TIMEOUT_S)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(str(tmp_path / "notify"))
        notify.settimeout(TIMEOUT_S)
        node = subprocess.Popen([*dsreg, "node", "--config", str(tmp_path / "c" / "cluster.toml"), "--rank", "1"],
                                stderr=subprocess.PIPE, env={**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify")})
        try:
            assert notify.recv(100) == b"READY=1"
            node.send_signal(number)
            assert notify.recv(100) == b"STOPPING=1"
            _, errors = node.communicate(timeout=TIMEOUT_S)
            assert node.returncode == 0 and errors == b""
        finally:
            node.kill()



def test_two_nodes_in_one_directory(cluster: Cluster) -> None:
    port = free_port()
    copy = cluster.path.with_name("copy.toml")
    copy.write_text(re.sub(r'(rank = 1\naddress = )"[^"]+"', rf'\1"127.0.0.1:{port}"', cluster.path.read_text()))
    done = cluster.run("node", "--config", copy, "--rank", 1, "--storage", cluster.path.parent / "node-1")
    assert done.returncode == EXIT_FAILED and done.stderr.count(b"\n") == 1
    assert str(cluster.path.parent / "node-1").encode() in done.stderr
