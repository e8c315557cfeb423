"""`dsreg-fuse`: the command line of the FUSE frontend."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

import click
import trio

from dsreg.block_device import BlockDevice
from dsreg.cache import WritebackCache
from dsreg.cli.faults import describe, is_config_fault
from dsreg.cli.options import Seconds
from dsreg.cli.standard_files import run_command
from dsreg.client import Attach, Client
from dsreg.config import ClusterConfig, find_config, format_address, load_config, parse_size
from dsreg.constants import SECTOR_SIZE
from dsreg.core.absences import CHECK_INTERVAL_S, Absences, describe_absence
from dsreg.core.quorum import majority
from dsreg.errors import AlreadyAttached, ClientError, ConfigError, DsregError
from dsreg.logs import error_prefix, log_to_file, log_to_stderr, reopen_at_hangup
from dsreg.memory import prepare_to_serve_block_io
from dsreg.store import SectorStore
from dsreg.version import described_version
from fuse_frontend import bindings, embedded, mounts, state
from fuse_frontend.detach import detach
from fuse_frontend.loop import Loop
from fuse_frontend.mount import MountOptions, check_mountpoint, serve
from fuse_frontend.mounts import MountError
from fuse_frontend.process import Parent, daemonize

log = logging.getLogger(__name__)

EXIT_FAILED, EXIT_USAGE = 1, 2
# Nodes listen within a second; a machine that just boots, or one whose old nodes still drain, takes longer.
CLUSTER_START_TIMEOUT_S = 60.0
# Attaching takes milliseconds where a majority is up.
ATTACH_PATIENCE_S = 5.0
WHO = "fuse"  # in the log


@dataclass(frozen=True)
class Source:
    """The cluster to mount. `is_embedded`: its nodes are run here. `timeout_s` None: wait for ever. `attach`: how to
    keep others out, None if they are welcome. `is_cached`: with a write-back cache."""

    config: ClusterConfig
    is_embedded: bool
    timeout_s: float | None
    attach: Attach | None
    is_cached: bool


def _size(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """A size like 1GiB, in bytes; a positive multiple of 4096."""
    if value is None:
        return None
    try:
        size = parse_size(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    if size <= 0 or size % SECTOR_SIZE:
        raise click.BadParameter(f"{size} bytes are no positive multiple of {SECTOR_SIZE}")
    return size


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.argument("mountpoint", type=click.Path(path_type=Path))
@click.option("-c", "--config", "config_file", type=click.Path(path_type=Path, dir_okay=False),
              help="The cluster. Default: $DSREG_CONFIG, ~/.config/dsreg/cluster.toml, /etc/dsreg/cluster.toml, "
                   "or else a cluster of three nodes that is run along with the mount.")
@click.option("--size", callback=_size, metavar="SIZE",
              help="Size of the disk of a new embedded cluster.  [default: 1GiB]")
@click.option("--foreground/--daemon", default=True, show_default=True,
              help="Serve until SIGTERM or SIGINT; or go to the background as soon as the mount is up.")
@click.option("--log-file", type=click.Path(path_type=Path, dir_okay=False),
              help="Log here. With --daemon the default is a file below /var/log/dsreg or ~/.local/state/dsreg.")
@click.option("--attach", is_flag=True,
              help="Set up a loop device, too (direct I/O, 4096-byte blocks), and print its name.")
@click.option("--detach", "do_detach", is_flag=True,
              help="Take down the loop device, the mount and what serves it. Refused while it is in use.")
@click.option("--on-quorum-loss", type=click.Choice(["block", "eio"]), default="block", show_default=True,
              help="While no majority of the nodes can be reached: wait, or fail after --io-timeout.")
@click.option("--io-timeout", type=Seconds(min=0.1), default=30.0, show_default=True, metavar="SECONDS",
              help="How long a request may take with --on-quorum-loss=eio.")
@click.option("--take-over", is_flag=True,
              help="Attach the disk even if another dsreg-fuse that is alive has it: that one is fenced, and fails.")
@click.option("--shared", is_flag=True,
              help="Do not attach the disk: others may mount it as well. For what knows how to share, as no ordinary "
                   "file system does. Writes take two rounds instead of one.")
@click.option("--cache", type=click.Choice(["none", "writeback"]), default="none", show_default=True,
              help="When a write returns: as soon as a majority has it on disk, or as soon as it is in memory here. In "
                   "the second case it is durable after an fsync, as with the cache of any disk.")
@click.option("--binding", type=click.Choice(bindings.CHOICES), default=bindings.AUTO, show_default=True,
              help="How to speak to FUSE: by the library pyfuse3, or directly, which is faster with many requests in "
                   "flight. auto: pyfuse3, and direct with --attach.")
@click.option("--allow-other", is_flag=True, help="Let other users see the mount (the file stays mode 0600).")
@click.option("-v", "--verbose", is_flag=True, help="Log more.")
@click.version_option(described_version(), prog_name="dsreg-fuse")
def main(
    mountpoint: Path, config_file: Path | None, size: int | None, foreground: bool, log_file: Path | None, attach: bool,
    do_detach: bool, on_quorum_loss: str, io_timeout: float, take_over: bool, shared: bool, cache: str,
    binding: str, allow_other: bool, verbose: bool,
) -> None:
    """Mount the replicated disk as the file disk.img in MOUNTPOINT, an empty directory.

    \b
    A file system on it:
        DEV=$(dsreg-fuse --daemon --attach /mnt/disk)
        mkfs.ext4 -E nodiscard $DEV && mount $DEV /mnt/files
    And down again:
        umount /mnt/files && dsreg-fuse --detach /mnt/disk
    """
    if attach and do_detach:
        raise click.UsageError("--attach and --detach exclude each other")
    if take_over and shared:
        raise click.UsageError("--take-over is for a disk of one's own; it excludes --shared")
    log_to_stderr(WHO, 2 if verbose else 1)
    try:
        path = mounts.resolve(mountpoint)
        if do_detach:
            for line in trio.run(detach, path):
                click.echo(line, err=True)
            return
        check_mountpoint(path)
        chosen = bindings.choose(binding, loop_device=attach)
        _check_cache(cache, is_exclusive=not shared)
        source = _source(
            config_file, size, timeout_s=io_timeout if on_quorum_loss == "eio" else None,
            attach=None if shared else Attach(take_over, f"{socket.gethostname()}:{path}"),
            is_cached=cache == "writeback",
        )
        if not foreground:
            log_file = _default_log_file(path) if log_file is None else log_file.absolute()
            log_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        options = MountOptions(path, allow_other, attach, log_file, chosen)
        if foreground:
            reopen_at_hangup(log_file, [] if log_file is None else [log_to_file(WHO, log_file)])
            _run(source, options, _print_device)
        else:
            assert log_file is not None
            parent = daemonize(log_file)
            reopen_at_hangup(log_file, (1, 2))
            _run_as_daemon(source, options, parent)
    except ConfigError as error:
        _fail(*error.faults, code=EXIT_USAGE)
    except (DsregError, OSError) as error:
        _fail(_text(error), code=EXIT_FAILED)


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


def _source(
    config_file: Path | None, size: int | None, *, timeout_s: float | None, attach: Attach | None, is_cached: bool
) -> Source:
    """The cluster that the user means. Raises ConfigError or MountError."""
    found = find_config(config_file)
    if found is None:
        cluster = embedded.ensure_cluster(embedded.default_directory(), size)
        return Source(cluster, True, timeout_s, attach, is_cached)
    if size is not None:
        raise ConfigError([f"--size is for a new embedded cluster; the size of this disk stands in {found}"])
    return Source(load_config(found, need_system_key=False), False, timeout_s, attach, is_cached)


def _run(source: Source, options: MountOptions, on_up: Callable[[Loop | None], None]) -> None:
    """Serve until unmounted. Raises DsregError, a single one, when it cannot be set up."""
    prepare_to_serve_block_io()
    try:
        trio.run(_serve, source, options, on_up)
    except BaseExceptionGroup as group:
        leaves = _leaves(group)
        if all(isinstance(leaf, KeyboardInterrupt) for leaf in leaves):
            raise KeyboardInterrupt from None  # Ctrl-C while the cluster starts
        if len(leaves) == 1 and isinstance(leaves[0], DsregError):
            raise leaves[0] from None
        raise


def _leaves(error: BaseException) -> list[BaseException]:
    """The errors in a group, in groups in it, and so on."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for part in error.exceptions for leaf in _leaves(part)]
    return [error]


