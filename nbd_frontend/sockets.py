"""What is listened on: TCP, a socket in the file system, or what systemd has opened for us."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import struct
from collections.abc import Iterator
from pathlib import Path

from dsreg.config import format_address
from dsreg.listening import BACKLOG, bind
from dsreg.volume import VolumeError

# The first descriptor that systemd passes on (sd_listen_fds(3)).
FIRST_INHERITED = 3
_PEER = struct.Struct("iII")  # process, user, group


def listen_tcp(host: str, port: int) -> list[socket.socket]:
    """Raises VolumeError."""
    try:
        return bind(host, port)
    except OSError as error:
        raise VolumeError(f"{format_address(host, port)} cannot be listened on: {error.strerror}") from None


@contextlib.contextmanager
def unix_socket(path: Path) -> Iterator[socket.socket]:
    """Listening at `path`, for this user alone, and gone at the end. What a killed server has left is replaced. Raises
    VolumeError."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with listener:
        _remove_stale(path)
        before = os.umask(0o177)
        try:
            listener.bind(os.fspath(path))
        except OSError as error:
            raise VolumeError(f"{path} cannot be listened on: {error.strerror or error}") from None
        finally:
            os.umask(before)
        own = path.lstat()
        listener.listen(BACKLOG)
        listener.setblocking(False)
        try:
            yield listener
        finally:
            with contextlib.suppress(FileNotFoundError):
                if path.lstat().st_ino == own.st_ino:  # nobody has put another one in its place
                    path.unlink()


def _remove_stale(path: Path) -> None:
    """Remove a socket that nobody listens on. Raises VolumeError if there is anything else."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise VolumeError(f"{path} exists, and is not a socket")
    except FileNotFoundError:
        return
    except OSError as error:
        raise VolumeError(f"{path}: {error.strerror}") from None
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        code = probe.connect_ex(os.fspath(path))
    if code != errno.ECONNREFUSED:
        what = "another process listens on it" if not code else os.strerror(code)
        raise VolumeError(f"{path} exists: {what}")
    path.unlink(missing_ok=True)


def inherited() -> list[socket.socket]:
    """The listening sockets that systemd has opened for this process, which its children do not get; none of them is
    taken for one twice. Raises VolumeError."""
    own = os.environ.pop("LISTEN_PID", "") == str(os.getpid())
    count = os.environ.pop("LISTEN_FDS", "0")
    os.environ.pop("LISTEN_FDNAMES", None)
    found = []
    for descriptor in range(FIRST_INHERITED, FIRST_INHERITED + (int(count) if own and count.isdecimal() else 0)):
        os.set_inheritable(descriptor, False)
        listener = socket.socket(fileno=descriptor)
        if listener.type != socket.SOCK_STREAM or not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise VolumeError(f"the descriptor {descriptor} of systemd is no listening stream socket")
        listener.setblocking(False)
        found.append(listener)
    return found


def described(listener: socket.socket) -> str:
    """Where a client has to connect to."""
    address = listener.getsockname()
    return os.fsdecode(address) if listener.family == socket.AF_UNIX else format_address(address[0], address[1])


def name_of_peer(accepted: socket.socket) -> str:
    """Raises OSError if it is gone already."""
    if accepted.family != socket.AF_UNIX:
        address = accepted.getpeername()
        return format_address(address[0], address[1])
    peer = accepted.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
    process, _, _ = _PEER.unpack(peer)
    return f"process {process}"
