"""What a request through FUSE costs the process that serves it: `python -m scripts.fuse_hops`, as root, with fio.

A disk in memory that answers at once is attached as a loop device, and fio uses that: what is left is the kernel's
interface and the frontend's part. CPU microseconds of the serving process for a request, user and system; the ratio to
one HMAC-SHA256 of 4 KiB in the same run is what can be compared between machines.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import click
import trio
from rich.console import Console
from rich.table import Table

from dsreg.memory import prepare_to_serve_block_io
from dsreg.protocol.codec import Mac
from dsreg.store import Buffer, Done, Read, Request, Write
from dsreg.volume import Volume
from fuse_frontend import bindings, mount
from fuse_frontend.loop import Loop
from fuse_frontend.mount import MountOptions
from scripts.hops import KEYS, VALUE, cost_us

SIZE = 64 << 20
COMMAND_S = 60.0
JOBS = {
    "4 KiB random read, depth 64": ("randread", "4k", 64),
    "4 KiB random read, depth 1": ("randread", "4k", 1),
    "4 KiB random write, depth 64": ("randwrite", "4k", 64),
    "1 MiB read, depth 4": ("read", "1M", 4),
    "1 MiB write, depth 4": ("write", "1M", 4),
}


class MemoryDisk:
    """Answers before it returns."""

    size = SIZE
    is_cached = False
    obstacle = ""

    def __init__(self) -> None:
        self._content = bytearray(SIZE)

    def submit(self, request: Request, done: Done) -> None:
        data: Buffer = b""
        if isinstance(request, Read):
            data = self._content[request.offset : request.offset + request.length]
        elif isinstance(request, Write):
            self._content[request.offset : request.offset + len(request.data)] = request.data
        done(data, None)

    def end_turn(self) -> None:
        """Everything has been answered."""


def serve_memory(mountpoint: Path, binding: str) -> None:
    """Until the mount is gone. Prints the name of the loop device."""
    def on_up(attached: Loop | None) -> None:
        assert attached is not None
        print(attached.node, flush=True)

    prepare_to_serve_block_io()
    trio.run(mount.serve, Volume(MemoryDisk()), MountOptions(mountpoint, attach=True, binding=binding), on_up)


def cpu_s(pid: int) -> tuple[float, float]:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    tick = os.sysconf("SC_CLK_TCK")
    return int(fields[11]) / tick, int(fields[12]) / tick


def measure(pid: int, device: str, job: tuple[str, str, int], seconds: float) -> tuple[float, float, float]:
    """Requests a second, and user and system CPU microseconds for each."""
    kind, block_size, depth = job
    before = cpu_s(pid)
    done = subprocess.run(
        ["fio", "--name=hops", f"--filename={device}", "--direct=1", "--ioengine=libaio", f"--rw={kind}",
         f"--bs={block_size}", f"--iodepth={depth}", "--time_based", f"--runtime={seconds}", f"--size={SIZE}",
         "--output-format=json"],
        capture_output=True, text=True, check=True, timeout=COMMAND_S + seconds,
    )
    after = cpu_s(pid)
    [found] = json.loads(done.stdout[done.stdout.index("{") :])["jobs"]
    direction = found["read"] if "read" in kind else found["write"]
    user, system = ((end - start) / direction["total_ios"] * 1e6 for start, end in zip(before, after, strict=True))
    return direction["iops"], user, system


def show(pid: int, device: str, binding: str, seconds: float) -> None:
    mac = Mac(KEYS.system)
    unit = cost_us(lambda: mac.sign(VALUE), 2000)
    table = Table("request", "per second", "CPU us", "of it user", f"HMACs of 4 KiB ({unit:.1f} us)", title=binding)
    for name, job in JOBS.items():
        rate, user, system = measure(pid, device, job, seconds)
        table.add_row(name, f"{rate:,.0f}", f"{user + system:.1f}", f"{user:.1f}", f"{(user + system) / unit:.2f}")
    Console().print(table)


@click.command(help=__doc__)
@click.option("--seconds", default=2.0, show_default=True, help="How long each kind is measured.")
@click.option("--serve", nargs=2, hidden=True)
def main(seconds: float, serve: tuple[str, str] | None) -> None:
    if serve is not None:
        serve_memory(Path(serve[0]), serve[1])
        return
    for binding in (bindings.PYFUSE3, bindings.DIRECT):
        measure_binding(binding, seconds)


def measure_binding(binding: str, seconds: float) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "scripts.fuse_hops", "--serve", str(Path(scratch).resolve()), binding]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            device = server.stdout.readline().strip()
            try:
                if device:  # else it has said why not
                    show(server.pid, device, binding, seconds)
            finally:
                if device:
                    subprocess.run(["losetup", "-d", device], check=True, timeout=COMMAND_S)
                    subprocess.run(["umount", scratch], check=True, timeout=COMMAND_S)
                server.wait(COMMAND_S)
    if server.returncode:
        sys.exit(server.returncode)


if __name__ == "__main__":
    main()
