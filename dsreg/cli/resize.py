"""`dsreg resize`: the disk is made larger while everything runs. docs/configurations.md."""

from __future__ import annotations

from pathlib import Path

import click

from dsreg.cli.carry_out import carry_out, force_option, give_up_option
from dsreg.cli.changing import Line, Refused, check, size_of, survey_members, told_by_most, walk
from dsreg.cli.member_file import size_by_hand, sized, with_size
from dsreg.cli.options import chosen_config, to_size
from dsreg.client import Client
from dsreg.config import ClusterConfig
from dsreg.constants import MAX_SECTORS, SECTOR_SIZE
from dsreg.errors import ConfigError
from dsreg.register.course import Course, size_goal

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command()
@click.argument("file", type=_FILE)
@click.argument("size", callback=to_size)
@force_option
@give_up_option
@click.pass_obj
def resize(warnings: list[str], file: Path, size: int, force: bool, timeout_s: float | None) -> None:
    """Make the disk of FILE larger, to SIZE (such as 200GiB), under load. No node or client is restarted.

    It is done once a majority of the nodes has it on stable storage; then the size is written into FILE. A mount
    and its loop device follow by themselves; the file system on the disk is made larger then (resize2fs, xfs_growfs).
    A disk cannot shrink. A command that was interrupted is given again.
    """
    config = chosen_config(file)
    sectors, odd = divmod(size, SECTOR_SIZE)
    if odd:
        raise click.BadParameter(f"{size} bytes are not a multiple of 4096; the next larger is "
                                 f"{size - odd + SECTOR_SIZE}", param_hint="SIZE")
    if not 1 <= sectors <= MAX_SECTORS:
        raise click.BadParameter(f"{sectors} sectors are outside 1..{MAX_SECTORS}", param_hint="SIZE")
    carry_out(warnings, lambda line: _resize(config, sectors, force, line), timeout_s)


async def _resize(config: ClusterConfig, sectors: int, force: bool, line: Line) -> None:
    async with Client(config) as client:
        current, answers = await survey_members(client, config)
        goal = size_goal(current, sectors)
        if isinstance(goal, str):
            raise Refused([f"nothing is changed: {goal}"])
        sized(config, current, sectors)  # whether it can be written, before anything is chosen
        course = Course(current, goal)
        if course.following is None:
            click.echo("nothing is to be changed")
        else:
            check(answers, current, current.ranks, sectors=sectors, force=force)
        line.is_proposing = True
        await walk(client, config, course, click.echo, line.show)
        await told_by_most(client, config, course.current)
    try:
        with_size(config, current, sectors)
    except ConfigError as error:
        raise Refused([f"the change is made: configuration {course.current.number}, {size_of(course.current)}; only "
                       "the file is as before", *error.faults, size_by_hand(config, current, sectors)]) from None
    click.echo(f"done: configuration {course.current.number}, {size_of(course.current)}. {config.path} says so; on "
               "other hosts it may be replaced whenever it is convenient, as what runs has learned it")
