"""Peers of which fio is the client, as far as they are installed: set up, loaded, a replica killed, taken down."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from bench import cli, fio
from bench.jobs import CPU_JOB, JOBS, Job, block_device
from bench.settings import MIB
from bench.shell import BenchFailed, missing_tools
from bench.systems import PEERS, System, make_ours, make_peer
from bench.systems.ceph import OSDS, CephLibrbd, CephServer
from bench.systems.quorum import EXPORTS, Quorum
from tests.fuse.tools import leftovers
from tests.test_demo import processes_naming

SIZE = 16 * MIB
SECONDS = 0.3
FSYNC_JOB = next(job for job in JOBS if "--fsync=1" in job.extra)


@pytest.fixture
def directory() -> Iterator[Path]:
    """With a short name, as sockets need it. Nothing of what was started there may be left."""
    with tempfile.TemporaryDirectory(prefix="dsreg-peers-") as name:
        path = Path(name).resolve()
        yield path
        assert not leftovers(path)
        assert not processes_naming(f"{path}/")


def started(system: System, directory: Path, stack: ExitStack) -> None:
    if (reason := system.missing()) is not None:
        pytest.skip(reason)
    own = directory / system.key
    own.mkdir()
    system.start(own, SIZE, stack)
    fio.fill(system.target(), SIZE)


def measured(job: Job, system: System, directory: Path) -> dict[str, float]:
    return fio.run_job(job, system.target(), SIZE, SECONDS, system.roots(), directory)


@pytest.mark.slow
def test_a_quorum_of_qemu_writes_to_all_three(directory: Path) -> None:
    system = Quorum()
    with ExitStack() as stack:
        started(system, directory, stack)
        assert measured(CPU_JOB, system, directory)["cpu_us"] > 0
        assert measured(FSYNC_JOB, system, directory)["operations"] > 0
        assert len(system.memory_pids()) == EXPORTS
    images = [path.read_bytes() for path in sorted((directory / system.key).glob("replica*.img"))]
    assert len(images) == EXPORTS and len(set(images)) == 1
    assert images[0].count(0) < SIZE // 2  # random data, not zeros


@pytest.mark.slow
def test_ceph_goes_on_without_an_osd_and_catches_up(directory: Path) -> None:
    server = CephServer(own_bytes=512 * MIB)
    system = CephLibrbd(server)
    with ExitStack() as stack:
        started(system, directory, stack)
        assert len(set(system.memory_pids())) == OSDS
        assert measured(CPU_JOB, system, directory)["cpu_us"] > 0
        before = system.memory_pids()
        system.kill_replica(1)
        assert measured(FSYNC_JOB, system, directory)["operations"] > 0
        system.restore()
        after = system.memory_pids()
        assert [old == new for old, new in zip(before, after, strict=True)] == [True, False, True]
        assert measured(CPU_JOB, system, directory)["operations"] > 0


def test_what_fio_is_told() -> None:
    device = CPU_JOB.arguments(block_device("/dev/loop0"), SIZE, SECONDS, Path("/tmp"))
    assert device[0] == "fio" and "--filename=/dev/loop0" in device
    rbd = CPU_JOB.arguments(CephLibrbd(CephServer()).target(), SIZE, SECONDS, Path("/tmp"))
    assert rbd[0] == "env" and rbd[1].startswith("CEPH_CONF=") and rbd[2] == "fio"
    # The rest of both is the same load.
    assert set(device) - set(rbd) == {"--ioengine=libaio", "--filename=/dev/loop0"}


def test_every_system_has_names_of_its_own() -> None:
    systems = [*make_ours(), *(system for name in PEERS for system in make_peer(name))]
    assert len({system.key for system in systems}) == len({system.label for system in systems}) == len(systems)
    assert all(system.durable for system in systems)


def test_a_peer_that_is_not_there_is_named_and_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if os.geteuid() != 0 or make_ours()[0].missing() is not None or missing_tools(*cli.TOOLS):
        pytest.skip("needs what a run through loop devices needs")
    monkeypatch.setattr(CephLibrbd, "tools", ("ceph-of-the-future",))
    chosen = cli.chosen_systems("installed", install=False)
    assert "ceph-librbd" not in [system.key for system in chosen]
    assert "bench: without Ceph, librbd: not installed: ceph-of-the-future\n" in capsys.readouterr().err
    with pytest.raises(BenchFailed, match="ceph-of-the-future"):
        cli.chosen_systems("ceph", install=False)


def test_an_engine_that_fio_lacks_is_named() -> None:
    if missing_tools("fio"):
        pytest.skip("not installed: fio")
    assert fio.missing_engine("libaio") is None
    assert fio.missing_engine("abacus") == "fio was built without its I/O engine abacus"
