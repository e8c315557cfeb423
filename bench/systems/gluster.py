"""GlusterFS from Debian: one glusterd of our own, three bricks and a FUSE client for each volume, all on loopback.

The server has an address of 127/8, a working directory, sockets and logs of its own: it meets no other GlusterFS of
this machine, except one that listens on all addresses, which is then named.
"""

from __future__ import annotations

import os
import shutil
import signal
import stat
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path

from bench.processes import command_line
from bench.shell import (
    BenchFailed,
    Daemon,
    attach_loop,
    call,
    is_mounted,
    make_image,
    stop_pid,
    unmount,
    wait_until,
)
from bench.systems.base import System
from dsreg.listening import is_free

ADDRESS = "127.1.1.1"
PORT = 24007  # bricks and clients ask here; GlusterFS has no setting that reaches all of them
BRICKS = 3
GROUPS = Path("/var/lib/glusterd/groups")  # the profiles, as the package brings them
HEAL_S = 180.0
VOLUME_FILE = """\
volume management
    type mgmt/glusterd
    option working-directory {directory}/work
    option run-directory {directory}/run
    option logging-directory {directory}/log
    option glusterd-sockfile {directory}/glusterd.sock
    option transport-type socket
    option transport.address-family inet
    option transport.socket.bind-address {address}
    option base-port 49152
    option max-port 60999
    option ping-timeout 0
    option event-threads 1
end-volume
"""


class GlusterServer:
    """glusterd, started by the first volume and shared by all of them."""

    def __init__(self) -> None:
        self.daemon: Daemon | None = None
        self.directory = Path()

    def ensure_started(self, directory: Path, stack: ExitStack) -> None:
        if self.daemon is not None:
            return
        if not is_free(ADDRESS, PORT):
            raise BenchFailed(f"{ADDRESS}:{PORT} is in use, perhaps by another glusterd of this machine")
        self.directory = directory
        for name in ("work", "run", "log"):
            (directory / name).mkdir(parents=True)
        if GROUPS.is_dir():
            shutil.copytree(GROUPS, directory / "work/groups")
        volume_file = directory / "glusterd.vol"
        volume_file.write_text(VOLUME_FILE.format(directory=directory, address=ADDRESS))
        self.daemon = Daemon("glusterd", ["glusterd", "--no-daemon", "-f", str(volume_file), "-p",
                                          str(directory / "glusterd.pid"), "-l", str(directory / "log/glusterd.log")],
                             directory)
        stack.callback(self._stop)
        self.daemon.wait_for(self._answers, "glusterd answers")

    def cli(self, *words: str | Path, timeout_s: float = 120.0) -> str:
        return call("gluster", "--mode=script", f"--glusterd-sock={self.directory}/glusterd.sock",
                    f"--log-file={self.directory}/log/cli.log", *words, timeout_s=timeout_s)

    def _answers(self) -> bool:
        try:
            self.cli("volume", "list", timeout_s=10.0)
        except BenchFailed:
            return False
        return True

    def _stop(self) -> None:
        """glusterd, then whatever it started that is still there: the bricks of a volume that could not be stopped."""
        assert self.daemon is not None
        pids = self.daemons()
        sockets = [path for pid in pids for path in _sockets(pid)]
        try:
            self.daemon.stop()
            for pid in pids:
                stop_pid(pid, self._is_ours)
        finally:
            _unlink_sockets(sockets)

    def daemons(self) -> list[int]:
        """The pids that glusterd has written down: bricks and the self-heal daemon, which leave its process tree."""
        found = []
        for path in sorted((self.directory / "run").rglob("*.pid")):
            text = path.read_text().strip()
            if text.isdigit() and self._is_ours(int(text)):
                found.append(int(text))
        return found

    def _is_ours(self, pid: int) -> bool:
        return any(word.startswith(f"{self.directory}/") for word in command_line(pid))


