"""The embedded cluster, used without a configuration: three nodes on this host, created once, kept between runs.

Any number of edges may use it at once. The one that holds the lock runs the nodes; the others wait for
the lock, and the next of them takes over when that one ends, however it ends.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import trio

from dsreg.config import ClusterConfig, create_cluster, format_size, load_config
from dsreg.constants import SECTOR_SIZE
from dsreg.listening import free_ports
from dsreg.supervisor import supervise
from dsreg.volume.failures import VolumeError

log = logging.getLogger(__name__)

NODES = 3
CONFIG_NAME = "cluster.toml"
# Below the kernel's usual range for outgoing connections (32768 and up): a port picked from that range may
# be taken by anybody's connection when the cluster starts the next time.
PORTS = range(17100, 32768)
DEFAULT_SIZE = 1 << 30


def default_directory() -> Path:
    """$XDG_DATA_HOME/dsreg/default or ~/.local/share/dsreg/default."""
    base = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
    return Path(base) / "dsreg" / "default"


def ensure_cluster(directory: Path, size: int | None) -> ClusterConfig:
    """The configuration of the cluster in `directory`, which is created if it does not exist.

    `size` is the size of the disk in bytes, a multiple of 4096; None: as it is, or 1 GiB for a new one.
    Raises ConfigError, or VolumeError when the cluster exists in another size.
    """
    directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _locked(directory.with_suffix(".create-lock")):
        if not (directory / CONFIG_NAME).exists():
            _create(directory, DEFAULT_SIZE if size is None else size)
    config = load_config(directory / CONFIG_NAME, need_system_key=True)
    log.info("the disk of %s is kept in %s; to see its nodes: dsreg status %s",
             format_size(config.sectors * SECTOR_SIZE), directory, shlex.quote(str(config.path)))
    if size is not None and size != config.sectors * SECTOR_SIZE:
        raise VolumeError(
            f"the disk in {directory} exists and has {format_size(config.sectors * SECTOR_SIZE)}; leave --size out, "
            f"or give another $XDG_DATA_HOME for another disk"
        )
    return config


def _create(directory: Path, size: int) -> None:
    """All or nothing: built beside, then moved into place."""
    fresh = directory.with_suffix(".new")
    if fresh.exists():
        shutil.rmtree(fresh)  # left by a crash, under the same lock
    create_cluster(fresh, size, [f"127.0.0.1:{port}" for port in _free_ports()])
    fresh.rename(directory)
    log.info("created a cluster of %d nodes for a disk of %s in %s", NODES, format_size(size), directory)


def _free_ports() -> list[int]:
    """One for each node. Raises VolumeError."""
    ports = free_ports(PORTS, NODES)
    if len(ports) < NODES:
        raise VolumeError(f"no {NODES} free ports from {PORTS.start} to {PORTS.stop - 1} on 127.0.0.1")
    return ports


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path`; wait for it if need be. The kernel releases it when the process dies."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


async def run_cluster(
    config: ClusterConfig, *, task_status: trio.TaskStatus[Any] = trio.TASK_STATUS_IGNORED
) -> None:
    """Run the nodes of the embedded cluster, or wait to take over from the process that does, until cancelled.

    Reports started when the nodes have been started here, or are run by another process.
    """
    path = config.path.parent.with_suffix(".lock")
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("using the nodes of %s that another process runs", config.path)
            task_status.started()
            await _wait_for_lock(descriptor)
            log.info("the process that ran the nodes of %s has ended: this process runs them now", config.path)
            await supervise(config)
        else:
            await supervise(config, task_status=task_status)
    finally:
        os.close(descriptor)


async def _wait_for_lock(descriptor: int) -> None:
    """The waiting is done in a thread on a descriptor of its own: it may outlive this call by cancellation."""
    own = os.dup(descriptor)

    def wait() -> None:
        try:
            fcntl.flock(own, fcntl.LOCK_EX)
        finally:
            os.close(own)

    await trio.to_thread.run_sync(wait, abandon_on_cancel=True)