async def _serve(source: Source, options: MountOptions, on_up: Callable[[Loop | None], None]) -> None:
    async with trio.open_nursery() as nursery:
        if source.is_embedded:
            try:
                with trio.fail_after(CLUSTER_START_TIMEOUT_S):
                    await nursery.start(embedded.run_cluster, source.config)
            except trio.TooSlowError:
                raise MountError(f"the nodes of {source.config.path} do not start; see what they log") from None
        is_shared = source.attach is None  # it writes beside whoever else has the disk: that was asked for
        async with Client(source.config, source.timeout_s, _with_process(source.attach), force=is_shared) as client:
            if source.attach is not None:
                if not await _wait_until_attached(client):
                    nursery.cancel_scope.cancel()
                    return
                nursery.start_soon(_report_loss, client)
            nursery.start_soon(_watch_nodes, client)
            async with _maybe_cached(client, source) as store:
                await serve(BlockDevice(store), options, on_up)
        nursery.cancel_scope.cancel()


def _with_process(attach: Attach | None) -> Attach | None:
    """Named not before there is a daemon: whoever started it ends."""
    return None if attach is None else replace(attach, name=f"{attach.name}, process {os.getpid()}")


async def _wait_until_attached(client: Client) -> bool:
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
        with trio.move_on_after(ATTACH_PATIENCE_S):
            await client.attached()
            attached = True
        if not attached:
            log.warning("waiting to attach the disk: %s", client.why_not_attached())
            await client.attached()
            attached = True
        waiting.cancel_scope.cancel()

    try:
        async with trio.open_nursery() as waiting:
            waiting.start_soon(end_at_signal)
    except* AlreadyAttached as group:
        raise MountError(f"{_reason(group)}: --take-over does that. (--shared mounts the disk beside others, for "
                         "programs that know how to share one)") from None
    except* ClientError as group:
        [error] = _leaves(group)
        if is_config_fault(error):
            raise ConfigError(describe([error])) from None  # type: ignore[list-item]  # it is an Exception
        raise MountError(_reason(group)) from None
    return attached


