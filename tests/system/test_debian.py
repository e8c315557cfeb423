"""README and runbook, typed literally on a fresh Debian 12: `make test-system` (root, a network, some ten minutes).

The runbook's three hosts are three machines with a systemd each, on one network.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fuse.tools import wait_until
from tests.shell_blocks import shell_blocks
from tests.system.machine import ROOT, Machine

README, RUNBOOK = ROOT / "README.md", ROOT / "deploy" / "runbook.md"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.environ.get("DSREG_TEST_SYSTEM") != "1", reason="installs whole systems: make test-system"),
]


def fill_in(block: str) -> str:
    """The one thing that every reader has to fill in."""
    return block.replace("<this repository>", "/src")


# --- README ---------------------------------------------------------------------------------------------
@pytest.fixture
def laptop(debian: Path, tmp_path: Path) -> Iterator[Machine]:
    """Fresh, with the lists of packages that an installed Debian has."""
    with Machine(debian, tmp_path / "laptop", "sleep", "infinity") as machine:
        machine.type_in("apt-get update -qq")
        yield machine


def test_the_two_commands(laptop: Machine) -> None:
    install, file_system, down = shell_blocks(README, "The two commands")
    *to_install, serve = install.splitlines()
    said = laptop.type_in("\n".join(["cp -r /src dsreg; cd dsreg", *to_install, f"""
{serve} &
until test -e /mnt/disk/disk.img; do kill -0 $!; sleep 0.2; done
{file_system}
cp -r /usr/share/doc /mnt/files
{down}
wait
test -d /root/.local/share/dsreg/default/node-3
"""]))
    assert "Traceback" not in said and "Discarding" not in said


# --- runbook --------------------------------------------------------------------------------------------
@pytest.fixture
def installed(debian: Path, tmp_path: Path) -> Path:
    """A root on which the runbook's part for every host has been typed."""
    packages, fuse, *_ = shell_blocks(RUNBOOK, "Install on three hosts")
    with Machine(debian, tmp_path / "install", "sleep", "infinity") as machine:
        machine.type_in("apt-get update -qq\n" + fill_in(packages) + fuse)
    # The lower layer of the hosts: what debootstrap made, with what was installed on top.
    merged = tmp_path / "installed"
    subprocess.run(["cp", "-a", f"{debian}/.", str(merged)], check=True)
    subprocess.run(["cp", "-a", f"{tmp_path}/install/data/.", str(merged)], check=True)
    return merged


@pytest.fixture
def hosts(installed: Path, tmp_path: Path) -> Iterator[list[Machine]]:
    """Three booted machines, 10.0.0.1 to 10.0.0.3 on one network."""
    with contextlib.ExitStack() as stack:
        init = "/lib/systemd/systemd"
        hosts = [stack.enter_context(Machine(installed, tmp_path / f"host{rank}", init, has_network=False))
                 for rank in (1, 2, 3)]
        join_network(hosts)
        wait_until(lambda: all(map(is_up, hosts)), "all hosts have booted", 120)
        yield hosts


def is_up(host: Machine) -> bool:
    done = subprocess.run(host.enter("systemctl", "is-system-running"), capture_output=True, text=True, check=False)
    return done.stdout.strip() in ("running", "degraded")


def join_network(hosts: list[Machine]) -> None:
    """Host 1 is the switch as well: a bridge in its network, a cable from each of the others to it."""
    def ip(host: Machine, *arguments: str) -> None:
        subprocess.run(["nsenter", "-t", str(host.pid), "-n", "ip", *arguments], check=True)

    ip(hosts[0], "link", "add", "lan", "type", "bridge")
    for rank, host in enumerate(hosts, 1):
        ip(host, "link", "set", "lo", "up")
        if rank > 1:
            ip(hosts[0], "link", "add", f"port{rank}", "type", "veth", "peer", "name", "lan", "netns", str(host.pid))
            ip(hosts[0], "link", "set", f"port{rank}", "master", "lan", "up")
        ip(host, "addr", "add", f"10.0.0.{rank}/24", "dev", "lan")
        ip(host, "link", "set", "lan", "up")


def test_the_runbook(hosts: list[Machine]) -> None:
    _, _, create, start_node, see = shell_blocks(RUNBOOK, "Install on three hosts")
    first = hosts[0]
    first.type_in(create)
    for host in hosts[1:]:  # "over a channel that you trust"
        archive = subprocess.run(first.enter("tar", "-C", "/etc", "-c", "dsreg"), stdout=subprocess.PIPE, check=True)
        subprocess.run(host.enter("tar", "-C", "/etc", "-xp"), input=archive.stdout, check=True)
    for rank, host in enumerate(hosts, 1):
        host.type_in(re.sub(r"@R\b", f"@{rank}", start_node))
    wait_until(lambda: "well: 3 of 3" in first.type_in(f"{watch()} || true"), "all nodes answer", 60)
    assert "quorum: 3 of 3 nodes answer" in first.type_in(see)

    attach, *_ = shell_blocks(RUNBOOK, "Attach")
    said = first.type_in(attach)
    [device] = re.findall(r"^(/dev/loop\d+) +1 +4096$", said, re.MULTILINE)
    # There is no udev here, so that systemd would wait for the UUID for ever: the mount is made by hand.
    said = first.type_in(f"mkfs.ext4 {device}; mkdir /srv/data; mount {device} /srv/data; "
                         "echo kept > /srv/data/file; systemctl status srv-data.mount --no-pager")
    assert re.search(r"Discarding device blocks:.*done", said)

    hosts[2].type_in("systemctl kill --signal KILL dsreg-node@3; systemctl stop dsreg-node@3")
    wait_until(lambda: "degraded: 2 of 3" in first.type_in(f"{watch()} || true"), "degraded", 60)
    first.type_in("cat /srv/data/file; echo more >> /srv/data/file; sync /srv/data/file")
    hosts[2].type_in("systemctl start dsreg-node@3")

    [detach] = shell_blocks(RUNBOOK, "Detach")
    first.type_in(detach)
    said = hosts[1].type_in(attach)
    [device] = re.findall(r"^(/dev/loop\d+) +1 +4096$", said, re.MULTILINE)
    assert "kept\nmore\n" in hosts[1].type_in(f"mkdir /srv/data; mount {device} /srv/data; cat /srv/data/file")
    hosts[1].type_in(detach)
    for host in hosts:
        journal = host.type_in("journalctl --no-pager -p err -t dsreg -t dsreg-fuse")
        assert "Traceback" not in journal


def watch() -> str:
    _all_the_time, once = shell_blocks(RUNBOOK, "Watch it")
    return once.strip()
