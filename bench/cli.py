"""`python -m bench`: what to measure, and where the results go."""

from __future__ import annotations

import datetime
import os
import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from types import FrameType
from typing import NamedTuple

import click

from bench import against, machine, record, tables
from bench.progress import Bar
from bench.run import Runner, setup_of
from bench.settings import FULL, QUICK, Settings
from bench.shell import ROOT, BenchFailed, call, missing_tools
from bench.systems import PEERS, System, make_ours, make_peer
from bench.systems.ours import NODES
from bench.tcp import TcpClusters
from dsreg.cli.options import Seconds
from fuse_frontend.mounts import mount_table

EXIT_FAILED, EXIT_INTERRUPTED = 1, 130
DOCS = ROOT / "docs"
# What the systems keep, in disks: a plain file, nbdkit's, quorum's three, three nodes four times, three bricks twice;
# and journals, and the clusters of the TCP part, none of which is larger than a disk. Ceph looks for itself.
ROOM_IN_DISKS = 36
TCP_ROOM_IN_SPANS = 16  # nine nodes, and their journals
TOOLS = ("fio", "losetup", "mkfs.ext4", "mount", "umount", "findmnt", "cp", "sync")


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--peers", default="installed", show_default=True, metavar="LIST",
              help=f"Compare with these: any of {','.join(PEERS)}; or none; or all that are installed.")
@click.option("--install", is_flag=True, help="Install what --peers lacks, by apt-get (Debian).")
@click.option("--quick", is_flag=True, help="A minute or two: one round, short jobs, a small disk.")
@click.option("--only", type=click.Choice(["devices", "tcp"]), help="Leave the other part out.")
@click.option("--against", "revision", metavar="REV",
              help="Compare with this revision of the project, by git, and with nothing else; both in one run, job by "
                   "job. Prints ratios with their spread; 3 rounds at least.")
@click.option("--rounds", type=click.IntRange(1, 99), help="How often everything is measured.")
@click.option("--seconds", type=Seconds(min=0.1), help="Length of a job, through a device or over TCP.")
@click.option("--size", "size_mib", type=click.IntRange(64), metavar="MIB", help="Size of the disks.")
@click.option("--directory", type=click.Path(file_okay=False, exists=True, path_type=Path), default="/var/tmp",
              show_default=True, help="All systems keep their data below this; on a real disk, please.")
@click.option("--output", type=click.Path(file_okay=False, path_type=Path),
              help="Where benchmarks.md, benchmarks.json and the plots go.  [default: docs/]  With --against: where "
                   "against.md and against.json go.  [default: nowhere]")
@click.option("--report", "recorded", type=click.Path(dir_okay=False, exists=True, path_type=Path), metavar="JSON",
              help="Measure nothing; make page and plots from this file.")
def main(peers: str, install: bool, quick: bool, only: str | None, revision: str | None, rounds: int | None,
         seconds: float | None, size_mib: int | None, directory: Path, output: Path | None, recorded: Path | None
         ) -> None:
    """Measure this disk and its peers under the same load, in the same run, and write tables and plots.

    Needs root, for loop devices. Without it, and with --only tcp, the register is measured over TCP alone.
    Everything that is started is taken down again, on Ctrl-C and on failure, too.
    """
    try:
        if recorded is not None:
            write(record.load(recorded), output, save=False)
            return
        settings = chosen_settings(quick, rounds, seconds, size_mib)
        if only == "devices" and os.geteuid() != 0:
            raise BenchFailed("loop devices need root")
        if revision is not None:
            against.described(revision)  # or it fails, before anything is begun
            settings = replace(settings, tcp_nodes=(NODES,))
            prepare = partial(_two_revisions, settings, revision, only)
        else:
            prepare = partial(_with_peers, settings, [] if only == "tcp" else chosen_systems(peers, install), only)
        failed = measure(settings, prepare, only != "tcp", directory, output)
    except BenchFailed as error:
        click.echo(f"bench: {error}", err=True)
        sys.exit(EXIT_FAILED)
    except KeyboardInterrupt:
        click.echo("bench: interrupted; everything is taken down, nothing is written", err=True)
        sys.exit(EXIT_INTERRUPTED)
    if failed:
        sys.exit(EXIT_FAILED)


def chosen_settings(quick: bool, rounds: int | None, seconds: float | None, size_mib: int | None) -> Settings:
    settings = QUICK if quick else FULL
    if rounds is not None:
        settings = replace(settings, rounds=rounds)
    if seconds is not None:
        settings = replace(settings, seconds=seconds, tcp_seconds=seconds)
    if size_mib is not None:
        settings = replace(settings, size=size_mib << 20, tcp_span=min(settings.tcp_span, size_mib << 20))
    return settings


