"""`dsreg keys`: the keys of a cluster are changed while everything runs. docs/keys.md."""

from __future__ import annotations

import fcntl
import os
import secrets
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click
import trio

from dsreg.cli.faults import EXIT_FAILED
from dsreg.cli.options import Seconds, chosen_config, config_argument, config_option
from dsreg.client import Client
from dsreg.config import ClusterConfig, load_config
from dsreg.config.keys import Step, fingerprint, read_keys
from dsreg.config.rotation import CLIENT, SYSTEM, Files, next_files, write_files
from dsreg.constants import CLIENT_KEY_SIZE, MAX_RANK, SYSTEM_KEY_SIZE
from dsreg.errors import ConfigError
from dsreg.health.answers import NodeAnswer
from dsreg.health.in_force import of_members
from dsreg.health.keys import still_old, yet_to_take
from dsreg.survey import ask_cluster

# Between two questions to the nodes, and how long one waits for the answers.
POLL_S = 0.5
ASK_S = 2.0

_SAID = {
    Step.NEXT: "a new key is accepted beside the old one",
    Step.PREVIOUS: "the new key is used; the old one is accepted still",
    Step.ONE: "only the new key is good",
}


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def keys() -> None:
    """Change the keys of a cluster while everything runs."""


@keys.command()
@config_argument
@config_option
@click.option("--client", "kinds", flag_value=CLIENT, multiple=True, help="Change the key of the clients.")
@click.option("--system", "kinds", flag_value=SYSTEM, multiple=True,
              help="Change the key of the nodes.  [default: both]")
@click.option("--without", type=click.IntRange(1, MAX_RANK), multiple=True, metavar="RANK",
              help="Do not wait for this node, which is down. It must be given the new key files before it starts.")
@click.option("--quiet-for", "quiet_s", type=Seconds(), default=5.0, show_default=True, metavar="SECONDS",
              help="Drop the old key once no client has used it for so long.")
@click.option("--drop", is_flag=True, help="Drop the old key although somebody uses it: who does is shut out.")
@click.option("--timeout", "timeout_s", type=Seconds(), default=60.0, show_default=True, metavar="SECONDS",
              help="How long to wait in each step for nodes and clients.")
@click.pass_obj
def rotate(
    warnings: list[str], file: Path | None, config_path: Path | None, kinds: tuple[str, ...], without: tuple[int, ...],
    quiet_s: float, drop: bool, timeout_s: float,
) -> None:
    """Replace the keys in the files that the configuration names, in three steps.

    After each step the nodes have to have the files: those on this host read them again by themselves. Copy them to
    the others while this command waits, or when it has ended with 1, and give it again. The new key of the clients has
    to be on every client's host before the third step, which drops the old one.

    However it ends, the cluster runs; given again, it goes on where it has ended. See docs/keys.md.
    """
    chosen = frozenset(kinds) or frozenset((CLIENT, SYSTEM))
    config = chosen_config(config_path, file, need_system_key=SYSTEM in chosen)
    with _alone(config.path):
        missing = trio.run(_rotate, config.path, chosen, frozenset(without), quiet_s, drop, timeout_s)
    warnings.clear()  # of the client: what is wrong is in what is printed
    for line in missing:
        click.echo(line, err=True)
    if missing:
        click.echo(f"not at its end yet; when that is mended: dsreg keys rotate {config.path}", err=True)
        sys.exit(EXIT_FAILED)


async def _rotate(
    path: Path, chosen: Collection[str], without: Collection[int], quiet_s: float, drop: bool, timeout_s: float
) -> list[str]:
    """What has kept it from its end; [] if nothing has."""
    needs_system = SYSTEM in chosen
    config, files = _read(path, needs_system)
    if not files.is_changing and await _missing(config, without, timeout_s=0.0):
        # Killed behind its last step, or nodes have other keys than this file: never begin again before that is over.
        if missing := await _missing(config, without, timeout_s):
            return missing
        click.echo("all nodes have the keys of the files: a change that had begun is at its end")
        return []
    while True:
        if missing := await _missing(config, without, timeout_s):
            return missing
        if files.drops_next and not drop and (late := await _late(config, quiet_s, timeout_s)):
            return late
        later = next_files(files, chosen, config.cluster_id, secrets.token_bytes)
        write_files(files, later, config.key_files)
        _say(files, later, config)
        config, files = _read(path, needs_system)
        if not files.is_changing:
            return await _missing(config, without, timeout_s)


def _read(path: Path, needs_system: bool) -> tuple[ClusterConfig, Files]:
    """Raises ConfigError."""
    config = load_config(path, need_system_key=needs_system)
    try:
        client = read_keys(config.key_files[0], CLIENT_KEY_SIZE)
        if not config.system_key:
            return config, Files(client, None)
        recovered = config.recovered is not None
        return config, Files(client, read_keys(config.key_files[1], SYSTEM_KEY_SIZE, recovered=recovered))
    except ValueError as error:
        raise ConfigError([str(error)]) from None


def _say(before: Files, after: Files, config: ClusterConfig) -> None:
    for kind, old, new, file in zip((CLIENT, SYSTEM), before, after, config.key_files, strict=False):
        if old is not None and new is not None and old != new:
            click.echo(f"{kind} key: {_SAID[new.step]} ({fingerprint(new.other or new.key)}): {file}")


async def _missing(config: ClusterConfig, without: Collection[int], timeout_s: float) -> list[str]:
    """What keeps nodes from having the keys of the files when the time is over; asked once at least."""
    files = ", ".join(map(str, config.key_files))

    def missing(answers: Sequence[NodeAnswer]) -> list[str]:
        awaited = [answer for answer in answers if answer.node.rank not in without]
        return yet_to_take(awaited, config.key_names, files)

    return await _until_none(config, missing, timeout_s)


async def _late(config: ClusterConfig, quiet_s: float, timeout_s: float) -> list[str]:
    """Who has used an old key in the last `quiet_s`, when the time is over."""
    return await _until_none(config, lambda answers: still_old(answers, quiet_s), timeout_s + quiet_s)


async def _until_none(
    config: ClusterConfig, faults: Callable[[Sequence[NodeAnswer]], list[str]], timeout_s: float
) -> list[str]:
    """What `faults` finds in what the nodes answer when the time is over; [] as soon as it finds nothing."""
    end_s = trio.current_time() + timeout_s
    async with Client(config) as client:
        while found := faults(of_members(await ask_cluster(client, config, ASK_S))):
            if trio.current_time() >= end_s:
                return found
            await trio.sleep(POLL_S)
    return []


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Raises ConfigError if another such command is at work on this file."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise ConfigError([f"{path}: another `dsreg keys rotate` is at work on it"]) from None
    finally:
        os.close(descriptor)
