"""`dsreg read` and `dsreg write`: sectors to stdout and from stdin."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path
from typing import Any, NoReturn

import click
import trio

from dsreg.cli.faults import EXIT_FAILED
from dsreg.cli.holes import sink_of, source_of
from dsreg.cli.image import PartialImage, What
from dsreg.cli.options import Sector, chosen_config, config_option, timeout_option
from dsreg.cli.progress import progress_bar
from dsreg.cli.transfer import OddLength, Sink, copy_in, copy_out
from dsreg.client import Client
from dsreg.config import ClusterConfig
from dsreg.constants import SECTOR_SIZE

_STDIN, _STDOUT = 0, 1
# How long nodes are waited for to say how large the disk is, where that decides whether there is anything to do.
SIZE_S = 2.0


class Count(click.IntRange):
    """How many sectors; 0 stands for `all` that follow."""

    name = "count"

    def __init__(self) -> None:
        super().__init__(min=1)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        return 0 if value == "all" else int(super().convert(value, param, ctx))


@click.command()
@click.argument("sector", type=Sector())
@click.argument("count", type=Count(), default=1)
@config_option
@timeout_option
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="Write to FILE, which is there once all of it is on disk; until then FILE.part is.")
@click.option("--resume", is_flag=True, help="With --output: go on where a copy was interrupted. What was read before "
              "is not read again, however it has changed since.")
def read(
    sector: int, count: int, config_path: Path | None, timeout_s: float, output: Path | None, resume: bool
) -> None:
    """Write COUNT sectors (default 1, or `all` that follow) from SECTOR on to stdout, as they are.

    In a file sectors that are zeros take no room. Sectors are read one by one from a live disk: what is being written
    meanwhile may show up in some and not in others. For a copy of one moment: dsreg backup.
    """
    config = chosen_config(config_path)
    sectors = trio.run(_sectors, config, sector + count if count else 0, timeout_s)
    count = count or max(1, sectors - sector)
    _check_range(sectors, sector, count)
    if resume and output is None:
        raise click.UsageError("--resume goes on with a file that --output names")
    if output is not None:
        image = PartialImage(output, What(config.cluster_id, sector, count))
        with image.opened(resume) as sink:
            trio.run(_read, config, sector + image.done, count - image.done, timeout_s, sink)
        image.complete()
        return
    if sys.stdout.isatty():
        raise click.UsageError("stdout is a terminal; send the binary data to a file or a pipe, as in: | hexdump -C")
    trio.run(_read, config, sector, count, timeout_s, sink_of(_STDOUT, "stdout"))


@click.command()
@click.argument("sector", type=Sector())
@config_option
@timeout_option
@click.option("--force", is_flag=True, help="Write even while another client, such as a mount, has the disk "
              "attached. Can destroy a file system on it.")
@click.option("--resume", is_flag=True, help="Read what is on the disk, and write only what differs: for input of "
              "which a part has been written already.")
def write(sector: int, config_path: Path | None, timeout_s: float, force: bool, resume: bool) -> None:
    """Write stdin to the disk from SECTOR on; its length must be a multiple of 4096.

    Holes of a file are not read; they are zeros on the disk. When this returns, a majority of the nodes has everything
    on stable storage. When it fails in the middle, any of the sectors may be written or not, each of them whole: the
    same command with --resume goes on. A disk that is attached, as one that is mounted, is left alone without --force.
    """
    config = chosen_config(config_path)
    if sys.stdin.isatty():
        raise click.UsageError("stdin is a terminal; give the data from a file or a pipe, as in: < FILE")
    size = _remaining_size(_STDIN)
    if size is not None:
        if size % SECTOR_SIZE:
            _fail(f"stdin holds {size} bytes; the length must be a multiple of {SECTOR_SIZE} (nothing is written)")
    count = 1 if size is None else max(1, size // SECTOR_SIZE)
    _check_range(trio.run(_sectors, config, sector + count, timeout_s), sector, count)
    try:
        written = trio.run(_write, config, sector, size, timeout_s, force, resume)
    except* OddLength as group:
        _fail(str(group.exceptions[0]))
    if not written:
        _fail("nothing to write: standard input is empty")


async def _read(config: ClusterConfig, sector: int, count: int, timeout_s: float, sink: Sink) -> None:
    if count:
        async with (
            progress_bar("reading", count * SECTOR_SIZE) as advance, Client(config, timeout_s=timeout_s) as client
        ):
            await client.size()  # a majority is connected: before, all may be data
            await copy_out(client, sector, count, sink, advance)


async def _write(
    config: ClusterConfig, sector: int, size: int | None, timeout_s: float, force: bool, compare: bool
) -> int:
    async with progress_bar("writing", size) as advance, Client(config, timeout_s, force=force) as client:
        return await copy_in(client, sector, source_of(_STDIN, "stdin"), advance, compare=compare)


def _fail(message: str) -> NoReturn:
    click.echo(f"dsreg: {message}", err=True)
    sys.exit(EXIT_FAILED)


async def _sectors(config: ClusterConfig, needed: int, timeout_s: float) -> int:
    """How many the disk has. The file may be older, so that the nodes are asked where it has fewer than are `needed`;
    0: all that there are."""
    if 0 < needed <= config.sectors:
        return config.sectors
    if not needed:  # a copy that ends too early would be taken for all of the disk
        async with Client(config, timeout_s) as client:
            return await client.size()
    async with Client(config) as client:
        with trio.move_on_after(min(SIZE_S, timeout_s)):
            return await client.size()
        return client.sectors


def _check_range(sectors: int, sector: int, count: int) -> None:
    if sector + count > sectors:
        raise click.UsageError(f"sectors {sector}..{sector + count - 1} reach beyond the disk, "
                               f"which has the sectors 0..{sectors - 1}")


def _remaining_size(descriptor: int) -> int | None:
    """Bytes from here to the end of a regular file; None for a pipe or a device, which do not say."""
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        return None
    return max(0, status.st_size - os.lseek(descriptor, 0, os.SEEK_CUR))
