"""Keys are changed while clients of every kind are at work: docs/keys.md."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dsreg.client import Attach, BlockingClient
from dsreg.config import load_config
from dsreg.config.keys import Step, fingerprint, read_keys
from dsreg.errors import ClientError
from tests.processes.cluster import ROOT, TIMEOUT_S, Cluster, dsreg, healed, until
from tests.processes.raw import AUTH, READ_ANSWER, RawClient, Response, read_frame

KEY_SIZES = {"client.key": 32, "system.key": 64}


@contextlib.contextmanager
def rotating(cluster: Cluster, *options: object) -> Iterator[subprocess.Popen[str]]:
    """The command, which is killed if it has not ended."""
    command = [sys.executable, "-P", "-m", "dsreg", "keys", "rotate", cluster.path, *options]
    with subprocess.Popen(
        [*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def steps(cluster: Cluster) -> list[Step]:
    return [read_keys(cluster.directory / name, size).step for name, size in KEY_SIZES.items()]


class Writer:
    """A client that writes one sector again and again, in a thread, until the end of the block."""

    def __init__(self, cluster: Cluster, sector: int, attach: Attach | None) -> None:
        self.written = 0
        self.faults: list[Exception] = []
        self._cluster, self._sector, self._attach = cluster, sector, attach
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            with BlockingClient(self._cluster.config, TIMEOUT_S, attach=self._attach) as client:
                while not self._stop.is_set():
                    data = (self.written + 1).to_bytes(8) * 512
                    client.write(self._sector, data)
                    self.written += 1
                    assert client.read(self._sector, 1) == data
        except (ClientError, AssertionError) as error:  # `__exit__` tells it
            self.faults.append(error)

    def __enter__(self) -> Writer:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join(TIMEOUT_S)
        assert not self.faults and not self._thread.is_alive(), self.faults


@pytest.mark.slow
def test_both_keys_are_changed_under_load_and_the_old_ones_are_useless(cluster: Cluster) -> None:
    old = cluster.config
    with RawClient(cluster.address(1), old.client_key) as late, Writer(cluster, 8, Attach(name="host a")) as writer:
        late.read(0)
        with rotating(cluster, "--timeout", 60, "--quiet-for", 2) as command:
            until(lambda: steps(cluster) == [Step.PREVIOUS] * 2, "the new keys are used")
            late.read(0)  # under the old one: a client of the contract notices nothing
            until(lambda: others(cluster, 1, is_node=False) == {fingerprint(old.client_key)}, "it is named")
            late.key = load_config(cluster.path).client_key
            late.read(0)  # under the new one, on the same connection
            before = writer.written
            assert command.wait(TIMEOUT_S) == 0, command.stdout and command.stdout.read()
        until(lambda: writer.written > before + 3, "the client that has the disk attached goes on")
    assert steps(cluster) == [Step.ONE] * 2
    new = cluster.config = load_config(cluster.path)
    assert new.client_key != old.client_key and new.system_key != old.system_key
    assert new.cluster_id == old.cluster_id
    for rank in cluster.ranks:
        with RawClient(cluster.address(rank), new.client_key) as stranger:
            stranger.send(read_frame(old.client_key, 1, 0))
            assert stranger.response() == Response(AUTH, READ_ANSWER, 1, b"")
        until(lambda rank=rank: set(cluster.report(rank)["peers"].values()) == {"sealed"}, f"links of {rank}")
        assert cluster.report(rank)["keys"]["system"]["accepts"] == [fingerprint(new.system_key)]
    cluster.kill()  # the directories are of the cluster that has the new keys
    cluster.start()
    with BlockingClient(new, TIMEOUT_S) as client:
        assert client.read(8, 1) == writer.written.to_bytes(8) * 512


def others(cluster: Cluster, rank: int, *, is_node: bool) -> set[str]:
    """The keys of parties that are connected to the node and use another one than it."""
    cluster.config = load_config(cluster.path)
    told = cluster.report(rank)["keys"]["others"]
    return {other["key"] for other in told if other["node"] == is_node and other["connected"]}


def says_that_keys_change(cluster: Cluster) -> bool:
    health = dsreg("health", "--json", cluster.path)
    return health.returncode == 1 and "the key of the nodes is being changed" in health.stdout


@pytest.mark.slow
def test_a_command_that_is_killed_after_each_step_goes_on_where_it_was(cluster: Cluster) -> None:
    old = cluster.config
    for _ in range(3):
        before = (cluster.directory / "system.key").read_bytes()
        with rotating(cluster, "--quiet-for", 1):
            until(lambda before=before: (cluster.directory / "system.key").read_bytes() != before, "a step is done")
        if steps(cluster)[1] is not Step.ONE:
            until(lambda: says_that_keys_change(cluster), "health says so, as soon as a node has read its files again")
    done = dsreg("keys", "rotate", cluster.path)
    assert done.returncode == 0, done
    new = load_config(cluster.path)
    assert steps(cluster) == [Step.ONE] * 2 and new.cluster_id == old.cluster_id
    assert new.client_key != old.client_key and new.system_key != old.system_key


@pytest.mark.slow
def test_who_still_uses_the_old_key_keeps_it_from_being_dropped(cluster: Cluster) -> None:
    with RawClient(cluster.address(2), cluster.config.client_key) as late:
        late.read(0)
        held = dsreg("keys", "rotate", cluster.path, "--client", "--timeout", 4, "--quiet-for", 1)
        assert held.returncode == 1 and "a client that uses the old key" in held.stderr, held
        assert str(late.sock.getsockname()[1]) in held.stderr and steps(cluster) == [Step.PREVIOUS, Step.ONE]
        late.read(0)
        done = dsreg("keys", "rotate", cluster.path, "--client", "--drop", "--timeout", 20)
        assert done.returncode == 0, done
        late.send(late.read_frame(9, 0))
        late.key = load_config(cluster.path).client_key
        assert late.response() == Response(AUTH, READ_ANSWER, 9, b"")


@pytest.mark.slow
def test_a_node_that_is_down_meanwhile_takes_the_new_files_when_it_starts(cluster: Cluster) -> None:
    cluster.terminate(3)
    held = dsreg("keys", "rotate", cluster.path, "--timeout", 1)
    assert held.returncode == 1 and "--without 3" in held.stderr, held
    done = dsreg("keys", "rotate", cluster.path, "--without", 3, "--quiet-for", 1)
    assert done.returncode == 0, done
    cluster.config = load_config(cluster.path)
    cluster.start(3)
    healed(cluster)
    assert set(cluster.report(3)["peers"].values()) == {"sealed"}
    assert json.loads(dsreg("health", "--json", cluster.path).stdout)["checks"]["keys_changing"] == ""


@pytest.mark.slow
def test_a_file_that_is_not_as_it_must_be_changes_nothing(cluster: Cluster) -> None:
    file = Path(cluster.directory / "client.key")
    before = file.read_bytes()
    file.write_bytes(b"not a key\n")
    until(lambda: "the keys stay as they were" in cluster.log(1).read_text(), "it is said")
    file.write_bytes(before)
    with BlockingClient(cluster.config, TIMEOUT_S) as client:
        client.write(0, bytes(4096))
