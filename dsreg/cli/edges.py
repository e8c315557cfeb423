"""Shared by the command lines of the edges (`dsreg-fuse`, `dsreg-nbd`): options, the choice of the disk, exit codes."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NoReturn, TypeVarTuple, Unpack

import click
import trio

from dsreg.cli.faults import describe, leaves
from dsreg.cli.options import Seconds, to_address
from dsreg.client import Attach
from dsreg.config import ClusterConfig, find_config, load_config, parse_size
from dsreg.config.metrics import token_for
from dsreg.config.slow import slow_s
from dsreg.constants import SECTOR_SIZE
from dsreg.errors import ConfigError, DsregError
from dsreg.logs import said
from dsreg.memory import prepare_to_serve_block_io
from dsreg.metrics import missing_packages
from dsreg.volume import EdgeMeter, VolumeOptions, embedded

EXIT_FAILED, EXIT_USAGE = 1, 2
Arguments = TypeVarTuple("Arguments")


def _size(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """A size like 1GiB, in bytes; a positive multiple of 4096."""
    if value is None:
        return None
    try:
        size = parse_size(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    if size <= 0 or size % SECTOR_SIZE:
        raise click.BadParameter(f"{size} bytes are not a positive multiple of {SECTOR_SIZE}")
    return size


config_option = click.option(
    "-c", "--config", "config_file", type=click.Path(path_type=Path, dir_okay=False),
    help="The cluster. Default: $DSREG_CONFIG, ~/.config/dsreg/cluster.toml, /etc/dsreg/cluster.toml, or else an "
         "embedded cluster of three nodes, run on this host.")
size_option = click.option(
    "--size", callback=_size, metavar="SIZE", help="Size of the disk of a new embedded cluster.  [default: 1GiB]")
quorum_loss_option = click.option(
    "--on-quorum-loss", type=click.Choice(["block", "eio"]), default="block", show_default=True,
    help="While no majority of the nodes can be reached: wait, or fail after --io-timeout.")
io_timeout_option = click.option(
    "--io-timeout", type=Seconds(min=0.1), default=30.0, show_default=True, metavar="SECONDS",
    help="How long a request may take with --on-quorum-loss=eio.")
cache_option = click.option(
    "--cache", type=click.Choice(["none", "writeback"]), default="none", show_default=True,
    help="none: a write returns once a majority has it on disk. writeback: it returns once it is in memory here, and "
         "is durable after an fsync, as with the cache of any disk.")
metrics_option = click.option(
    "--metrics", callback=to_address, metavar="HOST:PORT",
    help="Serve metrics for Prometheus there, by HTTP: /metrics, and /healthz. Everybody on this host may read them at "
         "127.0.0.1:9600; an address that other hosts reach wants metrics_token_file in the configuration.  [default: "
         "nowhere]")
verbose_option = click.option("-v", "--verbose", is_flag=True, help="Log more.")


def chosen_disk(
    config_file: Path | None, size: int | None, *, on_quorum_loss: str, io_timeout: float, attach: Attach | None,
    cache: str, edge: str, metrics: tuple[str, int] | None, slow_ms: int | None,
) -> VolumeOptions:
    """The disk that the user means, by the values of the options above. `edge`: what metrics call it. Raises
    ConfigError or VolumeError."""
    timeout_s, is_cached = io_timeout if on_quorum_loss == "eio" else None, cache == "writeback"
    found = find_config(config_file)
    if found is None:
        cluster = embedded.ensure_cluster(embedded.default_directory(), size)
        return VolumeOptions(cluster, True, timeout_s, attach, is_cached, _meter(edge, metrics, cluster),
                             slow_s(slow_ms or 0))
    if size is not None:
        raise ConfigError([f"--size is for a new embedded cluster; the size of this disk is set in {found}"])
    config = load_config(found, need_system_key=False)
    return VolumeOptions(config, False, timeout_s, attach, is_cached, _meter(edge, metrics, config),
                         slow_s(config.slow_ms if slow_ms is None else slow_ms))


def _meter(edge: str, metrics: tuple[str, int] | None, config: ClusterConfig) -> EdgeMeter | None:
    """Raises ConfigError if the metrics that are wanted cannot be served."""
    if metrics is None:
        return None
    if missing := missing_packages():
        raise ConfigError([f"--metrics: {missing}"])
    try:
        return EdgeMeter(edge, metrics, token_for(metrics[0], config.metrics_token_file))
    except ValueError as error:
        raise ConfigError([f"--metrics: {error}"]) from None


def serve_block_io(serve: Callable[[Unpack[Arguments]], Awaitable[None]], *arguments: *Arguments) -> None:
    """Run `serve` under trio. Raises DsregError, a single one, where operating errors end it."""
    prepare_to_serve_block_io()
    try:
        trio.run(serve, *arguments)
    except BaseExceptionGroup as group:
        found = leaves(group)
        if all(isinstance(leaf, KeyboardInterrupt) for leaf in found):
            raise KeyboardInterrupt from None  # Ctrl-C while the cluster starts
        if len(found) == 1 and isinstance(found[0], DsregError):
            raise found[0] from None
        raise


def text_of(error: DsregError | OSError) -> str:
    """It may have several lines."""
    return str(error) if isinstance(error, DsregError) else describe([error])[0]


def fail(program: str, error: DsregError | OSError) -> NoReturn:
    """End `program` with what is wrong."""
    is_config = isinstance(error, ConfigError)
    for message in error.faults if isinstance(error, ConfigError) else (text_of(error),):
        click.echo(said(program, message), err=True)
    sys.exit(EXIT_USAGE if is_config else EXIT_FAILED)
