"""`dsreg-fuse`: the command line of the FUSE frontend."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NoReturn

import click
import trio

from dsreg.cache import WritebackCache
from dsreg.cli import edges
from dsreg.cli.faults import describe, leaves
from dsreg.cli.options import log_format_option, slow_ms_option
from dsreg.cli.standard_files import run_command
from dsreg.client import Attach
from dsreg.errors import AlreadyAttached, ClientError, ConfigError, DsregError, is_config_fault
from dsreg.logs import log_to_file, log_to_stderr, reopen_at_hangup
from dsreg.version import described_version
from dsreg.volume import Opening, VolumeOptions, open_volume
from dsreg.volume.signals import say_what_is_left
from fuse_frontend import bindings, mounts, state
from fuse_frontend.detach import detach
from fuse_frontend.loop import Loop
from fuse_frontend.mount import MountOptions, check_mountpoint, serve
from fuse_frontend.mounts import MountError
from fuse_frontend.process import Parent, daemonize

log = logging.getLogger(__name__)

WHO = "fuse"  # in the log


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.argument("mountpoint", type=click.Path(path_type=Path))
@edges.config_option
@edges.size_option
@click.option("--foreground/--daemon", default=True, show_default=True,
              help="Serve until SIGTERM or SIGINT; or go to the background as soon as the mount is up.")
@click.option("--log-file", type=click.Path(path_type=Path, dir_okay=False),
              help="Log here. With --daemon the default is a file below /var/log/dsreg or ~/.local/state/dsreg.")
@click.option("--attach", is_flag=True,
              help="Set up a loop device, too (direct I/O, 4096-byte blocks), and print its name.")
@click.option("--detach", "do_detach", is_flag=True,
              help="Take down the loop device, the mount and what serves it. Refused while it is in use.")
@edges.quorum_loss_option
@edges.io_timeout_option
@click.option("--take-over", is_flag=True,
              help="Attach the disk even if another dsreg-fuse that is alive has it attached: all further requests of "
                   "that one fail.")
@click.option("--shared", is_flag=True,
              help="Do not attach the disk, so that several hosts may mount it. For cluster file systems and programs "
                   "that do their own locking; two mounts destroy any other file system. Writes take two rounds "
                   "instead of one.")
@edges.cache_option
@click.option("--binding", type=click.Choice(bindings.CHOICES), default=bindings.AUTO, show_default=True,
              help="How to use FUSE: through the library pyfuse3, or directly, which is faster with many requests in "
                   "flight. auto: direct with --attach, else pyfuse3.")
@click.option("--allow-other", is_flag=True, help="Let other users see the mount (the file stays mode 0600).")
@edges.metrics_option
@edges.verbose_option
@log_format_option
@slow_ms_option
@click.version_option(described_version(), prog_name="dsreg-fuse")
def main(
    mountpoint: Path, config_file: Path | None, size: int | None, foreground: bool, log_file: Path | None, attach: bool,
    do_detach: bool, on_quorum_loss: str, io_timeout: float, take_over: bool, shared: bool, cache: str,
    binding: str, allow_other: bool, metrics: tuple[str, int] | None, verbose: bool, log_format: str,
    slow_ms: int | None,
) -> None:
    """Mount the replicated disk as the file disk.img in MOUNTPOINT, an empty directory.

    \b
    A file system on it:
        DEV=$(dsreg-fuse --daemon --attach /mnt/disk)
        mkfs.ext4 $DEV && mount $DEV /mnt/files
    And down again:
        umount /mnt/files && dsreg-fuse --detach /mnt/disk
    """
    if attach and do_detach:
        raise click.UsageError("--attach and --detach exclude each other")
    if take_over and shared:
        raise click.UsageError("--take-over attaches the disk, --shared does not: they exclude each other")
    log_to_stderr(WHO, 2 if verbose else 1, log_format)
    try:
        path = mounts.resolve(mountpoint)
        if do_detach:
            for line in trio.run(detach, path):
                click.echo(line, err=True)
            return
        check_mountpoint(path)
        chosen = bindings.choose(binding, loop_device=attach)
        _check_cache(cache, is_exclusive=not shared)
        source = edges.chosen_disk(
            config_file, size, on_quorum_loss=on_quorum_loss, io_timeout=io_timeout, cache=cache, edge=WHO,
            metrics=metrics, slow_ms=slow_ms,
            attach=None if shared else Attach(take_over=take_over, name=f"{socket.gethostname()}:{path}"),
        )
        if not foreground:
            log_file = _default_log_file(path) if log_file is None else log_file.absolute()
            log_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        options = MountOptions(path, allow_other, attach, log_file, chosen)
        if foreground:
            reopen_at_hangup(log_file, [] if log_file is None else [log_to_file(log_file)])
            edges.serve_block_io(_serve, source, options, _print_device)
        else:
            assert log_file is not None
            parent = daemonize(log_file)
            reopen_at_hangup(log_file, (1, 2))
            _run_as_daemon(source, options, parent)
    except (DsregError, OSError) as error:
        edges.fail("dsreg-fuse", error)


def run() -> NoReturn:
    """The entry point of `dsreg-fuse`."""
    run_command(main, "dsreg-fuse")


def _check_cache(cache: str, is_exclusive: bool) -> None:
    """Raises UsageError for a cache that somebody else's writes could go past. `is_exclusive`: this mount has the disk
    for itself."""
    if cache != "none" and not is_exclusive:
        raise click.UsageError(
            f"--cache={cache} is for a disk that is attached to this mount alone: other mounts would not see what is "
            f"in the cache. Leave out --shared, or the cache."
        )


async def _serve(source: VolumeOptions, options: MountOptions, on_up: Callable[[Loop | None], None]) -> None:
    async with open_volume(source) as opening:
        if not await _wait_until_attached(opening):
            return
        async with _telling_what_is_left(source.is_cached) as tell, opening.volume() as (volume, cache):
            if cache is not None:
                tell(cache)
            await serve(volume, options, on_up)


async def _wait_until_attached(opening: Opening) -> bool:
    """Whether the disk is attached, as long as no signal ends the wait. Raises MountError if it cannot be."""
    attached = False

    async def end_at_signal() -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            waiting.start_soon(attach)
            number = await anext(signals)
            log.info("%s: the disk was not attached yet, and nothing is mounted", signal.Signals(number).name)
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            waiting.cancel_scope.cancel()

    async def attach() -> None:
        nonlocal attached
        await opening.attached()
        attached = True
        waiting.cancel_scope.cancel()

    try:
        async with trio.open_nursery() as waiting:
            waiting.start_soon(end_at_signal)
    except* AlreadyAttached as group:
        raise MountError(f"{_reason(group)}: --take-over does that. (--shared mounts without attaching, for "
                         "cluster file systems and programs that do their own locking)") from None
    except* ClientError as group:
        [error] = leaves(group)
        if is_config_fault(error):
            raise ConfigError(describe([error])) from None  # type: ignore[list-item]  # it is an Exception
        raise MountError(_reason(group)) from None
    return attached


def _reason(group: BaseExceptionGroup[ClientError]) -> str:
    [error] = leaves(group)
    assert isinstance(error, ClientError)
    return error.reason


@asynccontextmanager
async def _telling_what_is_left(is_cached: bool) -> AsyncIterator[Callable[[WritebackCache], None]]:
    """After the unmount there is nothing that a signal could end but the writing back: it only says how much is left.
    Gives what takes the cache."""
    if not is_cached:
        yield lambda cache: None
        return
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            yield lambda cache: nursery.start_soon(_say_what_is_left, signals, cache)
            nursery.cancel_scope.cancel()


async def _say_what_is_left(signals: AsyncIterator[int], cache: WritebackCache) -> None:
    async for signum in signals:
        say_what_is_left(signum, cache.buffered_bytes)


def _run_as_daemon(source: VolumeOptions, options: MountOptions, parent: Parent) -> None:
    """The rest of a daemon's life. Its errors go to the parent as long as it waits, and to the log."""
    def on_up(attached: Loop | None) -> None:
        parent.report_up(f"{attached.node}\n" if attached else "")

    try:
        edges.serve_block_io(_serve, source, options, on_up)
        parent.report_failure("ended by a signal before the mount was up: nothing is mounted", edges.EXIT_FAILED)
    except (DsregError, OSError) as error:
        code = edges.EXIT_USAGE if isinstance(error, ConfigError) else edges.EXIT_FAILED
        parent.report_failure(edges.text_of(error), code)
        log.error("%s", edges.text_of(error))
        sys.exit(code)


def _print_device(attached: Loop | None) -> None:
    """The name of the device is the one thing on standard output, for scripts."""
    if attached is None:
        return
    try:
        click.echo(attached.node)
    except OSError:
        # What could not be written stays in the buffer, and would fail once more at the end of the process.
        with open(os.devnull, "wb") as devnull:
            os.dup2(devnull.fileno(), sys.stdout.fileno())
        raise


def _default_log_file(mountpoint: Path) -> Path:
    if os.geteuid() == 0:
        base = Path("/var/log")
    else:
        base = Path(os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state"))
    return base / "dsreg" / state.file_name(mountpoint, ".log")


if __name__ == "__main__":
    run()
