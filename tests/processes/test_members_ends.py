"""Ends of `dsreg members` that are rare: a command that was killed at its worst moment, a file that cannot be written,
an address that was in use before."""

from __future__ import annotations

import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable

import pytest
import trio

from dsreg.client import Client
from dsreg.config import load_config
from dsreg.protocol.choosing import Ask, Elect, Promised, Voted
from dsreg.protocol.configuration import Ballot, Configuration
from dsreg.register.quorum import mask
from tests.processes.cluster import ROOT, TIMEOUT_S, Cluster, until
from tests.processes.test_lives import spawn
from tests.processes.test_members import Grown, finish, reads, run_command, written

OLD = mask((1, 2, 3))


def interrupted(make_cluster: Callable[..., Cluster], *new: int, starts: bool) -> Grown:
    """The command that adds these has written the file, a majority has voted for the joint configuration, and it was
    killed before it told anybody. `starts`: the new nodes run."""
    cluster = make_cluster()
    written(cluster)
    grown = Grown(cluster, len(new))
    process = grown.add()
    process.kill()
    process.wait()
    if starts:
        grown.start(*new)

    async def vote() -> None:
        async with Client(cluster.only(1)) as client:
            await client.read(0)
            assert client.configuration is not None
            first = client.configuration
        joint = Configuration(2, first.sectors, OLD, OLD | mask(new), OLD | mask(new))
        ballot = Ballot(1, b"k" * 16)
        for rank in (1, 2):
            async with Client(cluster.only(rank)) as client:
                assert isinstance(await client.propose(rank, Ask(first, ballot), TIMEOUT_S), Promised)
                assert isinstance(await client.propose(rank, Elect(first, ballot, joint), TIMEOUT_S), Voted)

    trio.run(vote)
    assert grown.configuration(1)["number"] == 1, "nobody was told"
    return grown


@pytest.mark.parametrize("arguments", [["cancel"], ["remove", "--rank", "4", "--rank", "5"]])
def test_what_was_voted_for_is_not_taken_for_nothing(
    make_cluster: Callable[..., Cluster], arguments: list[str]
) -> None:
    """Nodes 4 and 5 may be members: who takes them out of the file as strangers hides those that decide."""
    grown = interrupted(make_cluster, 4, 5, starts=True)
    command, *options = arguments
    if command == "remove":
        said = run_command(command, grown.file, *options, code=1)
        assert "nothing is changed: the nodes are being changed from 1 2 3 to 1 2 3 4 5" in said
        assert load_config(grown.cluster.path).ranks == (1, 2, 3, 4, 5)
    else:
        said = run_command(command, grown.file)
        assert "configuration 3: nodes 1 2 3\n" in said
        assert load_config(grown.cluster.path).ranks == (1, 2, 3)
    assert "configuration 2: nodes 1 2 3 together with 1 2 3 4 5, which an earlier command has begun" in said
    trio.run(reads, grown.cluster.path)


def test_nor_is_it_finished_where_the_disk_would_stop(make_cluster: Callable[..., Cluster]) -> None:
    grown = interrupted(make_cluster, 4, 5, 6, starts=False)
    before = grown.cluster.path.read_bytes()
    said = run_command("cancel", grown.file, code=1)
    assert "some have voted for configuration 2, nodes 1 2 3 together with 1 2 3 4 5 6, which an earlier" in said
    assert ("dsreg: of nodes 1 2 3 4 5 6 only 1 2 3 answer and serve, and 4 are needed: the disk would stop at once. "
            "Start 1 of nodes 4 5 6\n") in said
    assert grown.cluster.path.read_bytes() == before and grown.configuration(1)["number"] == 1
    grown.start(5)
    assert "configuration 3: nodes 1 2 3\n" in run_command("cancel", grown.file)


def test_the_change_is_made_and_the_file_cannot_be_written(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster(nodes=4)
    written(cluster)
    before = cluster.path.read_bytes()
    command = [sys.executable, "-P", "-m", "dsreg", "members", "remove", str(cluster.path), "--rank", "4"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={"PYTHONPATH": str(ROOT)},
                          preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)))
    assert done.returncode == 1, done
    assert "done: configuration 3, nodes 1 2 3.\nstop what still runs of node 4 for good" in done.stdout
    assert done.stderr.endswith(
        "dsreg: the change is made, and only the file is as before\n"
        f"dsreg: {cluster.path}: cannot be written: File too large\n"
        f"dsreg: take the [[node]] of rank 4 out of {cluster.path} yourself, and write first_nodes = 4 into "
        "[cluster]\n")
    assert cluster.path.read_bytes() == before
    text = before.decode().replace("[cluster]\n", "[cluster]\nfirst_nodes = 4\n")
    cluster.path.write_text(re.sub(r"\[\[node\]\]\nrank = 4\n[^\[]*", "", text))
    assert load_config(cluster.path).ranks == (1, 2, 3)
    trio.run(reads, cluster.path)


def test_a_node_is_added_where_another_one_was_by_a_file_of_before(make_cluster: Callable[..., Cluster]) -> None:
    """Its machine is used again. And the node that has left, with an empty directory, is not told to rejoin."""
    cluster = make_cluster()
    written(cluster)
    old = cluster.directory / "old.toml"
    shutil.copy(cluster.path, old)
    address = cluster.config.node(3).address
    said = run_command("remove", str(cluster.path), "--rank", "3")
    assert said.index("2 nodes survive the loss of 0") < said.index("configuration 2"), "before anything is changed"
    cluster.kill(3)
    shutil.rmtree(cluster.storage(3))
    cluster.files[3] = old
    spawn(cluster, 3)
    assert cluster.processes.pop(3).wait(TIMEOUT_S) == 1
    log = cluster.log(3).read_text()
    assert "rank 3 has left the cluster, and is never used again" in log and "--rejoin" not in log
    shutil.copy(old, cluster.path)
    grown = Grown(cluster, 1)
    grown.addresses = [address]
    process = grown.add()
    until(lambda: load_config(cluster.path).ranks == (1, 2, 4), "the file lists it in place of the one that has left")
    grown.reload()
    assert cluster.config.node(4).address == address
    grown.start(4)
    assert "configuration 5: nodes 1 2 4\n" in finish(process)
    cluster.kill(1)
    trio.run(reads, cluster.path)
