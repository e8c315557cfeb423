"""A virtual machine on the disk, by NBD: boots, writes, is killed, and boots again: `make test-system` (a network).

By qemu's software emulation, with Debian's kernel; the rest of its system is busybox, made here.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import random
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.fuse.tools import run, wait_until
from tests.nbd.test_process import Daemon
from tests.node_processes import Nodes, running_nodes

NEEDED = ("qemu-system-x86_64", "qemu-img", "busybox", "depmod", "dpkg-deb", "apt-get", "mkfs.ext4")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.environ.get("DSREG_TEST_SYSTEM") != "1", reason="fetches a kernel: make test-system"),
    pytest.mark.skipif(any(shutil.which(program) is None for program in NEEDED), reason=f"needs {', '.join(NEEDED)}"),
]

MIB = 1 << 20
SIZE = 256 * MIB
# Emulated, on a machine that has other things to do as well.
BOOT_S = 600.0
PACKAGE = "linux-image-cloud-amd64"
MODULES = ("virtio_pci", "virtio_blk")

# Of the initial file system: load what reaches the disk, and go on with the system on it.
INIT = """#!/bin/sh
mount -t devtmpfs dev /dev
for module in $(cat /modules); do insmod $module || echo "FAILED: insmod $module"; done
while ! mount -t ext4 -o discard /dev/vda /root; do sleep 1; done
exec switch_root /root /init
"""
# Of the system on the disk. The first boot makes files that it syncs, then goes on writing; the others look for them.
SYSTEM = """#!/bin/sh
mount -t devtmpfs dev /dev
mount -t proc proc /proc
boot=$(($(cat /boots) + 1))
echo $boot > /boots
sync
echo "BOOT $boot"
if test $boot = 1; then
    for n in 1 2 3 4 5 6 7 8; do dd if=/dev/urandom of=/kept.$n bs=64k count=16 2> /dev/null; done
    sha256sum /kept.* > /sums
    dd if=/dev/urandom of=/gone bs=1M count=40 2> /dev/null
    sync
    echo "SYNCED"
    n=0
    while true; do
        n=$((n + 1))
        dd if=/dev/urandom of=/busy.$((n % 7)) bs=32k count=9 2> /dev/null
        sync
        echo "BUSY $n"
    done
fi
sha256sum -c /sums > /dev/null && echo "INTACT"
if test $boot = 3; then
    rm /gone
    sync
    fstrim -v / && echo "TRIMMED"
fi
sync
mount -o remount,ro /
echo "DONE $boot"
poweroff -f
"""


def newc(entries: Sequence[tuple[str, int, bytes]]) -> bytes:
    """A cpio archive as the kernel takes it, of (name, mode, content)."""
    found = b""
    for number, (name, mode, content) in enumerate((*entries, ("TRAILER!!!", 0, b"")), 1):
        fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
        head = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
        found += head + bytes(-len(head) % 4) + content + bytes(-len(content) % 4)
    return found


class Kernel:
    """Debian's, unpacked in `directory`: `image`, and `initrd` with the modules that the disk needs."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        [package] = re.findall(r"^ *Depends: (linux-image-\S+)$", run("apt-cache", "depends", PACKAGE).stdout, re.M)
        subprocess.run(["apt-get", "download", "-qq", package], cwd=directory, check=True, timeout=BOOT_S,
                       stderr=subprocess.DEVNULL)
        [archive] = directory.glob("*.deb")
        run("dpkg-deb", "-x", archive, directory / "root")
        [self.image] = (directory / "root" / "boot").glob("vmlinuz-*")
        [modules] = (directory / "root" / "lib" / "modules").iterdir()
        run("depmod", "-b", directory / "root", modules.name)
        self.initrd = directory / "initrd"
        self.initrd.write_bytes(gzip.compress(newc(self._files(modules)), 1))

    def _files(self, modules: Path) -> list[tuple[str, int, bytes]]:
        depends = dict(line.split(":", 1) for line in (modules / "modules.dep").read_text().splitlines())
        wanted: dict[str, None] = {}
        for name in MODULES:
            [path] = [path for path in depends if re.search(rf"/{name}\.ko(\.xz)?$", path)]
            wanted.update(dict.fromkeys([*reversed(depends[path].split()), path]))
        files = [(f"lib/{Path(path).name}", 0o100644, (modules / path).read_bytes()) for path in wanted]
        order = "".join(f"/{name}\n" for name, _, _ in files)
        directories = [(name, 0o040755, b"") for name in ("bin", "dev", "lib", "root")]
        return [*directories, *busybox("bin"), *files, ("modules", 0o100644, order.encode()),
                ("init", 0o100755, INIT.encode())]


