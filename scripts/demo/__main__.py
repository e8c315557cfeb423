"""`python -m scripts.demo`: the steps of the demonstration, and the end of them all."""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from types import FrameType

from dsreg.errors import DsregError
from fuse_frontend.mounts import mount_table

from . import on_disk, through_client, tree
from .cluster import NODES, SIZE, Cluster
from .report import DemoFailed, Report


def interrupt(_signal: int, _frame: FrameType | None) -> None:
    """Any signal that would end us ends us like Ctrl-C: by taking everything down."""
    raise KeyboardInterrupt


def take_down(report: Report, stack: ExitStack) -> None:
    """Runs what was registered, in reverse, and shields it from impatience: half taken down is worse than late."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    with report.step("unmount, detach, stop the nodes, remove the directory") as step:
        stack.close()
        step.seen = "nothing left behind"


def demonstrate(report: Report, stack: ExitStack, client_only: bool, max_files: int) -> None:
    directory = Path(tempfile.mkdtemp(prefix="dsreg-demo-"))
    stack.callback(remove, directory)
    cluster = Cluster(directory)
    stack.callback(cluster.stop)
    try:
        with report.step("init and start three nodes") as step:
            cluster.init()
            cluster.start_missing()
            step.seen = f"{NODES} processes, a disk of {SIZE}, ports {cluster.ports}"
        files = tree.collect(max_files)
        reason = "--client was given" if client_only else on_disk.why_not()
        if reason is None:
            on_disk.run(report, cluster, files, stack)
        else:
            report.say(f"No FUSE and loop device: {reason}. The same through the client.")
            through_client.run(report, cluster, files)
    except (DemoFailed, DsregError, OSError):
        report.say(cluster.log_tails())
        raise


def remove(directory: Path) -> None:
    """Removes the directory unless a file system is still mounted in it: its files are not ours to delete."""
    if below := [mount.mountpoint for mount in mount_table() if mount.mountpoint.startswith(f"{directory}/")]:
        raise DemoFailed(f"still mounted, left as it is: {', '.join(below)}")
    shutil.rmtree(directory)


def main() -> int:
    parser = argparse.ArgumentParser(prog="make demo", description="Shows the disk at work, with a node killed.")
    parser.add_argument("--client", action="store_true", help="without FUSE, as on a host that has none")
    parser.add_argument("--files", type=int, default=tree.MAX_FILES, help="how many files at most (%(default)s)")
    arguments = parser.parse_args()
    report = Report()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    code = 0
    stack = ExitStack()
    try:
        demonstrate(report, stack, arguments.client, arguments.files)
    except (DemoFailed, DsregError, OSError) as error:
        report.say(f"FAILED: {error}")
        code = 1
    except KeyboardInterrupt:
        report.say("Interrupted; taking everything down.")
        code = 130
    try:
        take_down(report, stack)
    except (DemoFailed, OSError) as error:
        report.say(f"FAILED: {error}")
        code = code or 1
    report.table()
    return code


if __name__ == "__main__":
    sys.exit(main())
