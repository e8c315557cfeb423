"""`dsreg-fuse --detach`: the loop devices, the mount and the serving process, in this order, each verified."""

from __future__ import annotations

import os
import select
import signal
import subprocess
from pathlib import Path

import trio

from fuse_frontend import holders, loop, mounts, state
from fuse_frontend.loop import PASSING_USER_S, POLL_INTERVAL_S, Loop
from fuse_frontend.mount import devices_of, unmount
from fuse_frontend.mounts import FS_TYPE, IMAGE_NAME, MountError, quoted

# After the unmount the process closes its client and stops an embedded cluster, whose nodes have 5 s each.
PROCESS_END_TIMEOUT_S = 30.0
# A healthy cluster takes a full write-back cache in a few seconds.
FLUSH_TIMEOUT_S = 30.0


async def detach(mountpoint: Path) -> list[str]:
    """Undo everything that stands on `mountpoint` (see `mounts.resolve`); what was done, one line each.

    Raises MountError, with nothing touched, while anything uses a loop device on the image; and with what
    is left, when a later step does not succeed.
    """
    mount = mounts.mount_at(mountpoint)
    serving = state.recall(mountpoint)
    if mount is not None and mount.fs_type != FS_TYPE:
        raise MountError(f"{mountpoint} is not a mount of dsreg-fuse ({mount.fs_type})")
    devices = devices_of(mountpoint)
    is_alive = serving is not None and serving.is_alive
    if mount is None and not devices and not is_alive:
        state.forget(mountpoint)
        raise MountError("\n".join([f"nothing is mounted at {mountpoint}", *_orphans()]))
    if uses := await _uses(mountpoint, mount, devices, serving.pid if serving is not None and is_alive else None):
        raise MountError("\n".join([
            f"{quoted(mountpoint)} is in use:", *(f"  {use.text}" for use in uses),
            "Release it first, then run this again:", *(f"  {command}" for command in holders.commands_of(uses)),
        ]))
    done = []
    for device in devices:
        await loop.detach(device)
        done.append(f"{device.node} detached")
    if mounts.mount_at(mountpoint) is not None:
        if is_alive:
            await _flush(mountpoint / IMAGE_NAME)
        await unmount(mountpoint)
        done.append(f"{mountpoint} unmounted")
    if serving is not None and is_alive:
        await _end_of(serving)
        done.append(f"process {serving.pid} ended")
    state.forget(mountpoint)
    if mounts.mount_at(mountpoint) is not None:
        raise MountError(f"another mount at {mountpoint} was underneath; run this again to take it down, too")
    return done


async def _uses(
    mountpoint: Path, mount: mounts.Mount | None, devices: list[Loop], server: int | None
) -> list[holders.Use]:
    """All that must end first. Programs, of which udev may be one, are given a moment to end by themselves."""
    give_up_s = trio.current_time() + PASSING_USER_S
    while True:
        uses = [use for device in devices for use in holders.of_device(device.name)]
        if mount is not None:
            uses += holders.of_mount(mountpoint, mount, server)
        if not all(use.passes for use in uses) or not uses or trio.current_time() >= give_up_s:
            return uses
        await trio.sleep(POLL_INTERVAL_S)


async def _flush(image: Path) -> None:
    """Have everything written back that is in a cache, while it can still be said if that fails. Raises MountError.

    In a process of its own: one that waits for a disk cannot be ended.
    """
    try:
        syncing = await trio.lowlevel.open_process(["sync", str(image)], stdin=subprocess.DEVNULL)
    except OSError as error:
        raise MountError(f"sync cannot be started: {error.strerror}") from None
    with trio.move_on_after(FLUSH_TIMEOUT_S):
        if await syncing.wait() == 0:
            return
        raise MountError(f"{image} stays mounted: data in its cache cannot be written to the nodes; see its log. "
                         f"To unmount and lose that data: fusermount3 -u {quoted(image.parent)}")
    raise MountError(f"{image} stays mounted: data in its cache has not reached a majority of the nodes within "
                     f"{FLUSH_TIMEOUT_S:.0f} s; see dsreg status, then run this again")


def _orphans() -> list[str]:
    """Devices on an image whose mount is gone, which nobody wrote down; one line each."""
    image = Path(f"/{IMAGE_NAME}")
    if os.path.lexists(image):
        return []
    return [f"{device.node} is on the image of a mount that is gone; if it was this one: losetup -d {device.node}"
            for device in loop.loops_of(image)]


async def _end_of(serving: state.ServingProcess) -> None:
    """Return when the process has ended; it does so by itself after the unmount. Raises MountError."""
    if await _ends_within(serving, PROCESS_END_TIMEOUT_S):
        return
    # SIGTERM is harmless: with the mount gone there is nothing left that it could tear down.
    try:
        os.kill(serving.pid, signal.SIGTERM)
    except ProcessLookupError:
        return
    if not await _ends_within(serving, PROCESS_END_TIMEOUT_S):
        log_file = serving.log_file or "on its terminal"
        raise MountError(f"process {serving.pid} does not end; its log is {log_file}")


async def _ends_within(serving: state.ServingProcess, timeout_s: float) -> bool:
    try:
        pidfd = os.pidfd_open(serving.pid)
    except ProcessLookupError:
        return True
    try:
        if not serving.is_alive:
            return True  # the number was already somebody else's
        readable, _, _ = await trio.to_thread.run_sync(select.select, [pidfd], [], [], timeout_s)
        return bool(readable)
    finally:
        os.close(pidfd)
