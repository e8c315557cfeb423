"""Ceph from Debian: a monitor and three OSDs of our own on loopback, without cephx; an image by librbd, and another one
by rbd-fuse.

Nothing is shared with another Ceph of this machine: configuration, sockets, data and logs are below the directory of
the run. There is no manager: it keeps statistics and tasks in the background, and no request goes through it.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import uuid
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import ClassVar

from bench.jobs import Target
from bench.shell import BenchFailed, Daemon, attach_loop, call, is_mounted, node_ports, unmount, wait_until
from bench.systems.base import System

OSDS = 3
POOL, POOL_ID = "rbd", 1  # the first one of a cluster
PLACEMENT_GROUPS = 16
SHORT_S = 20.0  # for a question that a cluster may not be able to answer yet
HEAL_S = 300.0
ADDRESS = "127.0.0.1"
# Of an OSD: for BlueStore's database and its log; and in disks, two images and what is overwritten, which goes to fresh
# room.
OWN_BYTES, DISKS = 1 << 30, 3
ZEROS = bytes(1 << 20)
DURABLE = "after BlueStore's commit (fdatasync) at all OSDs that are up, two at least"
CONFIGURATION = """\
[global]
fsid = {fsid}
mon_host = [v2:{address}:{port}]
mon_initial_members = a
public_addr = {address}
run_dir = {directory}
admin_socket = {directory}/$name.asok
log_file = {directory}/$name-detail.log
pid_file =
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
# All replicas are on one host, and two of them say there that the third one is gone.
osd_crush_chooseleaf_type = 0
mon_osd_reporter_subtree_level = osd
osd_pool_default_size = {osds}
osd_pool_default_min_size = 2
osd_pool_default_pg_autoscale_mode = off
[mon]
mon_data = {directory}/$name
mon_data_avail_crit = 1
mon_data_avail_warn = 2
mon_cluster_log_file = {directory}/cluster.log
[osd]
osd_data = {directory}/$name
osd_objectstore = bluestore
osd_memory_target = 1073741824
bluestore_block_path = {directory}/$name.block
bluestore_block_create = false
bluestore_block_size = 0
[client]
log_file = {directory}/clients.log
admin_socket =
# librbd's cache acknowledges what no OSD has seen.
rbd_cache = false
"""


class CephServer:
    """The cluster, started by the first image and shared by all of them."""

    def __init__(self, own_bytes: int = OWN_BYTES) -> None:
        self.osds: dict[int, Daemon] = {}
        self.config = Path()
        self._monitor: Daemon | None = None
        self._own_bytes = own_bytes

    def ensure_started(self, directory: Path, size: int, stack: ExitStack) -> None:
        """For images of `size` bytes."""
        if self._monitor is not None:
            return
        directory.mkdir()
        block_size = DISKS * size + self._own_bytes
        if (free := shutil.disk_usage(directory).free) < OSDS * block_size:
            raise BenchFailed(f"{OSDS} OSDs need {OSDS * block_size >> 20} MiB, and {free >> 20} MiB are left")
        self._start_monitor(directory, stack)
        stack.callback(self._stop_osds)
        for number in range(OSDS):
            self._make_osd(number, block_size)
            self._start_osd(number)
        self.ceph("osd", "pool", "create", POOL, str(PLACEMENT_GROUPS), str(PLACEMENT_GROUPS))
        self.ceph("osd", "pool", "application", "enable", POOL, "rbd")
        wait_until(self._is_clean, "all placement groups are active and clean", HEAL_S)

    def pids(self) -> list[int]:
        assert self._monitor is not None, "not started"
        return [self._monitor.pid, *self.osd_pids()]

    def osd_pids(self) -> list[int]:
        return [osd.pid for osd in self.osds.values()]

    def ceph(self, *words: str, timeout_s: float = 120.0) -> str:
        return call("ceph", "-c", self.config, *words, timeout_s=timeout_s)

    def kill(self, number: int) -> None:
        process = self.osds[number].process
        process.send_signal(signal.SIGKILL)
        process.wait()

    def restore(self) -> None:
        """Start what was killed, and wait until it has caught up."""
        for number, osd in list(self.osds.items()):
            if osd.process.poll() is not None:
                self._start_osd(number)
        wait_until(self._is_clean, "all placement groups are active and clean again", HEAL_S)

    # --- start and stop ---------------------------------------------------------------------------
    def _start_monitor(self, directory: Path, stack: ExitStack) -> None:
        self.config = directory / "ceph.conf"
        fsid, [port] = str(uuid.uuid4()), node_ports(1)
        self.config.write_text(CONFIGURATION.format(fsid=fsid, address=ADDRESS, port=port, directory=directory,
                                                    osds=OSDS))
        call("monmaptool", "--create", "--fsid", fsid, "--addv", "a", f"[v2:{ADDRESS}:{port}]", directory / "monmap")
        call("ceph-mon", "-c", self.config, "-i", "a", "--mkfs", "--monmap", directory / "monmap")
        self._monitor = Daemon("mon", ["ceph-mon", "-c", str(self.config), "-i", "a", "-f"], directory)
        stack.callback(self._monitor.stop)
        self._monitor.wait_for(self._answers, "the monitor answers")

    def _make_osd(self, number: int, block_size: int) -> None:
        """On a file that is written in full before: on a device no write costs an allocation below."""
        directory = self.config.parent
        with open(directory / f"osd.{number}.block", "xb") as block:
            for _ in range(block_size // len(ZEROS)):
                block.write(ZEROS)
            os.fsync(block.fileno())
        identity = str(uuid.uuid4())
        self.ceph("osd", "new", identity, str(number))
        (directory / f"osd.{number}").mkdir()
        call("ceph-osd", "-c", self.config, "-i", str(number), "--mkfs", "--osd-uuid", identity)

    def _start_osd(self, number: int) -> None:
        self.osds[number] = Daemon(f"osd{number}", ["ceph-osd", "-c", str(self.config), "-i", str(number), "-f"],
                                   self.config.parent)

    def _stop_osds(self) -> None:
        with ExitStack() as stack:  # all of them, whichever fails
            for osd in self.osds.values():
                stack.callback(osd.stop)

    # --- what it says -----------------------------------------------------------------------------
    def _answers(self) -> bool:
        try:
            self.ceph("fsid", timeout_s=SHORT_S)
        except BenchFailed:
            return False
        return True

    def _is_clean(self) -> bool:
        """Without a manager nobody has a table of them: each placement group is asked, at the OSD that leads it."""
        try:
            return all(self._state(group) == "active+clean" for group in range(PLACEMENT_GROUPS))
        except BenchFailed:
            return False

    def _state(self, group: int) -> str:
        answer = json.loads(self.ceph("tell", f"{POOL_ID}.{group:x}", "query", timeout_s=SHORT_S))
        return str(answer["state"])


class CephImage(System):
    """An image of the cluster, replicated by size 3, min_size 2."""

    tools: ClassVar[tuple[str, ...]] = ("ceph", "ceph-mon", "ceph-osd", "monmaptool", "rbd")
    packages: ClassVar[tuple[str, ...]] = ("ceph-mon", "ceph-osd", "ceph-common")

    def __init__(self, server: CephServer, key: str, label: str, client: str) -> None:
        super().__init__(key, label, DURABLE)
        self.replicas = OSDS
        self._server = server
        self._client = client

    def start(self, directory: Path, size: int, stack: ExitStack) -> None:
        self._server.ensure_started(directory.parent / "ceph", size, stack)
        call("rbd", "-c", self._server.config, "create", "--pool", POOL, "--size", f"{size >> 20}M", self.key)

    def roots(self) -> Sequence[int]:
        return self._server.pids()

    def memory_pids(self) -> list[int]:
        return self._server.osd_pids()

    def version(self) -> str:
        return f"{call('ceph', '--version').split(' (')[0]}, size 3, min_size 2, {self._client}, rbd_cache = false"

    def kill_replica(self, number: int) -> None:
        self._server.kill(number % OSDS)

    def restore(self) -> None:
        self._server.restore()


class CephLibrbd(CephImage):
    """The client is in fio itself: neither FUSE nor a loop device, and its CPU is not in that of Ceph's processes."""

    has_device = False
    engine = "rbd"

    def __init__(self, server: CephServer) -> None:
        super().__init__(server, "ceph-librbd", "Ceph, librbd", "fio's engine rbd")

    def target(self) -> Target:
        return Target(("--ioengine=rbd", "--clientname=admin", f"--pool={POOL}", f"--rbdname={self.key}"),
                      (f"CEPH_CONF={self._server.config}",))


class CephFuse(CephImage):
    tools = (*CephImage.tools, "rbd-fuse", "losetup")
    packages = (*CephImage.packages, "rbd-fuse", "mount")

    def __init__(self, server: CephServer) -> None:
        super().__init__(server, "ceph-fuse", "Ceph, rbd-fuse", "rbd-fuse")
        self._mount: Daemon | None = None

    def start(self, directory: Path, size: int, stack: ExitStack) -> None:
        super().start(directory, size, stack)
        mountpoint = directory / "mnt"
        mountpoint.mkdir()
        self._mount = Daemon("rbd-fuse", ["rbd-fuse", "-f", "-c", str(self._server.config), "-p", POOL, "-r", self.key,
                                          str(mountpoint)], directory)
        stack.callback(self._mount.stop)
        stack.callback(unmount, mountpoint)
        self._mount.wait_for(lambda: is_mounted(mountpoint), "rbd-fuse has mounted")
        self.device = attach_loop(mountpoint / self.key, stack)

    def roots(self) -> Sequence[int]:
        assert self._mount is not None, "not started"
        return [*super().roots(), self._mount.pid]
