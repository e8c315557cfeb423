"""The README's commands, typed literally one after the other, on a machine of their own.

That is: in namespaces with file systems, names and addresses of their own, as root. What installs packages is in
tests/system, on a fresh Debian (`make test-system`).
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.test_addresses import UNSHARE, why_no_namespace
from tests.fuse.tools import why_no_loop
from tests.nbd.tools import needs
from tests.shell_blocks import shell_blocks

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
TIMEOUT_S = 240
# Puts directories of its own where the commands write, the addresses of three hosts on one interface, and the programs
# into the PATH. What a command leaves in the background ends with the namespace.
MACHINE = """
set -e
exec 2>&1
mkdir -p own/mnt own/etc own/etc-work own/var own/var-work own/home bin
mount --bind own/mnt /mnt
mount -t overlay overlay -o lowerdir=/etc,upperdir=own/etc,workdir=own/etc-work /etc
mount -t overlay overlay -o lowerdir=/var/lib,upperdir=own/var,workdir=own/var-work /var/lib
mount -t tmpfs tmpfs /run
ip link set lo up
for n in 1 2 3 4 5; do ip addr add 10.0.0.$n/32 dev lo; done
export HOME=$PWD/own/home PATH=$PWD/bin:$PATH
unset DSREG_CONFIG XDG_CONFIG_HOME XDG_DATA_HOME
await() {
    { set +x; } 2>/dev/null
    for _ in $(seq 600); do if "$@"; then set -x; return; fi; sleep 0.1; done
    echo "timed out: $*"; exit 1
}
set -x
"""


@pytest.fixture
def machine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if os.geteuid() != 0:
        pytest.skip("the README's commands are root's")
    if why := why_no_namespace() or why_no_loop():
        pytest.skip(why)
    directory = tmp_path_factory.mktemp("machine")
    (directory / "bin").mkdir()
    programs = {"dsreg": "dsreg", "dsreg-fuse": "fuse_frontend.cli", "dsreg-nbd": "nbd_frontend.cli"}
    for name, module in programs.items():
        program = directory / "bin" / name
        program.write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" -P -m {module} "$@"\n')
        program.chmod(0o755)
    return directory


def type_in(machine: Path, script: str) -> str:
    """What was printed; the commands themselves stand between it."""
    done = subprocess.run([*UNSHARE, "bash", "-c", MACHINE + script], cwd=machine, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, text=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stdout
    print(done.stdout)
    return done.stdout


@pytest.mark.slow
@pytest.mark.fuse
def test_the_two_commands(machine: Path) -> None:
    install, file_system, down = shell_blocks(README, "The two commands")
    *to_install, make_directory, serve = install.splitlines()
    assert [line.split()[0] for line in to_install] == ["apt-get", "python3", "pip"], "these are for tests/system"
    said = type_in(machine, f"""
{make_directory}
{serve} &
await test -e /mnt/disk/disk.img
{file_system}
test $(stat -c %s /mnt/disk/disk.img) = $((1 << 30))
losetup -l -n -O DIO,LOG-SEC $DEV | grep -q '1 *4096'
echo kept > /mnt/files/file
{down}
wait
ls -d $HOME/.local/share/dsreg/default/node-3
{serve} &
await test -e /mnt/disk/disk.img
mount -o ro,loop,noload /mnt/disk/disk.img /mnt/files
grep kept /mnt/files/file
umount /mnt/files
fusermount3 -u /mnt/disk
wait
""")
    assert "iscard" not in said.replace("-E nodiscard", "").replace("nodiscard", ""), "no scary line"
    assert "is kept in" in said and "Traceback" not in said


@pytest.mark.slow
@pytest.mark.fuse
def test_three_hosts(machine: Path) -> None:
    """Each node has a /var/lib of its own, as on a host of its own; for the rest one machine is all three."""
    create, run_node, use, _replace, add, run_new, remove, resize, rotate = shell_blocks(README, "Three real hosts")
    assert "--rank 1" in run_node
    run_fourth, run_fifth = run_new.splitlines()
    assert "--rank 4" in run_fourth and run_fifth == run_fourth.replace("--rank 4", "--rank 5")
    watch, top, wait, scrub, attach, bench = use.splitlines()
    status = watch.replace(" --watch", "")  # which stays, as top does

    def start(command: str, *ranks: int) -> str:
        return "".join(
            # Its mounts follow those of the machine: a private copy would keep what others unmount.
            f"unshare --mount --propagation slave sh -c 'mkdir -p $PWD/own/host{rank} && "
            f"mount --bind $PWD/own/host{rank} /var/lib && "
            f"exec {re.sub('--rank [0-9]', f'--rank {rank}', command.strip())}' & node{rank}=$!\n"
            for rank in ranks)

    said = type_in(machine, f"""
{create}
{start(run_node, 1, 2, 3)}
await {status.split('#')[0].replace('status', 'health')}
{status}
{top.split('#')[0]} --once
{wait}
{scrub}
mkdir -p /mnt/disk
{attach} &
await test -e /mnt/disk/disk.img
await sh -c 'losetup -j /mnt/disk/disk.img | grep -q .'
{bench}
{add.strip()} & adding=$!
await grep -q 10.0.0.5 /etc/dsreg/cluster.toml
{start(run_fourth, 4)}{start(run_fifth, 5)}
wait $adding
{wait}
{status}
{remove}
kill $node4 $node5
wait $node4 $node5
{status}
{resize}
await test "$(stat -c %s /mnt/disk/disk.img)" = {200 << 30}
{rotate.replace("cluster.toml", "/etc/dsreg/cluster.toml")}
dsreg-fuse --detach /mnt/disk
""")
    assert "quorum: 3 of 3 nodes answer, 2 are needed" in said and "reads" in said and "Traceback" not in said
    assert "quorum: 5 of 5 nodes answer, 3 are needed" in said and "done: configuration 5, nodes 1 2 3" in said


@pytest.mark.slow
@needs("nbdinfo", "qemu-img")
def test_a_disk_for_qemu(machine: Path) -> None:
    serve, use = shell_blocks(README, "A disk for QEMU")
    info, convert, boot = use.splitlines()
    assert boot.startswith("qemu-system-x86_64 ") and boot.count("nbd+unix:///?socket=/tmp/disk.sock") == 1
    said = type_in(machine, f"""
rm -f /tmp/disk.sock
{serve.strip().replace("20GiB", "64MiB")} &
await test -S /tmp/disk.sock
await {info.split('#')[0]}
qemu-img create -q -f qcow2 image.qcow2 32M
qemu-io -c 'write -P 90 1M 2M' image.qcow2
{convert}
qemu-io -f raw -c 'read -P 90 1M 2M' 'nbd+unix:///?socket=/tmp/disk.sock'
kill $!
wait $!
test ! -e /tmp/disk.sock
""")
    assert "export-size: 67108864" in said and "Traceback" not in said and "verification failed" not in said