def busybox(place: str) -> list[tuple[str, int, bytes]]:
    """busybox, and its names as links to it."""
    program = Path(shutil.which("busybox") or "")
    names = run(program, "--list").stdout.split()
    links = [(f"{place}/{name}", 0o120777, b"busybox") for name in names if name != "busybox"]
    return [(f"{place}/busybox", 0o100755, program.read_bytes()), *links]


def make_system(directory: Path, image: Path) -> None:
    """The root file system of the machine."""
    for name in ("bin", "dev", "proc"):
        (directory / name).mkdir(parents=True)
    for name, mode, content in busybox("bin"):
        if mode & 0o170000 == 0o120000:
            (directory / name).symlink_to(content.decode())
        else:
            (directory / name).write_bytes(content)
            (directory / name).chmod(0o755)
    (directory / "boots").write_text("0\n")
    (directory / "init").write_text(SYSTEM)
    (directory / "init").chmod(0o755)
    with image.open("wb") as stream:
        stream.truncate(SIZE)
    run("mkfs.ext4", "-q", "-d", directory, image)


class Machine:
    """Runs until it is killed, or powers itself off. `console`: what it has said."""

    def __init__(self, kernel: Kernel, socket: Path, console: Path) -> None:
        self._console = console
        drive = f"file=nbd+unix:///?socket={socket},format=raw,if=virtio,discard=unmap,cache=none"
        self.process = subprocess.Popen(
            ["qemu-system-x86_64", "-accel", "tcg", "-m", "256", "-nodefaults", "-no-user-config", "-no-reboot",
             "-display", "none", "-serial", f"file:{console}", "-kernel", str(kernel.image), "-initrd",
             str(kernel.initrd), "-append", "console=ttyS0 panic=-1 quiet", "-drive", drive],
            stdin=subprocess.DEVNULL,
        )

    @property
    def console(self) -> str:
        return self._console.read_text(errors="replace") if self._console.exists() else ""

    def wait_for(self, text: str) -> None:
        wait_until(lambda: text in self.console or self.process.poll() is not None, f"{text} of the machine", BOOT_S)
        assert text in self.console, self.console

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    with running_nodes(tmp_path, SIZE) as nodes:
        yield nodes


def test_a_machine_that_is_killed_boots_again(nodes: Nodes, tmp_path: Path, rng: random.Random) -> None:
    """Its host's process is killed while it writes, and so is a node; what it has synced is there when it boots again,
    and so it is when the server was killed as well. What it trims is given back: see the nodes' `sectors`."""
    kernel = Kernel(tmp_path / "kernel")
    make_system(tmp_path / "system", tmp_path / "image")
    with contextlib.ExitStack() as stack:
        def serve() -> Daemon:
            server = Daemon(tmp_path, "--config", nodes.config.path)
            stack.callback(server.process.wait)
            stack.callback(server.process.kill)
            server.wait_until_up()
            return server

        def boot(number: int) -> Machine:
            machine = Machine(kernel, server.path, tmp_path / f"console.{number}")
            stack.callback(machine.kill)
            stack.callback(lambda: print(f"--- console of boot {number}\n{machine.console}"))
            return machine

        server = serve()
        uri = f"nbd+unix:///?socket={server.path}"
        run("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", tmp_path / "image", uri, timeout_s=BOOT_S)
        machine = boot(1)
        machine.wait_for("SYNCED")
        victim = rng.choice((1, 2, 3))
        nodes.kill(victim)
        machine.wait_for("BUSY 3\n")
        nodes.start(victim)
        machine.wait_for("BUSY 6\n")
        machine.kill()
        machine = boot(2)
        machine.wait_for("DONE 2")
        assert "INTACT" in machine.console and machine.process.wait(BOOT_S) == 0
        server.process.kill()
        server.process.wait()
        server = serve()
        machine = boot(3)
        machine.wait_for("DONE 3")
        assert "INTACT" in machine.console and "TRIMMED" in machine.console
        assert machine.process.wait(BOOT_S) == 0
        run("qemu-img", "convert", "-f", "raw", "-O", "raw", uri, tmp_path / "back", timeout_s=BOOT_S)
    run("fsck.ext4", "-fn", tmp_path / "back")
