"""`dsreg-nbd`: the command line of the NBD server."""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import click

from dsreg.cli import edges
from dsreg.cli.notify import notify
from dsreg.cli.options import log_format_option, slow_ms_option
from dsreg.cli.standard_files import run_command
from dsreg.client import Attach
from dsreg.config import format_size
from dsreg.constants import SECTOR_SIZE
from dsreg.errors import DsregError
from dsreg.logs import log_to_file, log_to_stderr, reopen_at_hangup
from dsreg.version import described_version
from nbd_frontend.channel import tls_context
from nbd_frontend.negotiation import Export, Tls
from nbd_frontend.numbers import DEFAULT_PORT, MAX_STRING_BYTES
from nbd_frontend.server import Server, ServerOptions
from nbd_frontend.sockets import described, inherited, listen_tcp, unix_socket

log = logging.getLogger(__name__)

WHO = "nbd"  # in the log
TLS = {"force": Tls.FORCED, "require": Tls.REQUIRED}


def _name(ctx: click.Context, param: click.Parameter, value: str) -> str:
    if len(value.encode(errors="surrogateescape")) > MAX_STRING_BYTES:
        raise click.BadParameter(f"more than {MAX_STRING_BYTES} bytes")
    if not value.isprintable():
        raise click.BadParameter("has characters that cannot be printed")
    return value


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@edges.config_option
@edges.size_option
@click.option("--socket", "path", type=click.Path(path_type=Path, dir_okay=False), metavar="PATH",
              help="Listen on a socket at PATH, which is for this user (and root) alone.")
@click.option("--port", type=click.IntRange(0, 65535), metavar="PORT",
              help=f"Listen on this TCP port; the one of the protocol is {DEFAULT_PORT}. 0: any that is free.")
@click.option("--host", default="127.0.0.1", show_default=True, metavar="HOST",
              help="The address to listen on with --port; :: for all.")
@click.option("--export-name", default="", callback=_name, metavar="NAME",
              help="What clients call the disk; the empty name, which is the default of most, always goes.")
@click.option("--read-only", is_flag=True, help="Refuse everything that would change the disk.")
@click.option("--shared", is_flag=True,
              help="With --read-only: do not attach the disk. What others write meanwhile is read.")
@click.option("--multi-conn", is_flag=True,
              help="Let several connections, of one client that knows how, use the disk at once. What a dead "
                   "connection has left can then come after newer writes; see the documentation.")
@click.option("--tls-certs", type=click.Path(path_type=Path, file_okay=False, exists=True), metavar="DIR",
              help="TLS, with server-cert.pem and server-key.pem in DIR. With ca-cert.pem in it, clients need a "
                   "certificate of that authority.")
@click.option("--tls", "tls_mode", type=click.Choice([*TLS]), default="force", show_default=True,
              help="With --tls-certs, over TCP: answer nothing without TLS; or give no disk without it.")
@edges.quorum_loss_option
@edges.io_timeout_option
@edges.cache_option
@click.option("--log-file", type=click.Path(path_type=Path, dir_okay=False), help="Log here as well.")
@edges.metrics_option
@edges.verbose_option
@log_format_option
@slow_ms_option
@click.version_option(described_version(), prog_name="dsreg-nbd")
def main(
    config_file: Path | None, size: int | None, path: Path | None, port: int | None, host: str, export_name: str,
    read_only: bool, shared: bool, multi_conn: bool, tls_certs: Path | None, tls_mode: str, on_quorum_loss: str,
    io_timeout: float, cache: str, log_file: Path | None, metrics: tuple[str, int] | None, verbose: bool,
    log_format: str, slow_ms: int | None,
) -> None:
    """Serve the replicated disk by the NBD protocol, to QEMU, libvirt, nbdcopy, nbd-client and others, until SIGTERM.

    \b
    A disk for a virtual machine:
        dsreg-nbd --socket /run/dsreg/nbd.sock
        qemu-system-x86_64 -drive file=nbd+unix:///?socket=/run/dsreg/nbd.sock,format=raw,if=virtio ...

    The disk is attached for one connection at a time, from its start to its end. Without --socket and --port, the
    sockets of a systemd socket unit are used.
    """
    log_to_stderr(WHO, 2 if verbose else 1, log_format)
    if shared and not read_only:
        raise click.UsageError("--shared is for --read-only: of two that write, one would undo what the other has done")
    try:
        with contextlib.ExitStack() as stack:
            certificates = None if tls_certs is None else tls_context(tls_certs)
            listeners = [stack.enter_context(listener) for listener in inherited()]
            if path is not None:
                listeners.append(stack.enter_context(unix_socket(path.absolute())))
            if port is not None:
                listeners += [stack.enter_context(listener) for listener in listen_tcp(host, port)]
            if not listeners:
                raise click.UsageError("name where to listen: --socket PATH, --port PORT, or both")
            disk = edges.chosen_disk(
                config_file, size, on_quorum_loss=on_quorum_loss, io_timeout=io_timeout, cache=cache, edge=WHO,
                metrics=metrics, slow_ms=slow_ms,
                attach=None if shared else Attach(name=f"{socket.gethostname()}:nbd {described(listeners[0])}"),
            )
            reopen_at_hangup(log_file, [] if log_file is None else [log_to_file(log_file.absolute())])
            size = disk.config.sectors * SECTOR_SIZE
            export = Export(export_name, size, f"dsreg disk of {format_size(size)}", read_only, multi_conn)
            options = ServerOptions(export, Tls.NONE if certificates is None else TLS[tls_mode], certificates)
            server = Server(disk, options)
            edges.serve_block_io(server.serve, listeners, lambda: _say_up(listeners, certificates))
    except (DsregError, OSError) as error:
        edges.fail("dsreg-nbd", error)


def _say_up(listeners: list[socket.socket], certificates: ssl.SSLContext | None) -> None:
    for listener in listeners:
        log.info("serving the disk on %s", described(listener))
    for name in _open_to_others(listeners) if certificates is None else ():
        log.warning("whoever can reach %s can read and write the disk, and can read along: see --tls-certs", name)
    notify("READY=1")


def _open_to_others(listeners: list[socket.socket]) -> Iterator[str]:
    """The addresses that are reached from other hosts."""
    for listener in listeners:
        if listener.family != socket.AF_UNIX:
            address = listener.getsockname()[0]
            if not ipaddress.ip_address(address.partition("%")[0]).is_loopback:
                yield described(listener)


def run() -> NoReturn:
    """The entry point of `dsreg-nbd`."""
    run_command(main, "dsreg-nbd")


if __name__ == "__main__":
    run()