def _reason(group: BaseExceptionGroup[ClientError]) -> str:
    [error] = _leaves(group)
    assert isinstance(error, ClientError)
    return error.reason


async def _report_loss(client: Client) -> None:
    error = await client.lost()
    log.error("%s. Every request is answered with an I/O error from now on: unmount what stands on it, and detach",
              error.reason)


async def _watch_nodes(client: Client) -> None:
    """Say which nodes have been out of reach for long, and when they are back."""
    addresses = {node.rank: format_address(node.host, node.port) for node in client.nodes}
    absences = Absences(addresses, trio.current_time())
    while True:
        await trio.sleep(CHECK_INTERVAL_S)
        reached = client.connected_ranks
        for rank, is_back, absent_s in absences.check(reached, trio.current_time()):
            log.warning("%s", describe_absence(
                rank, addresses[rank], is_back, absent_s,
                reached=len(reached), nodes=len(addresses), needed=majority(len(addresses))))


@asynccontextmanager
async def _maybe_cached(client: Client, source: Source) -> AsyncIterator[SectorStore]:
    """The client itself, or with a cache in front of it, which is empty at the end."""
    if not source.is_cached:
        yield client
        return
    # After the unmount there is nothing that a signal could end but the writing back.
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            async with WritebackCache(client, source.timeout_s) as cache:
                nursery.start_soon(_say_what_is_left, signals, cache)
                yield cache
            nursery.cancel_scope.cancel()


async def _say_what_is_left(signals: AsyncIterator[int], cache: WritebackCache) -> None:
    async for signum in signals:
        log.warning("%s: %d bytes have yet to be written back, for which a majority of nodes must be up; to lose them: "
                    "kill -9 %d", signal.Signals(signum).name, cache.buffered_bytes, os.getpid())


def _run_as_daemon(source: Source, options: MountOptions, parent: Parent) -> None:
    """The rest of a daemon's life. Its errors go to the parent as long as it waits, and to the log."""
    def on_up(attached: Loop | None) -> None:
        parent.report_up(f"{attached.node}\n" if attached else "")

    try:
        _run(source, options, on_up)
        parent.report_failure("ended by a signal before the mount was up: nothing is mounted", EXIT_FAILED)
    except (DsregError, OSError) as error:
        code = EXIT_USAGE if isinstance(error, ConfigError) else EXIT_FAILED
        parent.report_failure(_text(error), code)
        log.error("%s", _text(error))
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


def _text(error: DsregError | OSError) -> str:
    """It may have several lines."""
    return str(error) if isinstance(error, DsregError) else describe([error])[0]


def _fail(*messages: str, code: int) -> None:
    for message in messages:
        click.echo(f"{error_prefix()}dsreg-fuse: {message}", err=True)
    sys.exit(code)


if __name__ == "__main__":
    run()
