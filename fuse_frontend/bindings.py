"""Which binding to FUSE serves a mount."""

from __future__ import annotations

import importlib.util
from collections.abc import Awaitable, Iterable
from pathlib import Path
from typing import Protocol

from fuse_frontend import direct
from fuse_frontend.files import DiskFiles
from fuse_frontend.mounts import MountError

AUTO, PYFUSE3, DIRECT = "auto", "pyfuse3", "direct"
CHOICES = (AUTO, PYFUSE3, DIRECT)
INSTALL = ("pyfuse3 is not installed. To install it (Debian): apt install libfuse3-dev pkg-config gcc python3-dev && "
           "pip install 'dsreg[fuse]'. Or mount without it: --binding=direct")


class Binding(Protocol):
    """One mount. `name`: of the binding, for people."""

    @property
    def name(self) -> str: ...

    def run(self) -> Awaitable[None]:
        """Serve until the mount is gone."""

    async def on_up(self) -> None:
        """The mount answers; what could not be set up before is now."""

    def close(self) -> None:
        """Whatever is asked through the mount, or has been, fails from now on, mounted or not."""


def choose(wanted: str, *, loop_device: bool) -> str:
    """PYFUSE3 or DIRECT. AUTO is pyfuse3; and direct under a loop device, which gains by a deeper queue.

    Raises MountError where pyfuse3 is to be used and not installed.
    """
    if wanted == DIRECT or wanted == AUTO and loop_device:
        return DIRECT
    if importlib.util.find_spec("pyfuse3") is None:
        raise MountError(INSTALL)
    return PYFUSE3


async def mount(binding: str, files: DiskFiles, mountpoint: Path, options: Iterable[str]) -> Binding:
    """Mount `files`. Raises MountError; then nothing is mounted."""
    if binding == DIRECT:
        return await direct.mount(files, mountpoint, options)
    try:
        from fuse_frontend import library
    except ImportError as error:
        raise MountError(f"pyfuse3 cannot be loaded ({error}). Install it again, or mount without it: --binding=direct"
                         ) from error
    return await library.mount(files, mountpoint, options)
