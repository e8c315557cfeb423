"""`dsreg forget`: the last step before a node whose directory is lost begins with an empty one."""

from __future__ import annotations

from pathlib import Path

import click

from dsreg.cli.owner import as_owner
from dsreg.constants import MAX_RANK
from dsreg.errors import WrongDirectory
from dsreg.storage import OsFiles
from dsreg.storage.opening import forget as forget_rank


@click.command()
@click.option("--storage", type=click.Path(file_okay=False, path_type=Path), metavar="DIR", required=True,
              help="The storage directory of a remaining node, which must be stopped.")
@click.option("--rank", type=click.IntRange(1, MAX_RANK), required=True, help="The node whose directory is lost.")
def forget(storage: Path, rank: int) -> None:
    """Let a stopped node accept a new directory of another node.

    Use it only as a step of the runbook ("A node's directory is lost"), on every remaining node, while all of them
    are stopped: a node that still knows the lost directory refuses the empty one, and tells the others.
    """
    if not storage.is_dir():
        raise WrongDirectory(f"{storage} is not a directory")
    with as_owner(storage):
        life = forget_rank(OsFiles(storage), rank)
    if life is None:
        click.echo(f"{storage}: node {rank} was not known here; nothing to forget")
    else:
        click.echo(f"{storage}: forgot the directory of node {rank} ({life}); this node will accept an empty one")
