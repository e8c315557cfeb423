"""The supervisor, on real child processes that are as small as a child can be."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest
import trio

import dsreg
from dsreg import supervisor
from dsreg.config import ClusterConfig, NodeAddress
from dsreg.config.recovered import Recovered
from dsreg.constants import MIN_JOURNAL_BYTES
from dsreg.errors import ConfigError, StartFailed
from dsreg.protocol.life import Life
from dsreg.storage import Identity, OsFiles, StableStorage
from dsreg.supervisor import NodeProcess, check_directories, node_command, supervise

# Says that it listens, then waits for SIGTERM, which it reports before it exits.
CHILD = """
import os, signal, socket, sys
def stop(number, frame):
    print("stopping", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
print("child", sys.argv[1], flush=True)
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
    s.sendto(b"READY=1", chr(0) + os.environ["NOTIFY_SOCKET"][1:])
while True:
    signal.pause()
"""
DEAF = CHILD.replace("signal.signal(signal.SIGTERM, stop)", "signal.signal(signal.SIGTERM, signal.SIG_IGN)")


class Log:
    """What was logged, and a way to wait for it."""

    def __init__(self) -> None:
        self.lines: list[tuple[int, str]] = []
        self._changed = trio.Event()

    def __call__(self, rank: int, line: str) -> None:
        self.lines.append((rank, line))
        self._changed.set()
        self._changed = trio.Event()

    async def wait_for(self, rank: int, part: str, times: int = 1) -> None:
        with trio.fail_after(20):
            while sum(rank == r and part in line for r, line in self.lines) < times:
                await self._changed.wait()


def cluster(directory: Path, nodes: int) -> ClusterConfig:
    addresses = tuple(NodeAddress(r, "127.0.0.1", 7000 + r, directory / f"node-{r}") for r in range(1, nodes + 1))
    return ClusterConfig(8, bytes(32), bytes(64), addresses, bytes(16), directory / "cluster.toml")


def python(script: str) -> Callable[[NodeAddress], Sequence[str]]:
    return lambda node: [sys.executable, "-I", "-S", "-c", script, str(node.rank)]


async def start(nursery: trio.Nursery, run: Callable[..., object]) -> tuple[NodeProcess, ...]:
    with trio.fail_after(20):
        return await nursery.start(run)  # type: ignore[arg-type]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_starts_all_and_stops_in_order(tmp_path: Path) -> None:
    log, stop = Log(), trio.Event()
    async with trio.open_nursery() as nursery:
        run = partial(supervise, cluster(tmp_path, 3), command=python(CHILD), log=log, stop=stop)
        nodes = await start(nursery, run)
        pids = [node.pid for node in nodes]
        assert [node.rank for node in nodes] == [1, 2, 3] and None not in pids
        for rank in (1, 2, 3):
            await log.wait_for(rank, f"child {rank}")
        stop.set()
    assert [rank for rank, line in log.lines if line == "stopping"] == [1, 2, 3]
    assert not any(alive(pid) for pid in pids if pid)


async def test_restarts_what_dies_with_growing_pauses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "RESTART_FIRST_S", 0.01)
    monkeypatch.setattr(supervisor, "RESTART_MAX_S", 0.03)
    log, stop = Log(), trio.Event()
    async with trio.open_nursery() as nursery:
        run = partial(supervise, cluster(tmp_path, 2), command=python(CHILD), log=log, stop=stop)
        nodes = await start(nursery, run)
        untouched = nodes[1].pid
        for times, pause in enumerate(("0.01", "0.02", "0.03", "0.03"), 1):
            await log.wait_for(1, "child 1", times)
            pid = nodes[0].pid
            assert pid
            os.kill(pid, signal.SIGKILL)
            await log.wait_for(1, "killed by SIGKILL", times)
            assert log.lines[-1][1] == f"killed by SIGKILL; starts again in {pause} s"
        await log.wait_for(1, "child 1", 5)
        assert nodes[0].restarts == 4 and nodes[1].restarts == 0 and nodes[1].pid == untouched
        stop.set()


async def test_a_steady_node_starts_anew_with_the_first_pause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "RESTART_FIRST_S", 0.01)
    monkeypatch.setattr(supervisor, "STEADY_S", 0.0)
    log, stop = Log(), trio.Event()
    async with trio.open_nursery() as nursery:
        run = partial(supervise, cluster(tmp_path, 1), command=python("import sys; sys.exit(7)"), log=log, stop=stop)
        nursery.start_soon(run)
        await log.wait_for(1, "exited with code 7; starts again in 0.01 s", 6)
        stop.set()


async def test_a_node_that_never_listens_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "START_PAUSES_S", (0.01, 0.02))
    log = Log()
    script = f"import sys\nif sys.argv[1] == '2': print('port in use'); sys.exit(1)\n{CHILD}"
    with trio.fail_after(20), pytest.raises(StartFailed, match=r"^node 2: not started in 3 tries.*: port in use$"):
        await supervise(cluster(tmp_path, 2), command=python(script), log=log, gives_up=True)
    assert [line for rank, line in log.lines if rank == 2] == [
        "port in use", "exited with code 1; starts again in 0.01 s",
        "port in use", "exited with code 1; starts again in 0.02 s", "port in use"]
    assert not any(rank == 1 and "exited" in line for rank, line in log.lines)


async def test_a_program_that_is_missing_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "START_PAUSES_S", (0.01,))
    with trio.fail_after(20), pytest.raises(StartFailed, match="cannot be started: No such file"):
        await supervise(cluster(tmp_path, 1), command=lambda node: [str(tmp_path / "none")], log=Log(), gives_up=True)


async def test_a_node_that_has_listened_is_never_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "RESTART_FIRST_S", 0.01)
    monkeypatch.setattr(supervisor, "RESTART_MAX_S", 0.01)
    monkeypatch.setattr(supervisor, "START_PAUSES_S", ())
    once = tmp_path / "once"
    script = f"import os, sys\nif os.path.exists({str(once)!r}): sys.exit(1)\nopen({str(once)!r}, 'x')\n{CHILD}"
    log, stop = Log(), trio.Event()
    async with trio.open_nursery() as nursery:
        run = partial(supervise, cluster(tmp_path, 1), command=python(script), log=log, stop=stop, gives_up=True)
        [node] = await start(nursery, run)
        assert node.pid
        os.kill(node.pid, signal.SIGKILL)
        await log.wait_for(1, "exited with code 1; starts again in 0.01 s", 4)
        stop.set()


async def test_a_refused_configuration_ends_it_all(tmp_path: Path) -> None:
    log = Log()
    script = f"import sys\nif sys.argv[1] == '2': print('a fault'); sys.exit({supervisor.EXIT_CONFIG})\n{CHILD}"
    with trio.fail_after(20), pytest.raises(ConfigError, match="node 2 does not start"):
        await supervise(cluster(tmp_path, 2), command=python(script), log=log)
    assert (2, "a fault") in log.lines


async def test_cancellation_stops_the_children_too(tmp_path: Path) -> None:
    log = Log()
    async with trio.open_nursery() as nursery:
        nodes = await start(nursery, partial(supervise, cluster(tmp_path, 2), command=python(CHILD), log=log))
        pids = [node.pid for node in nodes]
        nursery.cancel_scope.cancel()
    assert [line for _, line in log.lines].count("stopping") == 2
    assert not any(alive(pid) for pid in pids if pid)


async def test_a_node_that_does_not_stop_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "STOP_STAGGER_S", 0.01)
    monkeypatch.setattr(supervisor, "STOP_GRACE_S", 0.05)
    log, stop = Log(), trio.Event()
    async with trio.open_nursery() as nursery:
        nodes = await start(nursery, partial(supervise, cluster(tmp_path, 2), command=python(DEAF), log=log, stop=stop))
        pids = [node.pid for node in nodes]
        stop.set()
    assert [rank for rank, line in log.lines if "killed" in line] == [1, 2]
    assert not any(alive(pid) for pid in pids if pid)


async def test_a_program_that_is_missing_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "RESTART_FIRST_S", 0.01)
    log, stop = Log(), trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(supervise, cluster(tmp_path, 1), command=lambda node: [str(tmp_path / "none")],
                                   log=log, stop=stop))
        await log.wait_for(1, "cannot be started: No such file", 2)
        stop.set()


async def test_output_without_newline_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "MAX_LINE_BYTES", 1000)
    log, stop = Log(), trio.Event()
    script = "import sys; sys.stdout.write('x' * 5000 + chr(10) + 'end'); sys.exit(1)"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(supervise, cluster(tmp_path, 1), command=python(script), log=log, stop=stop))
        await log.wait_for(1, "end")
        stop.set()
    assert "".join(line for _, line in log.lines).startswith("x" * 5000)


def test_the_command_of_a_node(tmp_path: Path) -> None:
    config = cluster(tmp_path, 2)
    arguments = list(node_command(config, extra=["-v"])(config.nodes[1]))
    assert arguments[:4] == [sys.executable, "-P", "-m", "dsreg"]
    assert arguments[4:] == ["node", "--supervisor-pid", str(os.getpid()), "--config", str(tmp_path / "cluster.toml"),
                             "--rank", "2", "--storage", str(tmp_path / "node-2"), "--rejoin", "-v"]


def test_a_child_does_not_outlive_a_parent_that_is_gone(tmp_path: Path) -> None:
    config = cluster(tmp_path, 1)
    arguments = list(node_command(config)(config.nodes[0]))
    arguments[arguments.index("--supervisor-pid") + 1] = "1"  # not the parent of what we start
    environment = {**os.environ, "PYTHONPATH": str(Path(dsreg.__file__).parents[1])}
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 1 and done.stderr == ""


# --- directories that are gone ----------------------------------------------------------------------
def directory(config: ClusterConfig, rank: int, knows: tuple[int, ...], *, begun: bool = True, store: int = 0) -> None:
    """Of a node that knows these others, each by the directory that this makes where `store` is not given."""
    identity = Identity(config.cluster_id, rank, tuple(node.rank for node in config.nodes), config.sectors)
    storage = StableStorage.open(
        OsFiles(config.nodes[rank - 1].storage), identity, MIN_JOURNAL_BYTES, lambda: bytes([store or rank]) * 16
    )
    if knows:
        storage.lives.remember({other: Life(1, bytes([other]) * 16) for other in knows})
    if begun:
        storage.lives.begin()
    storage.close()


def test_looking_at_directories_leaves_no_descriptor_open(tmp_path: Path) -> None:
    config = cluster(tmp_path, 3)
    for rank in (1, 2):
        directory(config, rank, (3,))
    config.nodes[2].storage.mkdir()
    descriptors = Path("/proc/self/fd")
    before = sorted(os.listdir(descriptors))
    check_directories(config)
    assert sorted(os.listdir(descriptors)) == before


@pytest.mark.parametrize(
    ("nodes", "begun", "too_many"),
    [(3, (), False), (3, (1, 2, 3), False), (3, (1, 2), False), (3, (3,), True), (5, (1, 2, 3), False),
     (5, (1, 2), True), (2, (1,), False), (1, (), False)],
)
def test_nodes_do_not_start_where_too_many_directories_are_gone(
    tmp_path: Path, nodes: int, begun: tuple[int, ...], too_many: bool
) -> None:
    config = cluster(tmp_path, nodes)
    for rank in begun:
        directory(config, rank, tuple(other for other in range(1, nodes + 1) if other != rank))
    if too_many:
        with pytest.raises(StartFailed, match="are gone, though they were there before"):
            check_directories(config)
    else:
        check_directories(config)


def test_nor_where_that_is_gone_which_a_cluster_was_recovered_from(tmp_path: Path) -> None:
    """Others may not have met it yet; they have nothing then that it could learn."""
    config = dataclasses.replace(cluster(tmp_path, 3), recovered=Recovered(bytes(16), (3,), 1))
    with pytest.raises(StartFailed, match="of node 3 are gone"):
        check_directories(config)
    directory(config, 1, (2, 3))
    directory(config, 2, (1, 3))
    check_directories(config)


def test_a_first_start_that_was_broken_off_is_no_loss(tmp_path: Path) -> None:
    config = cluster(tmp_path, 3)
    directory(config, 1, (2, 3))
    directory(config, 2, (), begun=False)
    directory(config, 3, (), begun=False)
    check_directories(config)
    shutil.rmtree(config.nodes[2].storage)
    directory(config, 3, (), begun=False, store=9)
    with pytest.raises(StartFailed, match="of node 3 are gone"):
        check_directories(config)