class GlusterVolume(System):
    """A volume `replica 3` with the options of `profile`, or none; a file on it behind a loop device."""

    tools = ("glusterd", "gluster", "glusterfs", "losetup")
    packages = ("glusterfs-server", "glusterfs-client", "mount")

    def __init__(self, server: GlusterServer, key: str, label: str, profile: str | None, durable: str) -> None:
        super().__init__(key, label, durable)
        self.replicas = BRICKS
        self._server = server
        self._profile = profile
        self._client: Daemon | None = None
        self._bricks: list[Path] = []
        self._sockets: set[Path] = set()

    def start(self, directory: Path, size: int, stack: ExitStack) -> None:
        self._server.ensure_started(directory.parent / "glusterd", stack)
        self._bricks = [directory / f"brick{number}" for number in range(BRICKS)]
        # `force`: bricks on the root file system, and all replicas on one host, are not what GlusterFS is for.
        self._server.cli("volume", "create", self.key, "replica", str(BRICKS),
                         *(f"{ADDRESS}:{brick}" for brick in self._bricks), "force")
        if self._profile is not None:
            self._server.cli("volume", "set", self.key, "group", self._profile)
        self._server.cli("volume", "start", self.key)
        stack.callback(self._stop_volume)
        wait_until(lambda: len(self._brick_pids()) == BRICKS, f"all bricks of {self.key} are online")
        mountpoint = directory / "mnt"
        mountpoint.mkdir()
        self._client = Daemon("client", ["glusterfs", "--no-daemon", f"--volfile-server={ADDRESS}",
                                         f"--volfile-id={self.key}", f"--log-file={directory}/client-detail.log",
                                         str(mountpoint)], directory)
        stack.callback(self._client.stop)
        stack.callback(unmount, mountpoint)
        self._client.wait_for(lambda: is_mounted(mountpoint), "the GlusterFS client has mounted")
        image = mountpoint / "disk.img"
        make_image(image, size, allocate=False)
        self.device = attach_loop(image, stack)

    def _stop_volume(self) -> None:
        try:
            self._server.cli("volume", "stop", self.key, "force")
        finally:
            _unlink_sockets(self._sockets)

    def roots(self) -> Sequence[int]:
        assert self._client is not None and self._server.daemon is not None
        # The self-heal daemon and glusterd serve both volumes; whichever is under load has what they do.
        shared = [pid for pid in self._server.daemons() if "--brick-name" not in command_line(pid)]
        return [self._client.pid, self._server.daemon.pid, *self._brick_pids(), *shared]

    def _brick_pids(self) -> list[int]:
        """By brick, of those that run."""
        named: dict[Path, int] = {}
        for pid in self._server.daemons():
            words = command_line(pid)
            if "--brick-name" in words and (brick := Path(words[words.index("--brick-name") + 1])) in self._bricks:
                named[brick] = pid
                self._sockets.update(_sockets(pid))
        return [pid for _, pid in sorted(named.items())]

    def version(self) -> str:
        text = call("gluster", "--version").splitlines()[0]
        return f"{text}, replica {BRICKS}, {f'group {self._profile}' if self._profile else 'no options set'}"

    def memory_pids(self) -> list[int]:
        return self._brick_pids()

    def kill_replica(self, number: int) -> None:
        os.kill(self._brick_pids()[number % BRICKS], signal.SIGKILL)

    def restore(self) -> None:
        """Start the brick again and wait until nothing is left to heal."""
        wait_until(self._start_missing, f"all bricks of {self.key} are online")
        wait_until(self._heal_began, f"the healing of {self.key} has begun")
        wait_until(lambda: not any(map(to_heal, self._bricks)), f"{self.key} is healed", HEAL_S)

    def _start_missing(self) -> bool:
        """More than once: glusterd takes a killed brick for a running one until init has collected its exit code."""
        if len(self._brick_pids()) < BRICKS:
            self._server.cli("volume", "start", self.key, "force")
        return len(self._brick_pids()) == BRICKS

    def _heal_began(self) -> bool:
        """Refused until the self-heal daemon has found the brick, and otherwise done within ten minutes."""
        try:
            self._server.cli("volume", "heal", self.key)
        except BenchFailed:
            return False
        return True


def to_heal(brick: Path) -> list[str]:
    """The files that other bricks lack something of ("xattrop"), or whose state is only written down a second after the
    last write ("dirty"), by the indices of this one. (`volume heal info` asks a glusterd at the default socket, which
    ours is not at.)"""
    return [name for index in ("xattrop", "dirty") for name in os.listdir(brick / ".glusterfs/indices" / index)
            if not name.startswith(f"{index}-")]


def _sockets(pid: int) -> list[Path]:
    """The socket in /var/run/gluster that the daemon was told to make."""
    words = command_line(pid)
    return [Path(words[words.index("-S") + 1])] if "-S" in words[:-1] else []


def _unlink_sockets(paths: Iterable[Path]) -> None:
    """GlusterFS leaves them when a brick is stopped."""
    for path in paths:
        if path.exists() and stat.S_ISSOCK(path.stat().st_mode):
            path.unlink()