def chosen_systems(peers: str, install: bool) -> list[System]:
    """Ours and the peers that were asked for. BenchFailed where one of those is not there."""
    if os.geteuid() != 0:
        _say_without_root()
        return []
    names = list(PEERS) if peers == "installed" else [name for name in peers.split(",") if name not in ("", "none")]
    if unknown := set(names) - set(PEERS):
        raise click.BadParameter(f"{', '.join(sorted(unknown))}: give any of {', '.join(PEERS)}", param_hint="--peers")
    systems = [*make_ours(), *(system for name in names for system in make_peer(name))]
    if install:
        _install(systems)
    if lacking := missing_tools(*TOOLS):
        raise BenchFailed(f"not installed: {', '.join(lacking)}")
    reasons = {system.label: reason for system in systems if (reason := system.missing()) is not None}
    if reasons and (peers != "installed" or systems[0].missing() is not None):
        raise BenchFailed("; ".join(f"{label}: {reason}" for label, reason in reasons.items())
                          + " (--install installs Debian's packages)")
    for label, reason in reasons.items():
        click.echo(f"bench: without {label}: {reason}", err=True)
    return [system for system in systems if system.label not in reasons]


class Measured(NamedTuple):
    """What is measured: through devices, and over TCP. `against`: the other revision, described, if there is one."""

    systems: list[System]
    over_tcp: list[TcpClusters]
    against: str = ""


def _with_peers(settings: Settings, systems: list[System], only: str | None, directory: Path) -> Measured:
    return Measured(systems, [] if only == "devices" else [TcpClusters(settings)])


def _two_revisions(settings: Settings, revision: str, only: str | None, directory: Path) -> Measured:
    """`directory`: where the other one is unpacked."""
    tree = directory / "revision"
    against.unpack(revision, tree)
    if without_root := only != "tcp" and os.geteuid() != 0:
        _say_without_root()
    systems: list[System] = [] if only == "tcp" or without_root else [*against.both(revision, tree)]
    over_tcp = [TcpClusters(settings), TcpClusters(settings, tree, against.PREFIX)]
    return Measured(systems, [] if only == "devices" else over_tcp, against.described(revision))


def _say_without_root() -> None:
    click.echo("bench: loop devices need root; measuring over TCP alone", err=True)


def _install(systems: list[System]) -> None:
    """The Debian packages of whatever is missing."""
    packages = sorted({package for system in systems if system.missing() for package in system.packages})
    packages += ["fio"] if missing_tools("fio") else []
    if packages:
        call("apt-get", "update", "-qq", timeout_s=300.0)
        call("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-y", "-qq", "--no-install-recommends",
             *packages, timeout_s=900.0)


def measure(settings: Settings, prepare: Callable[[Path], Measured], with_devices: bool, directory: Path,
            output: Path | None) -> bool:
    """The run, from an empty directory below `directory` to none. Whether anything could not be measured."""
    needed = ROOM_IN_DISKS * settings.size if with_devices else TCP_ROOM_IN_SPANS * settings.tcp_span
    if (free := shutil.disk_usage(directory).free) < needed:
        raise BenchFailed(f"{directory} has {free >> 20} MiB left, {needed >> 20} are needed; give less --size")
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    start_s = time.monotonic()
    stack = ExitStack()
    try:
        below = Path(tempfile.mkdtemp(prefix="dsreg-bench-", dir=directory)).resolve()
        stack.callback(_remove, below)
        measured = prepare(below)
        run = record.Run(
            command=shlex.join(["python", "-m", "bench", *sys.argv[1:]]),
            date=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
            machine=machine.describe(below), settings=asdict(settings), against=measured.against,
            setups=[setup_of(system) for system in measured.systems])
        runner = Runner(run, settings, measured.systems, measured.over_tcp, below)
        with Bar(runner.steps()) as bar:
            runner.measure(bar, stack)
    finally:
        _take_down(stack)
    run.minutes = round((time.monotonic() - start_s) / 60, 1)
    write(run, output)
    return runner.failed


def write(run: record.Run, output: Path | None, *, save: bool = True) -> None:
    """benchmarks.json (if `save`), benchmarks.md and, where matplotlib is installed, the plots. Of two revisions
    against.json and against.md, if `output` is given; the latter is printed as well."""
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
    if run.against:
        text = against.page(run)
        click.echo(text, nl=False)
        if output is not None:
            (output / "against.md").write_text(text)
            if save:
                record.save(run, output / "against.json")
        return
    output = DOCS if output is None else output
    if save:
        record.save(run, output / "benchmarks.json")
    try:
        from bench import plots
    except ImportError:
        click.echo("bench: without plots, matplotlib is not installed (pip install -e '.[bench]')", err=True)
        drawn: list[str] = []
    else:
        drawn = plots.draw_all(run, output)
    (output / "benchmarks.md").write_text(tables.page(run, drawn))


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    """Any signal that would end us ends us like Ctrl-C: by taking everything down."""
    raise KeyboardInterrupt


def _take_down(stack: ExitStack) -> None:
    """Runs what was registered, in reverse, and shields it from impatience: half taken down is worse than late."""
    before = {number: signal.signal(number, signal.SIG_IGN)
              for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        stack.close()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _remove(directory: Path) -> None:
    """Removes the directory unless something is still mounted in it: those files are not ours to delete."""
    if below := [mount.mountpoint for mount in mount_table() if mount.mountpoint.startswith(f"{directory}/")]:
        raise BenchFailed(f"still mounted, left as it is: {', '.join(below)}")
    shutil.rmtree(directory)
