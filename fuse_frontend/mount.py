"""One mount from start to finish: checks, serving, the loop device, signals, the end."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import trio

from dsreg.errors import DsregError, WritebackFailed
from dsreg.volume import Volume
from dsreg.volume.signals import signals_to_answer
from fuse_frontend import bindings, holders, loop, mounts, session, state
from fuse_frontend.bindings import Binding
from fuse_frontend.files import DiskFiles
from fuse_frontend.loop import Loop
from fuse_frontend.mounts import FS_TYPE, IMAGE_NAME, Mount, MountError, quoted

log = logging.getLogger(__name__)

# From the mount system call to the first answered request.
MOUNT_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class MountOptions:
    """`mountpoint` is absolute and without symbolic links (`mounts.resolve`)."""

    mountpoint: Path
    allow_other: bool = False
    attach: bool = False
    log_file: Path | None = None
    binding: str = bindings.DIRECT  # or PYFUSE3

    @property
    def image(self) -> Path:
        return self.mountpoint / IMAGE_NAME


def check_mountpoint(mountpoint: Path) -> None:
    """Raise MountError, saying what to do, unless something can be mounted at `mountpoint` now."""
    mount = mounts.mount_at(mountpoint)
    if mount is not None:
        raise MountError(_why_mounted(mountpoint, mount))
    try:
        if not mountpoint.is_dir():
            if os.path.lexists(mountpoint):
                raise MountError(f"{mountpoint} is not a directory")
            raise MountError(f"{mountpoint} does not exist; create it: mkdir -p {quoted(mountpoint)}")
        names = os.listdir(mountpoint)
    except OSError as error:
        raise MountError(f"{mountpoint}: {error.strerror}") from None
    if names:
        raise MountError(f"{mountpoint} is not empty ({names[0]} is in it); choose an empty directory")


def _why_mounted(mountpoint: Path, mount: Mount) -> str:
    if mount.fs_type != FS_TYPE:
        return f"{mountpoint} is already a mount point ({mount.fs_type}); unmount it first"
    serving = state.recall(mountpoint)
    command = f"dsreg-fuse --detach {quoted(mountpoint)}"
    if serving is not None and serving.is_alive:
        return f"{mountpoint} is already mounted and served by process {serving.pid}; to take it down: {command}"
    try:
        os.statvfs(mountpoint)  # asks the server; stat might be answered from the kernel's cache
    except OSError as error:
        return (f"{mountpoint} is a stale mount ({error.strerror}): the process that served it has died. "
                f"To clean up: {command}")
    return f"{mountpoint} is already mounted; to take it down: {command}"


async def serve(volume: Volume, options: MountOptions, on_up: Callable[[Loop | None], None]) -> None:
    """Mount `volume`, attach it if asked to, and answer requests until it is unmounted.

    `on_up` is called once, when the mount answers (and the loop device stands); an OSError of it is logged. SIGTERM
    and SIGINT unmount if nothing uses the disk, and else only say who does. Raises MountError when it cannot be
    set up; then nothing is left behind. Whatever else ends it, the mount stays as long as a loop device is on it.
    """
    check_mountpoint(options.mountpoint)
    fuse_options = {"fsname=dsreg", "subtype=dsreg", "default_permissions"}
    if options.allow_other:
        fuse_options.add("allow_other")
    files = DiskFiles(volume, os.getuid(), os.getgid())
    try:
        binding = await bindings.mount(options.binding, files, options.mountpoint, fuse_options)
    except MountError as error:
        raise MountError(f"{options.mountpoint} cannot be mounted: {error}{_mount_hint(options)}") from None
    mounted = mounts.mount_at(options.mountpoint)
    try:
        state.remember(options.mountpoint, options.log_file, options.binding)
        with signals_to_answer() as signals:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_bring_up, binding, volume, options, on_up)
                nursery.start_soon(_answer_signals, signals, volume, options)
                nursery.start_soon(_follow_size, volume, options)
                await binding.run()
                if mounts.mount_at(options.mountpoint) == mounted:
                    log.warning("the kernel has ended the connection of %s", options.mountpoint,
                                extra={"path": str(options.mountpoint)})
                else:
                    log.info("%s has been unmounted", options.mountpoint, extra={"path": str(options.mountpoint)})
                nursery.cancel_scope.cancel()
    finally:
        # A loop device without its mount is hard to find; with it `--detach` can clean up. Requests fail from here on,
        # mounted or not, so that nothing below waits for an answer.
        binding.close()
        with trio.CancelScope(shield=True):
            await _take_down(options, mounted)


async def _take_down(options: MountOptions, mounted: Mount | None) -> None:
    """After the end of the session. There is something to unmount, `mounted`, only if it has died."""
    try:
        left = devices_of(options.mountpoint)
    except (MountError, OSError) as error:
        log.warning("%s", error)
        left = loop.loops_of(options.image)
    if left:
        try:
            await _release(left, options.mountpoint)
        except (MountError, OSError) as error:
            log.error("%s is no longer served, but in use: %s. To clean up: dsreg-fuse --detach %s",
                      options.image, error, quoted(options.mountpoint), extra={"path": str(options.mountpoint)})
            return
    elif mounted is not None and mounts.mount_at(options.mountpoint) == mounted:
        await session.unmount_lazily(options.mountpoint)
    state.forget(options.mountpoint)


async def _release(devices: list[Loop], mountpoint: Path) -> None:
    """Detach `devices`, then unmount. Raises MountError, with nothing touched when something stands on a device."""
    uses = [use.text for device in devices for use in holders.of_device(device.name) if not use.passes]
    if uses:
        raise MountError("; ".join(uses))
    for device in devices:
        await loop.detach(device)
        log.warning("%s detached, because %s is no longer served", device.node, mountpoint)
    if mounts.mount_at(mountpoint) is not None:
        await unmount(mountpoint)


def devices_of(mountpoint: Path) -> list[Loop]:
    """The loop devices on the image: those that show it, and the one that the server set up, whatever it shows."""
    image = mountpoint / IMAGE_NAME
    found = loop.loops_of(image)
    serving = state.recall(mountpoint)
    if serving is not None and (recorded := serving.attached()) is not None and recorded not in found:
        found.append(recorded)
    return found


def _mount_hint(options: MountOptions) -> str:
    """What to do about it, if that can be guessed."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "; /dev/fuse is missing or closed to this user (load the module fuse; in a container, pass the device)"
    if options.allow_other and os.geteuid() != 0:
        return "; --allow-other needs user_allow_other in /etc/fuse.conf"
    return ""


