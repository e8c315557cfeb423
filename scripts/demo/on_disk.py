"""The demonstration on a mounted file system: FUSE file, loop device, ext4."""

from __future__ import annotations

import ctypes
import os
import select
import shutil
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from .cluster import Cluster, Outage
from .report import DemoFailed, Report
from .tree import Source, digest, total_mb

DSREG_FUSE = (sys.executable, "-c", "import sys; from fuse_frontend.cli import run; run()")
TOOLS = ("fusermount3", "losetup", "mkfs.ext4", "e2fsck", "mount", "umount", "blockdev")
COMMAND_S = 120.0
ATTACH_S = 60.0
# How many files may be in the page cache alone: without it nothing would be on the disk when a node dies.
FILES_PER_SYNC = 64
CAP_SYS_ADMIN = 21


def why_not() -> str | None:
    """The reason why this host cannot attach the disk for this user, None where it can."""
    status = Path("/proc/self/status").read_text()
    capabilities = int(status.split("CapEff:")[1].split()[0], 16)
    if not capabilities >> CAP_SYS_ADMIN & 1:
        return "mounting needs root"
    for device in ("/dev/fuse", "/dev/loop-control"):
        try:
            os.close(os.open(device, os.O_RDWR))
        except OSError as error:
            return f"{device} cannot be opened ({error.strerror})"
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    return f"not installed: {', '.join(missing)}" if missing else None


def call(*command: str | Path) -> str:
    """Runs the command and returns its output. DemoFailed with what it said when it fails."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=COMMAND_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise DemoFailed(f"{' '.join(words)}: not finished within {COMMAND_S:.0f} s") from error
    if done.returncode:
        raise DemoFailed(f"{' '.join(words)}: exit code {done.returncode}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


class Attachment:
    """The process that serves the disk as a file, and the loop device on that file."""

    def __init__(self, cluster: Cluster, mountpoint: Path) -> None:
        self.mountpoint = mountpoint
        mountpoint.mkdir()
        command = [*DSREG_FUSE, "--config", str(cluster.config), "--attach", str(mountpoint)]
        with open(cluster.directory / "frontend.log", "ab") as log:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, stdin=subprocess.DEVNULL,
                                            start_new_session=True)

    def device(self) -> str:
        """The loop device's name, as soon as it is up."""
        assert self.process.stdout is not None
        deadline = time.monotonic() + ATTACH_S
        output = b""
        while not (output.endswith(b"\n") and b"/dev/loop" in output):
            ready, _, _ = select.select([self.process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            piece = os.read(self.process.stdout.fileno(), 4096) if ready else b""
            if not piece:
                raise DemoFailed("dsreg-fuse --attach ended or named no loop device")
            output += piece
        return "/dev/loop" + output.split(b"/dev/loop")[1].split()[0].decode()

    def detach(self) -> None:
        """In order: loop device, mount, process. Nothing of it is left when this returns."""
        try:
            if os.path.ismount(self.mountpoint):
                call(*DSREG_FUSE, "--detach", self.mountpoint)
            self.process.terminate()
            self.process.wait(COMMAND_S)
        except subprocess.TimeoutExpired as error:
            raise DemoFailed("the frontend did not end after the disk was detached") from error
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            if self.process.stdout is not None:
                self.process.stdout.close()


class FileSystem:
    """An ext4 on the loop device, mounted at `mountpoint` or not."""

    def __init__(self, device: str, mountpoint: Path) -> None:
        self.device = device
        self.mountpoint = mountpoint
        mountpoint.mkdir()

    def mount(self, options: str = "rw") -> None:
        call("mount", "-t", "ext4", "-o", options, self.device, self.mountpoint)

    def unmount(self) -> None:
        if os.path.ismount(self.mountpoint):
            call("umount", self.mountpoint)

    def forget_cache(self) -> None:
        """Unmounts and makes the kernel forget what it has read, so that the next byte comes from the nodes."""
        self.unmount()
        call("blockdev", "--flushbufs", self.device)
        try:
            Path("/proc/sys/vm/drop_caches").write_text("3\n")
        except OSError:
            # Not ours to do in a container. Unmounting and flushing have emptied the caches of this disk.
            return


def sync_file_system(path: Path) -> None:
    """syncfs(2): all that was written to the file system of `path` is on its disk."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        if libc.syncfs(descriptor):
            raise DemoFailed(f"syncfs: {os.strerror(ctypes.get_errno())}")
    finally:
        os.close(descriptor)


def copy(report: Report, cluster: Cluster, files: list[Source], target: Path) -> Outage:
    outage = Outage(cluster, rank=2)
    with report.progress("files copied", len(files)) as progress:
        for done, file in enumerate(files, 1):
            path = target / file.name
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file.path, path)
            if done % FILES_PER_SYNC == 0:
                sync_file_system(target)
            outage.advance(done, len(files))
            progress.advance(progress.tasks[0].id)
    sync_file_system(target)
    return outage


def compare(report: Report, files: list[Source], target: Path) -> None:
    differing = []
    with report.progress("files compared", len(files)) as progress:
        for file in files:
            if digest(file.path) != digest(target / file.name):
                differing.append(file.name)
            progress.advance(progress.tasks[0].id)
    if differing:
        raise DemoFailed(f"{len(differing)} files differ, the first: {differing[0]}")


def run(report: Report, cluster: Cluster, files: list[Source], stack: ExitStack) -> None:
    """Attaches, copies with an outage, compares, checks. What it sets up is taken down by `stack`."""
    with report.step("attach the disk: FUSE file and loop device") as step:
        attachment = Attachment(cluster, cluster.directory / "attached")
        stack.callback(attachment.detach)
        # Before detaching on the way out: what is still to be written may need a majority.
        stack.callback(cluster.start_missing)
        device = attachment.device()
        step.seen = device
    disk = FileSystem(device, cluster.directory / "disk")
    stack.callback(disk.unmount)
    with report.step("mkfs.ext4 and mount") as step:
        call("mkfs.ext4", "-q", "-F", "-E", "nodiscard", device)
        disk.mount()
        step.seen = call("findmnt", "-n", "-o", "SOURCE,FSTYPE", disk.mountpoint).strip()
    with report.step("copy files; node 2 gets SIGKILL at 1/3 and is started again at 2/3") as step:
        outage = copy(report, cluster, files, disk.mountpoint)
        step.seen = (f"{len(files)} files, {total_mb(files):.1f} MB; {outage.pieces_without} files "
                     f"in {outage.lasted_s:.1f} s without node 2")
    with report.step("unmount, drop caches, mount again, compare every file") as step:
        disk.forget_cache()
        disk.mount("ro")
        compare(report, files, disk.mountpoint)
        step.seen = f"{len(files)} files identical (SHA-256)"
    with report.step("unmount and e2fsck -f -n") as step:
        disk.unmount()
        call("e2fsck", "-f", "-n", device)
        step.seen = "clean"
