"""The runbook's steps after a majority of the directories is lost, typed as they stand, on hosts of their own: network
namespaces, each with its own /etc/dsreg and /var/lib. Before that members were changed, so that the ranks have gaps."""

from __future__ import annotations

import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.chaos.namespaces import Network, why_no_namespaces
from tests.processes.cluster import POLL_S, TIMEOUT_S
from tests.processes.test_members import finish
from tests.shell_blocks import shell_blocks

ROOT = Path(__file__).resolve().parents[2]
RUNBOOK = ROOT / "deploy" / "runbook.md"
FILE = "/etc/dsreg/cluster.toml"
FILES = ("cluster.toml", "client.key", "system.key")
# A whole command, on a busy machine.
COMMAND_S = 120.0

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(why_no_namespaces() is not None, reason=str(why_no_namespaces())),
]

# A host's own directories lie over those of the machine; it says that it is up, and stays until its input ends.
BOOT = """
set -e
mkdir -p etc etc-work lib lib-work
mount -t overlay overlay -o lowerdir=/etc,upperdir=etc,workdir=etc-work /etc
mount -t overlay overlay -o lowerdir=/var/lib,upperdir=lib,workdir=lib-work /var/lib
mkdir -p /etc/dsreg /var/lib/dsreg
echo up
read -r _ || true
"""


class Host:
    """The host `name` of the network; what it has written is in `directory`."""

    def __init__(self, network: Network, name: str, directory: Path, stack: ExitStack) -> None:
        self.address = network.addresses[name]
        self.directory = directory
        directory.mkdir()
        self._nodes: dict[int, subprocess.Popen[bytes]] = {}
        with network.inside(name):
            self._shell = subprocess.Popen(
                ["unshare", "--mount", "bash", "-c", BOOT], cwd=directory, stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, text=True)
        stack.callback(self._end)
        assert self._shell.stdout is not None
        ready, _, _ = select.select([self._shell.stdout], [], [], TIMEOUT_S)
        assert ready and self._shell.stdout.readline() == "up\n"

    def _end(self) -> None:
        for rank in list(self._nodes):
            self.stop(rank)
        self._shell.communicate("\n", timeout=TIMEOUT_S)

    def _command(self, line: str) -> list[str]:
        words = re.sub(r"^dsreg\b", f"{sys.executable} -P -m dsreg", line)
        return ["nsenter", "-t", str(self._shell.pid), "-m", "-n", "bash", "-c", f"exec {words}"]

    def begin(self, line: str) -> subprocess.Popen[str]:
        """Type this command."""
        return subprocess.Popen(self._command(line), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})

    def type(self, line: str, code: int = 0) -> str:
        return finish(self.begin(line), code)

    def start(self, rank: int, *options: str) -> None:
        """The unit of the node."""
        line = f"dsreg node --config {FILE} --rank {rank} --storage /var/lib/dsreg/node-{rank} {' '.join(options)}"
        with open(self.directory / "log", "ab") as log:
            self._nodes[rank] = subprocess.Popen(
                self._command(line), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env={**os.environ, "PYTHONPATH": str(ROOT)})

    def stop(self, rank: int) -> None:
        node = self._nodes.pop(rank)
        node.terminate()
        node.wait(TIMEOUT_S)

    def loses_its_disk(self) -> None:
        for rank in list(self._nodes):
            self.stop(rank)
        self.type("rm -rf /var/lib/dsreg")

    def copy_to(self, other: Host) -> None:
        """The file and the keys."""
        for name in FILES:
            other.type(f"cp -p {self.directory}/etc/dsreg/{name} /etc/dsreg/{name}")


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[dict[str, Host]]:
    with Network(("one", "two", "three", "four")) as network, ExitStack() as stack:
        yield {name: Host(network, name, tmp_path / name, stack) for name in network.addresses}


def until_said(host: Host, line: str) -> None:
    """The command succeeds."""
    deadline = time.monotonic() + COMMAND_S
    while (process := host.begin(line)).wait(COMMAND_S) != 0:
        assert time.monotonic() < deadline, process.communicate()[0]
        time.sleep(POLL_S)


def of_the_runbook(pattern: str) -> str:
    found = re.search(pattern, RUNBOOK.read_text())
    assert found is not None, f"the runbook has no {pattern}"
    return found[0]


def test_the_steps_of_the_runbook_after_members_were_changed(hosts: dict[str, Host]) -> None:
    one, two, three, four = hosts.values()
    init = of_the_runbook(r"dsreg init /etc/dsreg --nodes 3 [^\n]*").replace("100GiB", "16MiB")
    one.type(init)
    for host in (two, three):
        one.copy_to(host)
    for rank, host in enumerate((one, two, three), 1):
        host.start(rank)
    until_said(one, f"dsreg health {FILE}")
    adding = one.begin(of_the_runbook(r"dsreg members add \S+ --address HOST:PORT").replace("HOST", four.address)
                       .replace("PORT", "7001"))
    while four.address not in (one.directory / "etc/dsreg/cluster.toml").read_text():
        assert adding.poll() is None, adding.communicate()[0]
        time.sleep(POLL_S)
    one.copy_to(four)
    four.start(4, "--join")
    finish(adding)
    one.type(of_the_runbook(r"dsreg members remove \S+ --rank R").replace("R", "2"))
    two.stop(2)
    one.type(f"head -c 65536 /dev/urandom > {one.directory}/content")
    one.type(f"dsreg write --config {FILE} 3 < {one.directory}/content")
    wait = of_the_runbook(r"dsreg wait --healed /etc/dsreg/cluster.toml")
    one.type(f"{wait} --timeout {COMMAND_S:g}")

    for host in (one, three):
        host.loses_its_disk()
    four.stop(4)
    (see,) = (block.strip() for block in shell_blocks(RUNBOOK, "A majority of the directories is lost"))
    recover = see.replace("--from R", "--from 4").replace("node-R", "node-4")
    said = four.type(recover, code=2)
    assert "Node 4 knows configuration 5: nodes 1 3 4.\n    The new cluster has the nodes 1 3 4.\n" in said
    assert "Nothing was changed" in said
    four.type(f"{recover} --i-accept-data-loss")
    for host in (one, two, three):
        four.copy_to(host)
    for rank, host in ((1, one), (3, three), (4, four)):
        host.start(rank)
    three.type(f"{wait} --timeout {COMMAND_S:g}")
    four.stop(4)
    three.type(f"dsreg read --config {FILE} 3 16 > {one.directory}/read")
    assert (one.directory / "read").read_bytes() == (one.directory / "content").read_bytes()
    assert "2 of 3 nodes answer, 2 are needed" in two.type(f"dsreg status {FILE}")  # a host that is a client now
    for host in hosts.values():
        if (host.directory / "log").exists():
            assert "Traceback" not in (host.directory / "log").read_text()