async def _bring_up(
    binding: Binding, volume: Volume, options: MountOptions, on_up: Callable[[Loop | None], None]
) -> None:
    """The part of the start that needs the mount to answer. On failure everything is taken down again."""
    try:
        with trio.fail_after(MOUNT_TIMEOUT_S):
            await trio.to_thread.run_sync(os.stat, options.mountpoint, abandon_on_cancel=True)
    except (OSError, trio.TooSlowError) as error:
        raise MountError(f"{options.mountpoint} does not answer after mounting: {error!r}") from None
    await binding.on_up()
    attached = None
    if options.attach:
        try:
            attached = await loop.attach(options.image)
        except MountError:
            # The end of the mount cancels this task, which still has to say what went wrong.
            with trio.CancelScope(shield=True):
                await unmount(options.mountpoint)
            raise
    what = f"{options.image} is up" + (f" and attached as {attached.node}" if attached else "")
    log.info("%s (FUSE binding: %s)", what, options.binding)
    # The device may be in use already; that nobody hears of it is no reason to take it away.
    try:
        state.remember(options.mountpoint, options.log_file, options.binding, attached)
    except (MountError, OSError) as error:
        log.warning("%s, but its state file could not be written, so that --detach will not find this process: %s",
                    what, error)
    volume.on_resized()  # it may have grown since the device was set up
    try:
        on_up(attached)
    except OSError as error:
        log.warning("%s, but this could not be reported to the process that started it: %s", what, error)


async def _follow_size(volume: Volume, options: MountOptions) -> None:
    """The disk may grow: the file follows by itself, the loop device that this process has set up is told."""
    resized = trio.Event()
    volume.on_resized = lambda: resized.set()
    while True:
        await resized.wait()
        resized = trio.Event()
        serving = state.recall(options.mountpoint)
        if serving is None or (attached := serving.attached()) is None:
            continue
        try:
            is_larger = await loop.grow(attached, options.image, volume.size)
        except (MountError, OSError) as error:
            log.error("%s has not got the new size of the disk: %s. Once that is mended: losetup -c %s", attached.node,
                      error, attached.node)
        else:
            if is_larger:
                log.info("%s has the new size of the disk; the file system on it can be made larger", attached.node)


async def _answer_signals(signals: AsyncIterator[int], volume: Volume, options: MountOptions) -> None:
    """Unmount at a signal, unless something uses the disk, or what is in its cache cannot be written back."""
    is_unmounted = False
    async for signum in signals:
        if is_unmounted:
            continue  # it asks for what has happened
        name = signal.Signals(signum).name
        try:
            if use := loop_use(options.mountpoint):
                log.warning("%s: %s stays mounted, because it is in use: %s", name, options.mountpoint, use,
                            extra={"path": str(options.mountpoint)})
                continue
            if volume.is_cached:
                log.info("%s: writing back what is in the cache, then unmounting", name)
                await _write_back(volume)
            await unmount(options.mountpoint)
            is_unmounted = True
        except (DsregError, OSError) as error:
            log.warning("%s: %s stays mounted: %s", name, options.mountpoint, error,
                        extra={"path": str(options.mountpoint)})


async def _write_back(volume: Volume) -> None:
    """Raises DsregError if that cannot be done now. What can never be done is no reason to stay."""
    try:
        await volume.flush()
    except WritebackFailed as error:
        if not error.is_final:
            raise
        log.error("unmounting all the same: %s", error)


def loop_use(mountpoint: Path) -> str:
    """The loop devices on the image, what stands on them, and the commands that end it; "" if there are none."""
    texts: list[str] = []
    commands: list[str] = []
    for device in devices_of(mountpoint):
        uses = holders.of_device(device.name)
        texts += [f"{device.node} is attached to it", *(use.text for use in uses)]
        commands += [*holders.commands_of(uses), f"losetup -d {device.node}"]
    if not texts:
        return ""
    return (f"{'; '.join(texts)}. To end that: {' && '.join(commands)}. Or, once nothing uses it, everything at once: "
            f"dsreg-fuse --detach {quoted(mountpoint)}")


async def unmount(mountpoint: Path) -> None:
    """Unmount, never lazily: the kernel itself refuses while anything is open. Raises MountError."""
    command = ["fusermount3", "-u", str(mountpoint)]
    try:
        done = await trio.run_process(command, capture_stderr=True, check=False, stdin=subprocess.DEVNULL)
    except FileNotFoundError:
        raise MountError("fusermount3 is not installed (Debian: apt install fuse3)") from None
    except OSError as error:
        raise MountError(f"fusermount3 cannot be started: {error.strerror}") from None
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip()
        users = ", ".join(map(str, mounts.users_of(mountpoint, below=True)))
        held = f"; used by {users}" if users else ""
        raise MountError(f"{mountpoint} cannot be unmounted: {said}{held}")
