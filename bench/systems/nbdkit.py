"""nbdkit with its file plugin, mounted by nbdfuse: FUSE and a server in C, without a replica."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from bench.shell import Daemon, attach_loop, call, make_image, unmount
from bench.systems.base import System


class Nbdkit(System):
    tools = ("nbdkit", "nbdfuse", "losetup")
    packages = ("nbdkit", "libnbd-bin", "fuse3", "mount")

    def __init__(self) -> None:
        super().__init__("nbdkit", "nbdkit + nbdfuse", "written to the page cache, no replica; durable on fsync")
        self._daemons: list[Daemon] = []

    def start(self, directory: Path, size: int, stack: ExitStack) -> None:
        backing = directory / "backing.img"
        make_image(backing, size, allocate=True)
        socket = directory / "nbd.sock"
        server = self._run("nbdkit", ["nbdkit", "--foreground", "--unix", str(socket), "file", str(backing)],
                           directory, stack)
        server.wait_for(socket.exists, "nbdkit listens")
        mountpoint = directory / "mnt"
        mountpoint.mkdir()
        image = mountpoint / "disk.img"
        mount = self._run("nbdfuse", ["nbdfuse", str(image), "--unix", str(socket)], directory, stack)
        stack.callback(unmount, mountpoint)
        mount.wait_for(image.exists, "nbdfuse has mounted")
        self.device = attach_loop(image, stack)

    def _run(self, name: str, command: list[str], directory: Path, stack: ExitStack) -> Daemon:
        daemon = Daemon(name, command, directory)
        stack.callback(daemon.stop)
        self._daemons.append(daemon)
        return daemon

    def roots(self) -> Sequence[int]:
        return [daemon.pid for daemon in self._daemons]

    def version(self) -> str:
        return f"{call('nbdkit', '--version').strip()}, {call('nbdfuse', '--version').strip()}"
