"""QEMU's quorum driver over three exports of qemu-nbd: replicas by vote, in C, without FUSE or a loop device."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from bench.jobs import Target, nbd_socket
from bench.shell import Daemon, call, make_image
from bench.systems.base import System

EXPORTS, THRESHOLD = 3, 2


class Quorum(System):
    """No replica is killed: one that has missed a write is read from and voted with as before, and nothing brings it up
    to date."""

    tools = ("qemu-nbd", "qemu-storage-daemon")
    packages = ("qemu-utils", "qemu-system-common")
    has_device = False
    engine = "nbd"

    def __init__(self) -> None:
        super().__init__("quorum", "QEMU quorum", "when all three have answered, after fdatasync at two at least "
                         "(cache=directsync); none that has missed a write is brought up to date")
        self._exports: list[Daemon] = []
        self._front: Daemon | None = None
        self._socket = Path()

    def start(self, directory: Path, size: int, stack: ExitStack) -> None:
        children = []
        for number in range(EXPORTS):
            image, socket = directory / f"replica{number}.img", directory / f"replica{number}.sock"
            make_image(image, size, allocate=True)
            export = Daemon(f"export{number}", ["qemu-nbd", "--format=raw", "--cache=directsync", "--aio=native",
                                                "--persistent", f"--socket={socket}", str(image)], directory)
            stack.callback(export.stop)
            self._exports.append(export)
            export.wait_for(socket.exists, "qemu-nbd listens")
            children += ["--blockdev", f"driver=nbd,node-name=replica{number},server.type=unix,server.path={socket}"]
        names = ",".join(f"children.{number}=replica{number}" for number in range(EXPORTS))
        self._socket = directory / "front.sock"
        self._front = Daemon("front", [
            "qemu-storage-daemon", *children,
            "--blockdev", f"driver=quorum,node-name=disk,vote-threshold={THRESHOLD},{names}",
            "--nbd-server", f"addr.type=unix,addr.path={self._socket},max-connections=0",
            "--export", "type=nbd,id=disk,node-name=disk,name=,writable=on"], directory)
        stack.callback(self._front.stop)
        self._front.wait_for(self._serves, "qemu-storage-daemon serves the disk")

    def _serves(self) -> bool:
        """The socket is there before the export is."""
        return self._socket.exists() and "export" in call("qemu-nbd", "--list", f"--socket={self._socket}")

    def target(self) -> Target:
        return nbd_socket(self._socket)

    def roots(self) -> Sequence[int]:
        assert self._front is not None, "not started"
        return [self._front.pid, *self.memory_pids()]

    def memory_pids(self) -> list[int]:
        return [export.pid for export in self._exports]

    def version(self) -> str:
        said = call("qemu-storage-daemon", "--version").splitlines()[0]
        return f"{said}, vote-threshold={THRESHOLD}; fio's engine nbd"
