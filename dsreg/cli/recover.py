"""`dsreg recover`: what is left after a majority of the directories is lost becomes a new cluster. docs/recover.md."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
import trio

from dsreg.cli.faults import EXIT_CONFIG
from dsreg.cli.last_known import (
    LastKnown,
    edited,
    last_known,
    new_cluster,
    nothing_is_lost,
    recovered_from,
    what_is_known,
)
from dsreg.cli.options import chosen_config, config_argument, config_option
from dsreg.cli.owner import as_owner
from dsreg.cli.progress import progress_bar
from dsreg.cli.salvage import Found, damage_lines, look_into, report
from dsreg.client import Client
from dsreg.config import ClusterConfig, find_config, load_config
from dsreg.config.recovered import finish, is_staged, stage
from dsreg.constants import MAX_RANK
from dsreg.errors import ConfigError, WrongDirectory
from dsreg.health.answers import NodeAnswer
from dsreg.health.serving import has_its_directory
from dsreg.protocol.configuration import Configuration
from dsreg.register.configuration import quorum_of
from dsreg.register.course import described, named
from dsreg.register.quorum import mask, ranks_in
from dsreg.storage import Identity, OsFiles, StableStorage
from dsreg.storage import lives as lives_file
from dsreg.storage.layout import SECTORS
from dsreg.storage.new_cluster import move, recorded_in, settle
from dsreg.survey import ask_cluster

ASK_S = 2.0
# Further directories may have heard of attachments that the first one has not.
_EPOCHS_APART = 256


class Ranks(click.ParamType[tuple[int, ...]]):
    """"3", or "4,5"."""

    name = "ranks"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        parts = [part.strip() for part in str(value).split(",")]
        if not all(part.isdecimal() and 1 <= int(part) <= MAX_RANK for part in parts):
            self.fail(f"{value} is not a rank, nor several with commas between them, such as 4,5", param, ctx)
        ranks = tuple(map(int, parts))
        if len(set(ranks)) < len(ranks):
            self.fail(f"{value} names a node twice", param, ctx)
        return ranks


@click.command()
@config_argument
@config_option
@click.option("--from", "ranks", type=Ranks(), metavar="RANK[,RANK...]",
              help="The nodes whose directories are left, the one on this host first.")
@click.option("--rank", type=click.IntRange(1, MAX_RANK),
              help="Whose directory is on this host, if it is another one of those.  [default: the first]")
@click.option("--storage", type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
              help="Its storage directory.  [default: as configured]")
@click.option("--i-accept-data-loss", "accepted", is_flag=True,
              help="Do it. Without this it is only said what would be done, and what is lost.")
def recover(
    file: Path | None, config_path: Path | None, ranks: tuple[int, ...] | None, rank: int | None, storage: Path | None,
    accepted: bool,
) -> None:
    """Make a new cluster of the directories that are left when a MAJORITY of them is lost for good.

    Acknowledged writes are lost by it. As long as a majority of the directories is left nothing is lost, and this
    command refuses: start the others with `dsreg node --rejoin`. Where `dsreg members` has changed the nodes, the new
    cluster has those of the latest configuration that the first directory knows: begin with the one that knows most.

    FILE gets new keys, so that no node and no client of the old cluster can talk to the new one; the old files are kept
    beside it. Copy FILE and its keys to all hosts. The nodes that are new start with empty directories, and learn.
    Without --i-accept-data-loss nothing is changed, and the exit code is 2.
    """
    path = find_config(config_path or file)
    if path is not None and is_staged(path):
        if not accepted:
            raise ConfigError([f"{path}: `dsreg recover` was interrupted; run it again with --i-accept-data-loss"])
        finish(path)
    config = chosen_config(config_path, file, need_system_key=True)
    rank = _rank_here(config, ranks, rank)
    directory = storage or config.node(rank).storage
    if not directory.is_dir():
        raise WrongDirectory(f"{directory} is not a directory; name that of node {rank} with --storage")
    found = None
    if _is_new(config, ranks, rank, directory):
        config, found = _make_cluster(config, ranks or (), rank, directory, accepted=accepted)
    elif not accepted:
        _say([f"{directory} is to become a directory of the cluster of {config.path}.",
              "Nothing was changed. To go on: the same command with --i-accept-data-loss"])
        sys.exit(EXIT_CONFIG)
    _make_member(config, rank, directory, found)
    _say(_next_steps(config, rank))


def _make_cluster(
    config: ClusterConfig, ranks: tuple[int, ...], rank: int, directory: Path, *, accepted: bool
) -> tuple[ClusterConfig, Found]:
    """The files of the new cluster, if that is `accepted`, and what is in the directory, which is left as it is."""
    _check_order(ranks, rank)
    with as_owner(directory):
        known = last_known(OsFiles(directory))
    new = new_cluster(known, config, ranks)
    text = edited(config, known, new)
    _refuse_while_nodes_answer(config, known, ranks)
    found = _look(directory)
    lost = ranks_in(known.latest.members & ~mask(ranks))
    _say([*report(found, lost, ranks), *what_is_known(known, new, ranks)])
    if len(ranks) > 1 and found.damaged:
        raise WrongDirectory("what is damaged here may be whole in another directory that is left: recover from "
                             "that one first, and name this one behind it")
    if not accepted:
        _say(["", "Nothing was changed. To go on: the same command with --i-accept-data-loss"])
        sys.exit(EXIT_CONFIG)
    epoch = found.epoch + (1 if len(ranks) == 1 else _EPOCHS_APART)
    stage(config.path, recovered_from(config, new, ranks, epoch), text)
    kept = finish(config.path)
    _say(["", f"{config.path} and its keys are those of the new cluster; the old ones are kept:",
          *(f"    {each}" for each in kept)])
    return load_config(config.path), found


def _rank_here(config: ClusterConfig, ranks: tuple[int, ...] | None, rank: int | None) -> int:
    left = ranks or (config.recovered.ranks if config.recovered is not None else ())
    if not left:
        raise click.UsageError("name the nodes whose directories are left: --from RANK")
    here = left[0] if rank is None else rank
    if here not in left:
        raise click.UsageError(f"--rank {here} is not one of --from {','.join(map(str, left))}")
    config.node(here)
    return here


def _is_new(config: ClusterConfig, ranks: tuple[int, ...] | None, rank: int, directory: Path) -> bool:
    """Whether a cluster is lost, rather than that this directory is to become one of a cluster that was recovered.
    Raises WrongDirectory for one that is of neither; ends the command where all is done."""
    with as_owner(directory):
        files = OsFiles(directory)
        recorded = recorded_in(files)
        known = lives_file.read(files, recorded.identity.salt).lives if recorded.store else {}
    recovered, of = config.recovered, recorded.identity.cluster
    if recovered is not None and of == recovered.cluster and rank in recovered.ranks:
        return False
    if of != config.cluster_id or recorded.identity.rank != rank:
        raise WrongDirectory(f"{directory} is of node {recorded.identity.rank} of cluster {of.hex()}, not of node "
                             f"{rank} of cluster {config.cluster_id.hex()}, which is that of {config.path}")
    if recovered is None or rank not in recovered.ranks or ranks not in (None, recovered.ranks):
        return True
    if lives_file.GIVEN_UP in known:
        return True  # it has served, and was put back from a copy since
    own = known.get(rank)
    if own is None or own.store != recorded.store:
        return False  # an attempt was interrupted
    if len(known) == 1:  # it has not served with others since
        _say([f"{directory} has been recovered already.", *_next_steps(config, rank)[1:]])
        sys.exit(0)
    return True


def _check_order(ranks: tuple[int, ...], rank: int) -> None:
    if not ranks:
        raise click.UsageError("name the nodes whose directories are left: --from RANK")
    if rank != ranks[0]:
        raise click.UsageError(f"begin on the host of node {ranks[0]}, or name node {rank} first")


def _refuse_while_nodes_answer(config: ClusterConfig, known: LastKnown, ranks: tuple[int, ...]) -> None:
    async def ask() -> tuple[tuple[NodeAnswer, ...], Configuration | None]:
        async with progress_bar("asking the nodes", None, show_bytes=False), Client(config) as client:
            return await ask_cluster(client, config, ASK_S), client.configuration

    answers, told = trio.run(ask)
    latest = known.latest if told is None else max(told, known.latest)
    have = tuple({*(answer.node.rank for answer in answers if has_its_directory(answer)), *ranks})
    if quorum_of(latest).decided(mask(have)):
        raise ConfigError([nothing_is_lost(have)])
    if up := [answer.node.rank for answer in answers if answer.report is not None]:
        raise ConfigError([f"node {', '.join(map(str, up))} answers: stop all nodes of the old cluster first"])


def _look(directory: Path) -> Found:
    """All that this directory has. Opens it as a start of the node does."""
    file = (directory / SECTORS).stat()
    stored_s, size = file.st_mtime, file.st_blocks * 512

    async def look() -> Found:
        async with progress_bar(f"reading {directory}", size or None) as advance:
            def on_read(done: int) -> None:
                trio.from_thread.run_sync(advance, done)

            return await trio.to_thread.run_sync(look_into, _open(directory), stored_s, on_read)

    with as_owner(directory):
        return trio.run(look)


def _open(directory: Path) -> StableStorage:
    """As what it says that it is."""
    files = OsFiles(directory)
    return StableStorage.open(files, recorded_in(files).identity)


def _make_member(config: ClusterConfig, rank: int, directory: Path, found: Found | None) -> None:
    """The directory becomes that of the node in the new cluster. `found`: what is in it, if that is known."""
    recovered = config.recovered
    assert recovered is not None
    is_first = rank == recovered.ranks[0]
    with as_owner(directory):
        moved = recorded_in(OsFiles(directory)).identity.cluster != recovered.cluster
    if not moved and found is None:
        found = _look(directory)
        if not is_first:
            _refuse_second(found, config, rank, directory)
    identity = Identity(config.cluster_id, rank, config.first_ranks, config.sectors)
    with as_owner(directory):
        move(OsFiles(directory), recovered.cluster, identity, learns=not is_first)
    if found is None and is_first:
        found = _look(directory)
    if found is not None and found.damaged:
        _say([*damage_lines(found), ""])
    with as_owner(directory):
        storage = _open(directory)
        try:
            settle(storage, recovered.epoch, found.damaged if found is not None else [])
        finally:
            storage.close()


def _refuse_second(found: Found, config: ClusterConfig, rank: int, directory: Path) -> None:
    """Raise WrongDirectory if a directory that is not the first cannot be used as it is."""
    recovered = config.recovered
    assert recovered is not None
    if found.epoch > recovered.epoch:
        raise WrongDirectory(f"this directory has heard of more attachments (epoch {found.epoch}) than the others: "
                             f"recover from node {rank} first")
    if found.damaged:
        raise WrongDirectory(f"{len(found.damaged)} sectors are damaged here, so that others could not learn them: "
                             f"recover without node {rank}")
    with as_owner(directory):
        known = last_known(OsFiles(directory))
    if known.sectors > config.sectors:
        raise WrongDirectory(f"this directory knows a larger disk, of {known.sectors} sectors, than the others: "
                             f"recover from node {rank} first")
    if mask(config.first_ranks) not in (known.latest.ranks, known.latest.joining):
        _say([f"dsreg: warning: this directory knows configuration {known.latest.number}, {described(known.latest)}; "
              f"the new cluster has the nodes {named(mask(config.first_ranks))}"])


def _next_steps(config: ClusterConfig, rank: int) -> list[str]:
    assert config.recovered is not None
    left = config.recovered.ranks
    empty = [node.rank for node in config.nodes if node.rank not in left]
    steps = [f"Copy {config.path.name} and its two keys from {config.path.parent} to all hosts, nodes and clients."]
    if len(left) > 1 and rank == left[0]:
        steps.append(f"On the hosts of the nodes {', '.join(map(str, left[1:]))}: dsreg recover {config.path} "
                     "--rank RANK --i-accept-data-loss")
    steps += [
        f"Remove what is left of the directories of the nodes {', '.join(map(str, empty))}, of the old cluster.",
        "Start all nodes. Those with empty directories learn what was left; what they have not learned yet waits.",
        f"Wait until that is done: dsreg wait --healed {config.path}",
    ]
    return ["", f"Node {rank} has been recovered. Next:",
            *(f"  {number}. {step}" for number, step in enumerate(steps, 1))]


def _say(lines: list[str]) -> None:
    for line in lines:
        click.echo(line)
