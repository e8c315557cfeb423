"""`dsreg read` and `dsreg write`: sectors to stdout and from stdin."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path
from typing import NoReturn

import click
import trio

from dsreg.cli.faults import EXIT_FAILED
from dsreg.cli.options import Sector, chosen_config, config_option, timeout_option
from dsreg.cli.progress import progress_bar
from dsreg.cli.transfer import OddLength, copy_in, copy_out, descriptor_sink, descriptor_source
from dsreg.client import Client
from dsreg.config import ClusterConfig
from dsreg.constants import SECTOR_SIZE

_STDIN, _STDOUT = 0, 1


@click.command()
@click.argument("sector", type=Sector())
@click.argument("count", type=click.IntRange(min=1), default=1)
@config_option
@timeout_option
def read(sector: int, count: int, config_path: Path | None, timeout_s: float) -> None:
    """Write COUNT sectors (default 1) from SECTOR on to stdout, as they are.

    Sectors are read one by one from a live disk: what is being written meanwhile may show up in some and not
    in others.
    """
    config = chosen_config(config_path)
    _check_range(config, sector, count)
    if sys.stdout.isatty():
        raise click.UsageError("stdout is a terminal; send the binary data to a file or a pipe, as in: | hexdump -C")
    trio.run(_read, config, sector, count, timeout_s)


@click.command()
@click.argument("sector", type=Sector())
@config_option
@timeout_option
@click.option("--force", is_flag=True, help="Write even while another client, such as a mount, has the disk "
              "attached. Can destroy a file system on it.")
def write(sector: int, config_path: Path | None, timeout_s: float, force: bool) -> None:
    """Write stdin to the disk from SECTOR on; its length must be a multiple of 4096.

    When this returns, a majority of the nodes has everything on stable storage. When it fails in the
    middle, any of the sectors may be written or not, each of them whole. A disk that is attached, as one that is
    mounted, is left alone without --force.
    """
    config = chosen_config(config_path)
    _check_range(config, sector, 1)
    if sys.stdin.isatty():
        raise click.UsageError("stdin is a terminal; give the data from a file or a pipe, as in: < FILE")
    size = _remaining_size(_STDIN)
    if size is not None:
        if size % SECTOR_SIZE:
            _fail(f"stdin holds {size} bytes; the length must be a multiple of {SECTOR_SIZE} (nothing is written)")
        _check_range(config, sector, size // SECTOR_SIZE)
    try:
        written = trio.run(_write, config, sector, size, timeout_s, force)
    except* OddLength as group:
        _fail(str(group.exceptions[0]))
    if not written:
        _fail("nothing to write: standard input is empty")


async def _read(config: ClusterConfig, sector: int, count: int, timeout_s: float) -> None:
    async with progress_bar("reading", count * SECTOR_SIZE) as advance, Client(config, timeout_s=timeout_s) as client:
        await copy_out(client, sector, count, descriptor_sink(_STDOUT, "stdout"), advance)


async def _write(config: ClusterConfig, sector: int, size: int | None, timeout_s: float, force: bool) -> int:
    async with progress_bar("writing", size) as advance, Client(config, timeout_s, force=force) as client:
        return await copy_in(client, sector, descriptor_source(_STDIN, "stdin"), advance)


def _fail(message: str) -> NoReturn:
    click.echo(f"dsreg: {message}", err=True)
    sys.exit(EXIT_FAILED)


def _check_range(config: ClusterConfig, sector: int, count: int) -> None:
    if sector + count > config.sectors:
        raise click.UsageError(f"sectors {sector}..{sector + count - 1} reach beyond the disk, "
                               f"which has the sectors 0..{config.sectors - 1}")


def _remaining_size(descriptor: int) -> int | None:
    """Bytes from here to the end of a regular file; None for a pipe or a device, which do not say."""
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        return None
    return max(0, status.st_size - os.lseek(descriptor, 0, os.SEEK_CUR))
