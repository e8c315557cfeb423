"""`dsreg node`: one node process, from its configuration to a clean stop."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import socket
import sys
from pathlib import Path

import click

from dsreg.cli.faults import EXIT_CONFIG, EXIT_FAILED, describe, operating_errors
from dsreg.cli.options import (
    chosen_config,
    config_option,
    log_format_option,
    slow_ms_option,
    to_address,
    to_scrub_days,
    to_size,
)
from dsreg.config import ClusterConfig, NodeConfig, format_address, format_size
from dsreg.config.metrics import token_for
from dsreg.constants import DEFAULT_JOURNAL_BYTES, MAX_RANK, MAX_SCRUB_DAYS
from dsreg.errors import ConfigError, DsregError, StorageError
from dsreg.listening import OnlyThisHost, bind, loopback_meant
from dsreg.logs import log_to_stderr
from dsreg.memory import prepare_to_serve_block_io
from dsreg.metrics import missing_packages

_PR_SET_PDEATHSIG = 1

_log = logging.getLogger("dsreg.node")


@click.command()
@config_option
@click.option("--rank", type=click.IntRange(1, MAX_RANK), required=True, help="Rank of this node in the configuration.")
@click.option("--storage", type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
              help="The node's own directory.  [default: as configured, node-RANK beside the file]")
@click.option("--listen", callback=to_address, metavar="HOST:PORT",
              help="Where to listen, if not at the node's address: 0.0.0.0:7001 in a container, or behind NAT.  "
              "[default: as configured]")
@click.option("--journal-size", "journal_bytes", callback=to_size, metavar="SIZE",
              default=format_size(DEFAULT_JOURNAL_BYTES), show_default=True,
              help="Size of each of the two journal segments, 2MiB to 256MiB.")
@click.option("--heal-rate", callback=to_size, metavar="SIZE",
              help="Fetch at most this much a second of what this node lacks.  [default: as configured]")
@click.option("--scrub-days", type=float, callback=to_scrub_days, metavar="DAYS",
              help=f"Verify all of this node's copy once in so many days, up to {MAX_SCRUB_DAYS}; 0: never.  "
              "[default: as configured, or 14]")
@click.option("--new", is_flag=True, help="For a new cluster whose other nodes cannot be started yet: start with an "
              "empty directory although they have not confirmed that this rank is new. A node that knows this rank by "
              "another directory still refuses it. Do not put it into a systemd unit.")
@click.option("--rejoin", is_flag=True, help="For a node whose directory was lost for good: with an empty directory it "
              "takes the next life of its rank, and learns what the others have. One more than may be missing "
              "of them have to be up: of three both. Nothing follows where the directory is there. Do not put "
              "it into a systemd unit: a mount that is missing looks like a directory that is lost.")
@click.option("--join", is_flag=True, help="For a new node of a cluster that is there: with an empty directory it "
              "waits until `dsreg members` makes it a member, whatever its cluster.toml lists. The directory keeps "
              "that in mind. Nothing follows where the node has been a member, so a systemd unit may have it.")
@click.option("--metrics", callback=to_address, metavar="HOST:PORT",
              help="Serve a page of the whole cluster there for browsers, by HTTP, and metrics for Prometheus: /, "
              "/metrics, /healthz. Everybody on this host may read them at 127.0.0.1:9601; an address that other hosts "
              "reach wants a token.  [default: as configured, or nowhere]")
@click.option("--metrics-token-file", "token_file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              help="What has to be shown for these pages.  [default: as configured, or nothing]")
@click.option("-v", "--verbose", "verbosity", count=True, help="Log more: -v events, -vv everything.")
@log_format_option
@slow_ms_option
@click.option("--supervisor-pid", type=int, hidden=True)
def node(config_path: Path | None, rank: int, storage: Path | None, listen: tuple[str, int] | None,
         journal_bytes: int, heal_rate: int | None, scrub_days: float | None, new: bool, rejoin: bool, join: bool,
         metrics: tuple[str, int] | None, token_file: Path | None, verbosity: int, log_format: str,
         slow_ms: int | None, supervisor_pid: int | None) -> None:
    """Run one node until SIGTERM or SIGINT; then finish what is under way and exit within 5 seconds.

    Says nothing while all is well. Tells systemd when it listens (Type=notify). Exits with 1 on a fault of the
    storage or the address, with 2 on one of the configuration.
    """
    if supervisor_pid is not None:
        _die_with(supervisor_pid)
    log_to_stderr(f"node-{rank}", verbosity, log_format, rank)
    cluster = chosen_config(config_path, need_system_key=True)
    if storage is None:
        storage = next((node.storage for node in cluster.nodes if node.rank == rank), Path())
    if new and join:
        raise click.UsageError("--new is for a new cluster, --join for one that is there")
    at, token = _metrics_at(metrics, token_file, cluster, rank)
    config = NodeConfig(cluster, rank, storage, journal_bytes, listen, new, rejoin, heal_rate, scrub_days, join, at,
                        token, slow_ms)
    try:
        signal.signal(signal.SIGTERM, _leave)  # until the node drains at SIGTERM there is nothing to drain
        # First of all, and before trio and the node are imported, which takes as long as all the rest:
        # whoever connects is kept waiting, not turned away.
        listeners = _bind(config)
        prepare_to_serve_block_io()
        from dsreg.cli.serve import run

        run(config, listeners)
    except (DsregError, OSError, BaseExceptionGroup) as raised:
        errors = operating_errors(raised)
        if errors is None:
            raise
        for error in errors:
            _log.critical("%s%s", _where(error, config), " ".join(describe([error])))
        sys.exit(EXIT_CONFIG if any(isinstance(error, OnlyThisHost) for error in errors) else EXIT_FAILED)


def _metrics_at(
    named: tuple[str, int] | None, token_file: Path | None, cluster: ClusterConfig, rank: int
) -> tuple[tuple[str, int] | None, bytes]:
    """Where to serve metrics, and the token for it. What was named has to be possible; what the file says, which is the
    same for all hosts, is no reason not to start."""
    at, token_file = named or cluster.metrics_at(rank), token_file or cluster.metrics_token_file
    if at is None:
        if token_file != cluster.metrics_token_file:
            raise click.UsageError("--metrics-token-file is for --metrics, or metrics in the configuration")
        return None, b""
    token, why_not = b"", missing_packages()
    try:
        token = token_for(at[0], token_file)
    except ValueError as error:
        why_not = why_not or str(error)
    if not why_not:
        return at, token
    if named is not None:
        raise ConfigError([f"--metrics: {why_not}"])
    _log.warning("no metrics are served, as %s has it: %s", cluster.path, why_not)
    return None, b""


def _bind(config: NodeConfig) -> list[socket.socket]:
    host, port = config.listen_at
    listeners = bind(host, port, for_others=config.is_for_others)
    if meant := loopback_meant(host, port):
        _log.warning("%s resolves to %s on this host (see /etc/hosts): no other host can reach the node", host, meant)
    return listeners


def _where(error: Exception, config: NodeConfig) -> str:
    """What the fault is about, to be put before it; nothing where it names a path itself."""
    if isinstance(error, OSError) and error.filename:
        return ""
    return f"{config.storage if isinstance(error, StorageError) else format_address(*config.listen_at)}: "


def _leave(signum: int, frame: object) -> None:
    sys.exit(0)


def _die_with(parent: int) -> None:
    """Have the kernel send us SIGTERM when the process `parent`, which must be our parent, ends."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"prctl(PR_SET_PDEATHSIG): {os.strerror(code)}")
    if os.getppid() != parent:  # it ended before we asked
        sys.exit(EXIT_FAILED)
