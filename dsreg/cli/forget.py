"""`dsreg forget`: the last step before a node whose directory is lost begins with an empty one."""

from __future__ import annotations

import os
from pathlib import Path

import click

from dsreg.constants import MAX_RANK
from dsreg.errors import WrongDirectory
from dsreg.storage import OsFiles
from dsreg.storage.opening import forget as forget_rank


@click.command()
@click.option("--storage", type=click.Path(file_okay=False, path_type=Path), metavar="DIR", required=True,
              help="The directory of a stopped node, not of the lost one.")
@click.option("--rank", type=click.IntRange(1, MAX_RANK), required=True, help="The node whose directory is lost.")
def forget(storage: Path, rank: int) -> None:
    """Have a stopped node forget the directory by which it knows another one.

    Only as the runbook says ("A node's directory is lost"), and on every node that remains while all of them are
    stopped: whoever still knows the lost directory refuses the empty one, and tells the others.
    """
    if not storage.is_dir():
        raise WrongDirectory(f"{storage} is no directory")
    if os.geteuid() == 0:  # what is written has to stay the node's own
        owner = storage.stat()
        os.setegid(owner.st_gid)
        os.seteuid(owner.st_uid)
    life = forget_rank(OsFiles(storage), rank)
    if life is None:
        click.echo(f"{storage}: node {rank} was not known here; nothing to forget")
    else:
        click.echo(f"{storage}: the directory of node {rank}, {life}, is forgotten; it may begin with an empty one")
