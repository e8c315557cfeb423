"""Which process serves a mount point: a small JSON file per mount under the run-time directory."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from fuse_frontend.loop import Loop, recorded_loop, sequence_of
from fuse_frontend.mounts import IMAGE_NAME, MountError, mount_at, mount_table

# Bytes of the name of a mount point in a file name, which has 255 at most: there is more before and behind it.
MAX_NAME_BYTES = 200


@dataclass(frozen=True)
class ServingProcess:
    """`started` is the process's start time in clock ticks since boot: pids are used again, pairs are not."""

    mountpoint: str
    pid: int
    started: int
    log_file: str | None = None
    binding: str | None = None  # to FUSE
    # The loop device that the process set up ("loop0"), and what tells it from a later one of that name.
    device: str | None = None
    disk_sequence: str | None = None

    @property
    def is_alive(self) -> bool:
        return start_time(self.pid) == self.started

    def attached(self) -> Loop | None:
        """The loop device that the process set up, None when there is none any longer."""
        if self.device is None or self.disk_sequence is None:
            return None
        return recorded_loop(self.device, self.disk_sequence, Path(self.mountpoint) / IMAGE_NAME)


def start_time(pid: int) -> int | None:
    """Clock ticks from boot to the start of process `pid`; None when there is none, or only its remains."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="surrogateescape")
    except OSError:
        return None
    # The name stands in brackets and may itself contain blanks and brackets.
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in ("Z", "X") else int(fields[19])


def runtime_directory() -> Path:
    """A directory of this user alone, created if need be: /run/dsreg, $XDG_RUNTIME_DIR/dsreg, or below /tmp.

    Raises MountError when it belongs to somebody else.
    """
    if os.geteuid() == 0:
        directory = Path("/run/dsreg")
    elif base := os.environ.get("XDG_RUNTIME_DIR"):
        directory = Path(base) / "dsreg"
    else:
        directory = Path(tempfile.gettempdir()) / f"dsreg-{os.geteuid()}"
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = directory.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise MountError(f"{directory} is not a directory of this user; remove it or set XDG_RUNTIME_DIR")
    return directory


def file_name(mountpoint: Path, suffix: str) -> str:
    """A name that no other mount point has, and that a person recognises. A long name is cut off."""
    digest = hashlib.sha256(os.fsencode(mountpoint)).hexdigest()[:12]
    name = os.fsdecode(os.fsencode(mountpoint.name or "root")[:MAX_NAME_BYTES])
    return f"fuse-{name}-{digest}{suffix}"


def _state_file(mountpoint: Path) -> Path:
    return runtime_directory() / file_name(mountpoint, ".json")


def remember(mountpoint: Path, log_file: Path | None, binding: str, attached: Loop | None = None) -> None:
    """Write down that this process serves `mountpoint` (absolute, without symbolic links), and its loop device."""
    started = start_time(os.getpid())
    assert started is not None, "this process lives"
    serving = ServingProcess(
        str(mountpoint), os.getpid(), started, None if log_file is None else str(log_file), binding,
        attached.name if attached else None, sequence_of(attached.name) if attached else None,
    )
    path = _state_file(mountpoint)
    with _locked(path.parent):
        _sweep(path.parent)
        fresh = path.with_name(f".{path.name}.{os.getpid()}")
        fresh.write_text(json.dumps(asdict(serving)))
        fresh.replace(path)


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Whoever writes or sweeps is alone: a file that is swept is not one that was just written."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _sweep(directory: Path) -> None:
    """Remove what is written about processes that were killed and of which nothing is left to be taken down."""
    table = mount_table()
    for path in directory.glob("fuse-*.json"):
        try:
            serving = ServingProcess(**json.loads(path.read_text()))
        except (OSError, ValueError, TypeError):
            continue  # taken away meanwhile; or not ours to judge: `recall` complains about it
        if not serving.is_alive and mount_at(Path(serving.mountpoint), table) is None and serving.attached() is None:
            path.unlink(missing_ok=True)


def recall(mountpoint: Path) -> ServingProcess | None:
    """The process that serves, or served, `mountpoint`; None when nothing is known."""
    try:
        return ServingProcess(**json.loads(_state_file(mountpoint).read_text()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise MountError(f"{_state_file(mountpoint)} cannot be read ({error}); remove it") from None


def forget(mountpoint: Path) -> None:
    """Nobody serves `mountpoint` any longer."""
    _state_file(mountpoint).unlink(missing_ok=True)
