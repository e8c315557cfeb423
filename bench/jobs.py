"""The fio jobs, in the order in which they run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Target:
    """Where fio sends requests: the options that say so, and the variables of its environment that do."""

    options: tuple[str, ...]
    environment: tuple[str, ...] = ()

    def command(self, name: str, *options: str) -> list[str]:
        """fio with a job of that name and these options besides."""
        before = ["env", *self.environment] if self.environment else []
        return [*before, "fio", f"--name={name}", *self.options, *options]


def block_device(name: str) -> Target:
    return Target(("--ioengine=libaio", f"--filename={name}"))


def nbd_socket(path: Path) -> Target:
    """The default export at that unix socket: fio is the NBD client itself, by libnbd."""
    return Target(("--ioengine=nbd", f"--uri=nbd+unix:///?socket={path}"))


@dataclass(frozen=True, slots=True)
class Job:
    """`rw`, `block` and `depth` as fio takes them; `by_bytes`: the figure is MB/s, else operations a second."""

    key: str
    title: str
    rw: str
    block: str
    depth: int
    by_bytes: bool = False
    extra: tuple[str, ...] = ()

    def arguments(self, target: Target, size: int, seconds: float, directory: Path) -> list[str]:
        """The command line of fio. Its JSON goes to standard output."""
        return target.command(
            self.key, "--direct=1", "--thread", f"--rw={self.rw}", f"--bs={self.block}",
            f"--iodepth={self.depth}", f"--size={size}", "--time_based", f"--runtime={round(1000 * seconds)}ms",
            "--randrepeat=0", "--norandommap", "--output-format=json", f"--aux-path={directory}", *self.extra)


JOBS = (
    Job("seq-write-1m-d1", "seq write 1M, depth 1", "write", "1M", 1, by_bytes=True),
    Job("seq-write-1m-d4", "seq write 1M, depth 4", "write", "1M", 4, by_bytes=True),
    Job("seq-read-1m-d4", "seq read 1M, depth 4", "read", "1M", 4, by_bytes=True),
    Job("rand-write-4k-d1", "rand write 4k, depth 1", "randwrite", "4k", 1),
    Job("rand-write-4k-d16", "rand write 4k, depth 16", "randwrite", "4k", 16),
    Job("rand-write-4k-d64", "rand write 4k, depth 64", "randwrite", "4k", 64),
    Job("rand-write-4k-fsync", "rand write 4k, depth 1, fsync each", "randwrite", "4k", 1, extra=("--fsync=1",)),
    Job("mix-4k-d16", "70/30 mix 4k, depth 16", "randrw", "4k", 16, extra=("--rwmixread=70",)),
    Job("rand-read-4k-d1", "rand read 4k, depth 1", "randread", "4k", 1),
    Job("rand-read-4k-d16", "rand read 4k, depth 16", "randread", "4k", 16),
    Job("rand-read-4k-d64", "rand read 4k, depth 64", "randread", "4k", 64),
)
# The job whose CPU per operation is reported, and which runs while a replica is killed.
CPU_JOB = next(job for job in JOBS if job.key == "rand-write-4k-d16")
