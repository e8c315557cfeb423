"""`dsreg up` sees all directories: one that is gone rejoins by itself, and of three two are too many."""

from __future__ import annotations

import os
import shutil
import signal

from tests.cli.test_real_cluster import TIMEOUT_S, Cluster, cluster

__all__ = ["cluster"]  # a fixture


def test_a_node_whose_directory_is_deleted_rejoins_by_itself_and_two_are_too_many(cluster: Cluster) -> None:
    cluster.begun()
    assert cluster.run("write", 0, "--config", cluster.path, data=b"\x01" * 4096).returncode == 0
    shutil.rmtree(cluster.path.parent / "node-2")
    os.kill(cluster.node_pids()[2], signal.SIGKILL)
    cluster.wait_for(b"node-2 dsreg.node: rejoins with")
    assert cluster.run("wait", cluster.path, "--healed", "--timeout", TIMEOUT_S).returncode == 0
    nodes = cluster.status()[1]["nodes"]
    assert [node["lives"]["life"] for node in nodes] == [1, 2, 1] and nodes[1]["lives"]["stage"] == "started"
    os.kill(cluster.node_pids()[1], signal.SIGKILL)
    assert cluster.run("read", 0, "--config", cluster.path).stdout == b"\x01" * 4096
    cluster.stop()
    for rank in (1, 3):
        shutil.rmtree(cluster.path.parent / f"node-{rank}")
    done = cluster.run("up", cluster.path)
    assert done.returncode == 1 and b"the directories of node 1 and node 3 are gone" in done.stderr
    assert not (cluster.path.parent / "node-1").exists(), "nothing was started"
