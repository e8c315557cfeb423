"""`dsreg backup`: the whole disk in a file, as it is at one moment."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import click
import trio

from dsreg.cli.holes import sink_of
from dsreg.cli.image import finish
from dsreg.cli.options import chosen_config, config_option, timeout_option
from dsreg.cli.progress import progress_bar
from dsreg.cli.transfer import copy_out
from dsreg.client import Attach, Client
from dsreg.config import ClusterConfig
from dsreg.constants import SECTOR_SIZE
from dsreg.errors import AlreadyAttached, DiskFenced, DsregError

# How long qemu-img tries to connect to the server, which has to be imported first.
CONNECT_PATIENCE_S = 60
# How often it is looked whether somebody has taken the disk over, after which the rest need not be copied.
CHECK_INTERVAL_S = 1.0


class BackupFailed(DsregError):
    """There is no backup; the message says why."""


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@config_option
@timeout_option
@click.option("--format", "kind", type=click.Choice(["raw", "qcow2"]), default="raw", show_default=True,
              help="qcow2 is made by qemu-img, over NBD.")
@click.option("--freeze", "frozen", type=click.Path(path_type=Path, file_okay=False),
              metavar="MOUNTPOINT", help="The disk is attached, and its file system mounted here on this host: freeze "
              "that as long as the copy takes (fsfreeze). Whoever writes to it waits.")
def backup(file: Path, config_path: Path | None, timeout_s: float, kind: str, frozen: Path | None) -> None:
    """Copy the whole disk into FILE, as it is at one moment; zeros take no room.

    Nothing may change the disk meanwhile. Without --freeze the disk is attached for as long as the copy takes: it must
    not be mounted, nor served, anywhere. FILE is there, in place of an older one, once all of it is on disk; until then
    FILE.part is. What was interrupted begins anew: the rest of a copy would be of another moment.

    \b
    To restore a raw copy to a disk that is not attached, and a qcow2 one:
        dsreg write 0 < FILE
        qemu-img convert -n -O raw FILE nbd+unix:///?socket=SOCKET    (of dsreg-nbd)
    """
    config = chosen_config(config_path)
    if kind == "qcow2" and shutil.which("qemu-img") is None:
        raise BackupFailed("qemu-img is not installed (Debian: apt install qemu-utils)")
    if frozen is not None and not frozen.is_dir():
        raise click.UsageError(f"{frozen} is not there: --freeze takes the directory where the disk is mounted")
    if frozen is not None and file.absolute().parent.stat().st_dev == frozen.stat().st_dev:
        raise click.UsageError(f"{file} is in the file system that is to be frozen, and could not be written")
    part = file.with_name(f"{file.name}.part")
    copy = partial(_copy_raw if kind == "raw" else _copy_by_qemu, config, timeout_s, part)
    trio.run(_back_up, config, timeout_s, frozen, copy)
    finish(part, file)


async def _back_up(
    config: ClusterConfig, timeout_s: float, frozen: Path | None, copy: Callable[[], Awaitable[None]]
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_end_at_signals)
        async with AsyncExitStack() as stack:
            holder = None
            if frozen is not None:
                await stack.enter_async_context(_frozen(frozen))
            else:
                hold = Attach(name=f"{socket.gethostname()}:dsreg backup, process {os.getpid()}")
                holder = await stack.enter_async_context(Client(config, timeout_s, hold))
                await _attached(holder)
                nursery.start_soon(_watch, holder)
            await copy()
            if holder is not None:
                await _check(holder)
        nursery.cancel_scope.cancel()


async def _attached(holder: Client) -> None:
    try:
        await holder.attached()
    except AlreadyAttached as error:
        raise BackupFailed(f"{error.reason}. A copy would be of no single moment: detach the disk, or, where a file "
                           "system on it is mounted, have that frozen with --freeze MOUNTPOINT") from None


async def _watch(holder: Client) -> None:
    while True:
        await _check(holder)
        await trio.sleep(CHECK_INTERVAL_S)


async def _check(holder: Client) -> None:
    """Returned: the disk was the holder's alone up to here. An owner is told by the answers to what it asks whose the
    disk is. Raises BackupFailed, and ClientError if nobody can say."""
    try:
        await holder.read(0)
    except DiskFenced as error:
        raise BackupFailed(f"{error.reason}: what was copied is of no single moment") from None


async def _end_at_signals() -> None:
    """A file system does not stay frozen because its backup was ended."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGHUP) as signals:
        async for number in signals:
            raise BackupFailed(f"ended by {signal.Signals(number).name}")


@asynccontextmanager
async def _frozen(mountpoint: Path) -> AsyncIterator[None]:
    """What was written is on the disk, and nothing more is written. Raises BackupFailed."""
    with trio.CancelScope(shield=True):
        await _run("fsfreeze", "--freeze", mountpoint)
    try:
        yield
    finally:
        with trio.CancelScope(shield=True):
            await _run("fsfreeze", "--unfreeze", mountpoint)


async def _copy_raw(config: ClusterConfig, timeout_s: float, part: Path) -> None:
    descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        # Not by who has the disk attached, who would store anew what he reads.
        async with Client(config, timeout_s) as client:
            sectors = await client.size()  # which may be more than the file says
            async with progress_bar("copying", sectors * SECTOR_SIZE) as advance:
                await copy_out(client, 0, sectors, sink_of(descriptor, str(part)), advance)
    finally:
        os.close(descriptor)


async def _copy_by_qemu(config: ClusterConfig, timeout_s: float, part: Path) -> None:
    """A server and qemu-img, which knows the format. Raises BackupFailed with what either says."""
    with tempfile.TemporaryDirectory(prefix="dsreg-backup-") as directory:
        place = Path(directory) / "nbd.sock"
        server = [sys.executable, "-P", "-m", "nbd_frontend.cli", "--config", str(config.path), "--socket", str(place),
                  "--read-only", "--shared", "--on-quorum-loss=eio", f"--io-timeout={timeout_s}"]
        source = f"driver=nbd,server.type=unix,server.path={place},open-timeout={CONNECT_PATIENCE_S}"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_run, *server)
            show = ("-p",) if sys.stdout.isatty() else ()
            await _run("qemu-img", "convert", *show, "--image-opts", source, "-O", "qcow2", part, shows=bool(show))
            nursery.cancel_scope.cancel()


async def _run(*words: str | Path, shows: bool = False) -> None:
    """Raises BackupFailed with what the program said if it fails, be it for a signal. `shows`: on stdout."""
    command = [str(word) for word in words]
    try:
        done = await trio.run_process(command, stdin=subprocess.DEVNULL, capture_stdout=not shows, capture_stderr=True,
                                      check=False)
    except FileNotFoundError:
        raise BackupFailed(f"{command[0]} is not installed") from None
    if done.returncode:
        said = " ".join(done.stderr.decode(errors="replace").split()) or f"exit code {done.returncode}"
        raise BackupFailed(f"{Path(command[0]).name}: {said}")
