"""`dsreg recover` after members were changed: the new cluster has the nodes that were known last."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import pytest
import trio

from dsreg.config import load_config
from tests.processes.cluster import Cluster, healed, until
from tests.processes.history import stamp
from tests.processes.raw import RawClient
from tests.processes.test_members import Grown, finish, reads, run_command, written
from tests.processes.test_members_change import SLOWLY, run_healed
from tests.processes.test_recover import ACCEPTED, files_of, lose, recover

pytestmark = pytest.mark.allow_logs("has another client key")


def added(cluster: Cluster, count: int = 2) -> Grown:
    """That many nodes more are members, and all have all data."""
    written(cluster)
    for rank in cluster.ranks:  # with the rank of each in a tag, also of those that leave later
        with RawClient(cluster.address(rank), cluster.config.client_key) as client:
            client.write(1024 + rank, stamp(rank))
    grown = Grown(cluster, count)
    process = grown.add()
    grown.start(*range(4, 4 + count))
    finish(process)
    run_healed(cluster.path)
    return grown


def known_by_all(grown: Grown, number: int, *ranks: int) -> None:
    """Who is stopped now knows it."""
    grown.all_know(number, *ranks)


def all_have_it(cluster: Cluster, *down: int) -> None:
    """All nodes have learned everything, and serve it also without `down`."""
    healed(cluster)
    cluster.kill(*down)
    trio.run(reads, cluster.path)


def test_two_of_five_are_left_of_which_one_was_added(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster()
    known_by_all(added(cluster), 3, 1, 2, 3, 4, 5)
    cluster.kill()
    before = files_of(cluster)
    assert "are a majority: nothing is lost" in recover(cluster, "--from", "5,3,1", ACCEPTED, code=2)
    assert files_of(cluster) == before
    lose(cluster, 1, 2, 4)
    said = recover(cluster, "--from", "5,3", ACCEPTED)
    assert "What only the nodes 1, 2, 4 have acknowledged" in said
    assert "Node 5 knows configuration 3: nodes 1 2 3 4 5.\n    The new cluster has the nodes 1 2 3 4 5.\n" in said
    assert "what only those have acknowledged is lost as well" in said
    text = cluster.path.read_text()
    assert "nodes = [1, 2, 3, 4, 5]" in text and "first_nodes" not in text and "the nodes 1 to 3" not in text
    recover(cluster, "--rank", 3, ACCEPTED)
    cluster.start()
    all_have_it(cluster, 5, 3)


def test_ranks_with_gaps_by_an_old_file(make_cluster: Callable[..., Cluster]) -> None:
    """On the host that is left is the file that the node began with, and one that it has joined with. The new cluster
    goes on like any other: nodes are added to it, and what was left is removed."""
    cluster = make_cluster()
    grown = added(cluster)
    joined_with = cluster.directory / "joined.toml"
    shutil.copy(cluster.path, joined_with)
    run_command("remove", grown.file, "--rank", "2", "--rank", "3")
    known_by_all(grown, 5, 1, 3, 4, 5)
    cluster.kill()
    shutil.copy(joined_with, cluster.path)
    cluster.ranks = (1, 4, 5)
    lose(cluster, 1, 4)
    said = recover(cluster, "--from", 3, ACCEPTED, code=2)
    assert "rank 3: it has left the cluster, and lacks what was written since: configuration 5, the latest" in said
    said = recover(cluster, "--from", 5, ACCEPTED)
    assert "The new cluster has the nodes 1 4 5." in said
    assert cluster.config.ranks == cluster.config.first_ranks == (1, 4, 5)
    cluster.start()
    all_have_it(cluster, 5)
    cluster.start(5)
    grown = Grown(cluster, 1)
    process = grown.add()
    grown.start(6)
    assert "configuration 3: nodes 1 4 5 6" in finish(process)
    run_command("remove", grown.file, "--rank", "5")
    cluster.kill(5)
    assert load_config(cluster.path).ranks == (1, 4, 6)
    cluster.kill(1)
    cluster.start(1)  # by a file that does not list what was left any more
    trio.run(reads, cluster.path)


def joint(cluster: Cluster) -> None:
    """1 2 3 are being changed to 1 2 3 4 5, all know that, and all are stopped."""
    written(cluster)
    healed(cluster)  # one node alone is left in the end
    grown = Grown(cluster)
    cluster.kill(3)
    process = grown.add("--force")
    grown.start(4, 5, options=SLOWLY)
    until(lambda: grown.configuration(1)["number"] == 2, "the joint configuration is in force")
    process.kill()
    process.wait()
    cluster.start(3)
    known_by_all(grown, 2, 1, 2, 3, 4, 5)
    cluster.kill()


@pytest.mark.parametrize(("left", "members", "why"), [
    ("3", (1, 2, 3, 4, 5), "to which they were being changed"),
    ("3,4,5", (1, 2, 3, 4, 5), "to which they were being changed"),
])
def test_while_two_sets_were_joint(
    make_cluster: Callable[..., Cluster], left: str, members: tuple[int, ...], why: str
) -> None:
    cluster = make_cluster()
    joint(cluster)
    ranks = [*map(int, left.split(","))]
    lose(cluster, *(set(cluster.ranks) - set(ranks)))
    said = recover(cluster, "--from", left, ACCEPTED)
    assert "knows configuration 2: nodes 1 2 3 together with 1 2 3 4 5" in said and why in said
    for rank in ranks[1:]:
        recover(cluster, "--rank", rank, ACCEPTED)
    assert cluster.config.first_ranks == members
    cluster.start()
    all_have_it(cluster, ranks[0])


def test_a_node_that_never_became_a_member_has_nothing_to_give(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster()
    written(cluster)
    grown = Grown(cluster, 1)
    process = grown.add()
    grown.start(4)
    process.kill()
    process.wait()
    cluster.kill()
    lose(cluster, 1, 2)
    before = files_of(cluster)
    said = recover(cluster, "--from", 4, ACCEPTED, code=1)
    assert files_of(cluster) == before and "never become a member" in said
