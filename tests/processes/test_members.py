"""What `dsreg members` refuses, and does to the file: docs/configurations.md."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import trio

from dsreg.cli.faults import EXIT_CONFIG, EXIT_NO_QUORUM
from dsreg.client import Client
from dsreg.config import format_address, load_config
from dsreg.constants import SECTOR_SIZE
from tests.processes.cluster import ROOT, TIMEOUT_S, Cluster, dsreg, free_addresses, until
from tests.processes.contract_node import ContractNode, until_known
from tests.processes.history import stamp
from tests.processes.test_lives import all_know_all

# For what takes long on a machine with much to do besides.
LONG_S = 4 * TIMEOUT_S
# Of several chunks: one is fetched at once, whatever the rate.
CONTENT = b"".join(stamp(number) for number in range(1024))


def start_command(*arguments: str, verb: str = "members") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "dsreg", verb, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, env={"PYTHONPATH": str(ROOT)},
    )


def run_command(*arguments: str, code: int = 0, verb: str = "members") -> str:
    process = start_command(*arguments, verb=verb)
    try:
        said = process.communicate(timeout=LONG_S)[0]
    finally:
        process.kill()
    assert process.returncode == code, said
    return said


class Grown:
    """A cluster that gets new nodes, at addresses of their own."""

    def __init__(self, cluster: Cluster, count: int = 2) -> None:
        self.cluster = cluster
        self.addresses = [format_address(*address) for address in free_addresses(count)]

    @property
    def file(self) -> str:
        return str(self.cluster.path)

    def add(self, *more: str) -> subprocess.Popen[str]:
        """The command begins, and has written the file."""
        options = [text for address in self.addresses for text in ("--address", address)]
        process = start_command("add", self.file, *options, *more)
        until(lambda: process.poll() is not None or self._are_listed(), "the file lists the new nodes")
        self.reload()
        return process

    def _are_listed(self) -> bool:
        return all(address in self.cluster.path.read_text() for address in self.addresses)

    def reload(self) -> None:
        self.cluster.config = load_config(self.cluster.path)
        self.cluster.ranks = tuple(sorted({*self.cluster.ranks, *self.cluster.config.ranks}))

    def start(self, *ranks: int, options: Sequence[str] = ()) -> None:
        self.cluster.start(*ranks, options=("--join", *options))

    def configuration(self, rank: int) -> dict[str, Any]:
        told = self.cluster.report(rank)["configuration"]
        assert isinstance(told, dict)
        return told

    def all_know(self, number: int, *ranks: int) -> None:
        until(lambda: all(self.configuration(rank)["number"] == number for rank in ranks), f"all know {number}")


def finish(process: subprocess.Popen[str], code: int = 0) -> str:
    try:
        said = process.communicate(timeout=LONG_S)[0]
    finally:
        process.kill()
    assert process.returncode == code, said
    return said


def written(cluster: Cluster) -> None:
    """All run, and there is CONTENT in the disk."""
    cluster.start()
    all_know_all(cluster)

    async def write() -> None:
        async with Client(cluster.config) as client:
            await client.write(0, CONTENT)

    trio.run(write)


async def reads(path: Path) -> None:
    async with Client(load_config(path), timeout_s=TIMEOUT_S) as client:
        assert await client.read(0, len(CONTENT) // SECTOR_SIZE) == CONTENT


# --- what is refused ------------------------------------------------------------------------------
def test_no_node_is_added_to_one_of_the_contract(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster()
    with ExitStack() as stack:
        peer = ContractNode(
            3, cluster.address(3), cluster.address(1), cluster.config.system_key, client_key=cluster.config.client_key
        )
        stack.callback(peer.join)
        stack.callback(cluster.kill)
        stack.callback(peer.close)
        cluster.start(1, 2)
        before = cluster.path.read_bytes()
        until_known(cluster, 3)
        for command, *options in (["add", "--address", "127.0.0.9:1"], ["remove", "--rank", "3"]):
            said = run_command(command, str(cluster.path), *options, "--force", code=1)
            assert "node 3 speaks the contract alone" in said
        assert cluster.path.read_bytes() == before


def test_a_member_that_is_down_is_in_the_way(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster()
    cluster.start(1, 2)
    before = cluster.path.read_bytes()
    said = run_command("add", str(cluster.path), "--address", "127.0.0.9:1", code=1)
    assert "nothing is changed: node 3 does not answer: connection refused" in said and "give --force" in said
    assert "nothing is changed: node 3 does not" in run_command("remove", str(cluster.path), "--rank", "1", code=1)
    assert cluster.path.read_bytes() == before


@pytest.mark.parametrize(("arguments", "expected", "code"), [
    (["add", "--address", "0.0.0.0:1"], "nobody can connect to it", 2),
    (["add", "--address", "127.0.0.9:1", "--address", "127.0.0.9:1"], "is given twice", 2),
    (["remove", "--rank", "7"], "there is no node 7", 1),
    (["remove", "--rank", "1", "--rank", "2", "--rank", "3"], "no node would be left", 1),
])
def test_what_makes_no_sense_is_refused(shared: Cluster, arguments: list[str], expected: str, code: int) -> None:
    command, *options = arguments
    before = shared.path.read_bytes()
    assert expected in run_command(command, str(shared.path), *options, code=code)
    assert shared.path.read_bytes() == before


@pytest.mark.parametrize("arguments", [["cancel"], ["remove", "--rank", "4", "--rank", "5"]])
def test_nodes_that_never_became_members_are_taken_out_of_the_file(
    make_cluster: Callable[..., Cluster], arguments: list[str]
) -> None:
    """The command that added them gave up while it waited for them."""
    cluster = make_cluster()
    written(cluster)
    grown = Grown(cluster)
    assert re.search(r"not done within 3 s\. Nothing is changed: waiting for node 4 \(.*\): connection refused; "
                     r"node 5 \(.*\): connection refused\. Give the same command again to go on, or take it back: "
                     "dsreg members cancel ", finish(grown.add("--timeout", "3"), code=1))
    assert cluster.config.ranks == (1, 2, 3, 4, 5)
    command, *options = arguments
    before = cluster.path.read_bytes()
    cluster.kill(2, 3)
    said = run_command(command, grown.file, *options, code=1)
    assert "nothing is changed: too few nodes answer to say whether node 4 is a member" in said
    assert cluster.path.read_bytes() == before
    cluster.start(2, 3)
    said = run_command(command, grown.file, *options)
    for rank, address in zip((4, 5), grown.addresses, strict=True):
        assert f"taken out of {cluster.path}: node {rank} ({address}): it never became a member\n" in said
    assert load_config(cluster.path).ranks == (1, 2, 3) and grown.configuration(1)["number"] == 1
    trio.run(reads, cluster.path)


def test_a_node_that_never_was_a_member_is_not_verified_and_is_removed(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster()
    written(cluster)
    grown = Grown(cluster, 1)
    process = grown.add()
    process.kill()
    process.communicate()
    verified = dsreg("scrub", grown.file)
    assert verified.returncode == 0 and verified.stderr == "" and "node 4" not in verified.stdout
    verified = dsreg("scrub", grown.file, "--rank", "4")
    assert verified.returncode == 1
    assert verified.stderr == "node 4: not verified: it is no member of the cluster (configuration 1: nodes 1 2 3)\n"
    said = run_command("remove", grown.file, "--rank", "3", "--rank", "4")
    assert "it never became a member" in said and "configuration 3: nodes 1 2\n" in said
    assert load_config(cluster.path).ranks == (1, 2)
    trio.run(reads, cluster.path)


def test_without_nodes_there_is_nobody_to_ask(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster()
    said = run_command("remove", str(cluster.path), "--rank", "3", code=EXIT_NO_QUORUM)
    assert "nothing is changed: no node answers" in said and "node 1: connection refused" in said


def test_the_key_of_another_cluster_is_a_fault_of_the_configuration(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster()
    cluster.start()
    cluster.path.with_name("client.key").write_text("5a" * 32 + "\n")
    for command, *options in (["remove", "--rank", "3"], ["add", "--address", "127.0.0.9:1"], ["cancel"]):
        assert run_command(command, str(cluster.path), *options, code=EXIT_CONFIG) == (
            "dsreg: no node accepts the client key: client_key_file belongs to another cluster; copy it from a host of "
            "this one\n")


def test_a_set_that_would_not_decide_is_not_proposed_whatever_is_forced(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster(nodes=4)
    written(cluster)
    cluster.kill(4)
    before = cluster.path.read_bytes()
    said = run_command("remove", str(cluster.path), "--rank", "2", "--rank", "3", "--force", code=1)
    assert ("dsreg: nothing is changed: of nodes 1 4 only 1 answers and serves, and 2 are needed: the disk would stop "
            "at once. Start node 4\n") in said and "give --force" not in said
    assert cluster.path.read_bytes() == before and cluster.report(1)["configuration"]["number"] == 1
    trio.run(reads, cluster.path)
    assert "configuration 3: nodes 1 2 4" in run_command("remove", str(cluster.path), "--rank", "3", "--force")
    trio.run(reads, cluster.path)
