"""`dsreg members`: nodes are added and removed while everything runs. docs/configurations.md.

What is asked of the nodes is in `changing`; here are the commands, and what they do to the file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from dsreg.cli.advice import advice
from dsreg.cli.carry_out import carry_out, force_option, give_up_option
from dsreg.cli.changing import (
    Line,
    Refused,
    check,
    check_again,
    finish_begun,
    is_latest,
    survey_members,
    told_by_most,
    wait_for_new,
    walk,
)
from dsreg.cli.member_file import (
    by_hand,
    gone,
    how_to_start,
    quoted,
    with_new_nodes,
    without_gone,
    without_strangers,
)
from dsreg.cli.options import chosen_config, config_argument, config_option, to_address
from dsreg.client import Client
from dsreg.config import ClusterConfig, NodeAddress, format_address, parse_address
from dsreg.config.address import canonical_host, is_local_only, why_not_reachable
from dsreg.config.edit import replace_file
from dsreg.constants import MAX_RANK
from dsreg.errors import ConfigError
from dsreg.health.answers import NodeAnswer
from dsreg.protocol.address import Place
from dsreg.protocol.configuration import Configuration
from dsreg.register.configuration import Goal
from dsreg.register.course import Course, goal_of, named
from dsreg.register.quorum import bit, mask, ranks_in


def _to_addresses(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> list[tuple[str, int]]:
    """Option callback."""
    return [address for value in values if (address := to_address(ctx, param, value)) is not None]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def members() -> None:
    """Add nodes to a running cluster, or remove some, under load. No other node or client is restarted.

    \b
      dsreg members add FILE --address HOST:PORT --address HOST:PORT
      dsreg members remove FILE --rank 4 --rank 5
      dsreg members cancel FILE

    While members are being changed, the old ones and the new ones decide together. A command that was interrupted is
    given again, and goes on where it was; `cancel` takes the change back. `dsreg status` shows what is in force.
    """


@members.command()
@config_argument
@config_option
@click.option("--address", "addresses", multiple=True, callback=_to_addresses, metavar="HOST:PORT", required=True,
              help="Of a new node, as the other nodes and all clients reach it; once for each.")
@force_option
@give_up_option
@click.pass_obj
def add(warnings: list[str], file: Path | None, config_path: Path | None, addresses: list[tuple[str, int]],
        force: bool, timeout_s: float | None) -> None:
    """Add nodes: all that are given, at once.

    Writes them into FILE, says how they are started, waits until they are, and makes them members. They learn what the
    others have; it is done once a majority of the new set has all data.
    """
    config = chosen_config(config_path, file)
    texts = [format_address(*address) for address in addresses]
    faults = [f"--address: {fault}" for host, _ in addresses if (fault := why_not_reachable(host))]
    faults += [f"--address: {text} is given twice" for text in dict.fromkeys(texts) if texts.count(text) > 1]
    is_wide = any(not is_local_only(node.host) for node in config.nodes)
    faults += [f"--address: {host} is for one host alone, and other nodes are on others"
               for host, _ in addresses if is_local_only(host) and is_wide]
    if faults:
        raise ConfigError(faults)
    carry_out(warnings, lambda line: _add(config, addresses, force, line), timeout_s, _way_back(config))


@members.command()
@config_argument
@config_option
@click.option("--rank", "ranks", type=click.IntRange(1, MAX_RANK), multiple=True, required=True,
              help="A node that is to leave; once for each.")
@force_option
@give_up_option
@click.pass_obj
def remove(warnings: list[str], file: Path | None, config_path: Path | None, ranks: tuple[int, ...], force: bool,
           timeout_s: float | None) -> None:
    """Remove nodes: all that are given, at once. They may be down.

    It is done once a majority of those that stay has all data; then the nodes are taken out of FILE, and may be
    stopped. Their ranks are never used again.
    """
    config = chosen_config(config_path, file)
    carry_out(warnings, lambda line: _remove(config, ranks, force, line), timeout_s, _way_back(config))


@members.command()
@config_argument
@config_option
@give_up_option
@click.pass_obj
def cancel(warnings: list[str], file: Path | None, config_path: Path | None, timeout_s: float | None) -> None:
    """Take back a change of members that is not complete: those of before stay. Nodes that FILE lists and that never
    became members are taken out of it.
    """
    config = chosen_config(config_path, file)
    carry_out(warnings, lambda line: _cancel(config, line), timeout_s)


def _way_back(config: ClusterConfig) -> str:
    return f", or take it back: dsreg members cancel {quoted(config.path)}"


# --- what each does -------------------------------------------------------------------------------
async def _add(config: ClusterConfig, addresses: Sequence[tuple[str, int]], force: bool, line: Line) -> None:
    async with Client(config) as client:
        current, answers = await survey_members(client, config)
        new = _ranks_for(config, current, addresses)
        goal = _goal(current, mask(new), 0)
        if not current.joining and goal.ranks != current.ranks:
            check(answers, current, goal.ranks, force=force)
        _advise(client, current, goal, new)
    before = config.path.read_bytes().decode("utf-8")
    edited = with_new_nodes(config, current, new)
    try:
        async with Client(edited) as client:
            if waiting := [edited.node(rank) for rank in new if not current.members & bit(rank)]:
                click.echo(how_to_start(edited, waiting))
                await wait_for_new(client, waiting, current, line.show)
                if not current.joining:
                    await check_again(client, edited, current, goal.ranks)
            reached = await _walk(client, edited, Course(current, goal), line)
    except* Refused:
        if edited is not config:
            replace_file(config.path, before)
        raise
    _say_done(edited, reached)


async def _remove(config: ClusterConfig, ranks: Sequence[int], force: bool, line: Line) -> None:
    async with Client(config) as client:
        current, answers = await survey_members(client, config)
        if unknown := [rank for rank in ranks if not current.used & bit(rank) and rank not in config.ranks]:
            raise Refused([f"nothing is changed: there is no node {rank}" for rank in unknown])
        if _strangers(config, current, ranks) and is_latest(answers, current):
            current = await finish_begun(client, config, current, answers, line.show)
        if not (leaving := [rank for rank in ranks if current.used & bit(rank)]):
            _take_out_strangers(config, current, answers, ranks)
            return
        goal = _goal(current, 0, mask(leaving))
        if not current.joining and goal.ranks != current.ranks:
            check(answers, current, goal.ranks, force=force)
        _take_out_strangers(config, current, answers, ranks)
        _advise(client, current, goal, {})
        reached = await _walk(client, config, Course(current, goal), line)
    _say_done(config, reached,
              f"stop what still runs of node {', '.join(map(str, leaving))} for good (systemctl disable --now "
              "dsreg-node@RANK, or SIGTERM): it serves nobody. Its directory is of no use any more")


async def _cancel(config: ClusterConfig, line: Line) -> None:
    async with Client(config) as client:
        current, answers = await survey_members(client, config)
        if not current.joining and is_latest(answers, current):
            current = await finish_begun(client, config, current, answers, line.show)
        if not current.joining:
            click.echo("no change of members is under way")
            reached = current
            _take_out_strangers(config, current, answers, config.ranks)
        else:
            back = Goal(current.ranks, current.sectors, cancels=True)
            reached = await _walk(client, config, Course(current, back), line)
            _without_strangers(config, reached, config.ranks)
    _say_done(config, reached)


def _take_out_strangers(
    config: ClusterConfig, current: Configuration, answers: Sequence[NodeAnswer], ranks: Sequence[int]
) -> None:
    """Those of the ranks that never were members, out of the file. Raises Refused while it is not sure that they were
    not: others may know more."""
    strangers = _strangers(config, current, ranks)
    if strangers and not is_latest(answers, current):
        raise Refused([f"nothing is changed: too few nodes answer to say whether node {rank} is a member"
                       for rank in ranks_in(strangers)])
    _without_strangers(config, current, ranks)


def _strangers(config: ClusterConfig, current: Configuration, ranks: Sequence[int]) -> int:
    """The mask of those of the ranks that the file lists and that never were members."""
    return mask(rank for rank in ranks if rank in config.ranks) & ~current.used


def _without_strangers(config: ClusterConfig, current: Configuration, ranks: Sequence[int]) -> None:
    for node in without_strangers(config, current, ranks):
        click.echo(f"taken out of {config.path}: node {node.rank} ({node.address}): it never became a member")


async def _walk(client: Client, config: ClusterConfig, course: Course, line: Line) -> Configuration:
    line.is_proposing = True
    if course.following is None:
        click.echo("nothing is to be changed")
    await walk(client, config, course, click.echo, line.show)
    await told_by_most(client, config, course.current)
    return course.current


def _say_done(config: ClusterConfig, reached: Configuration, *more: str) -> None:
    """Take those out of the file that have left, and say what has become of it all. Raises Refused if the file cannot
    be changed."""
    done = f"done: configuration {reached.number}, nodes {named(reached.ranks)}."
    faults: list[str] = []
    try:
        without_gone(config, reached)
        done += (f" {config.path} lists them; on other hosts it may be replaced whenever it is convenient, as what "
                 "runs has learned it")
    except ConfigError as error:
        faults = ["the change is made, and only the file is as before", *error.faults,
                  by_hand(config, gone(config, reached))]
    for line in (done, *more):
        click.echo(line)
    if faults:
        raise Refused(faults)


def _advise(client: Client, current: Configuration, goal: Goal, new: Mapping[int, str]) -> None:
    """Warn of what hardly anybody wants of the nodes that there are to be, before anything is changed. `new`: rank ->
    address."""
    if goal.ranks == current.ranks:
        return
    places = {rank: Place(*parse_address(address)) for rank, address in new.items()}
    places |= {rank: client.place(rank) for rank in client.ranks}
    nodes = [NodeAddress(rank, place.host, place.port, Path()) for rank, place in sorted(places.items())]
    for line in advice([node for node in nodes if goal.ranks & bit(node.rank)]):
        click.echo(f"dsreg: warning: {line}", err=True)


def _goal(current: Configuration, add: int, remove: int) -> Goal:
    goal = goal_of(current, add, remove)
    if isinstance(goal, str):
        raise Refused([f"nothing is changed: {goal}"])
    return goal


def _ranks_for(
    config: ClusterConfig, current: Configuration, addresses: Sequence[tuple[str, int]]
) -> dict[int, str]:
    """rank -> address of what is to be added: those that the file has already, then the next ones."""
    left = gone(config, current)  # somebody may use their addresses anew
    known = {(canonical_host(node.host), node.port): node.rank for node in config.nodes if node.rank not in left}
    next_rank = max(current.used.bit_length() - 1, *config.ranks) + 1
    found = {}
    for host, port in addresses:
        rank = known.get((canonical_host(host), port))
        if rank is None:
            rank, next_rank = next_rank, next_rank + 1
        found[rank] = format_address(host, port)
    if next_rank > MAX_RANK + 1:
        raise Refused([f"nothing is changed: the ranks up to {MAX_RANK} are used up"])
    return found
