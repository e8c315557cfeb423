"""What `make dist` makes, and the life of the Debian package on a fresh Debian 12: `make test-system`.

The host is one machine with a systemd of its own, and runs three nodes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from dsreg.version import VERSION
from tests.fuse.tools import wait_until
from tests.processes.cluster import free_addresses, own_host
from tests.system.machine import ROOT, Machine
from tests.system.prometheus import LIMIT_S, Prometheus
from tests.system.test_debian import is_up
from tests.system.test_prometheus import OF_THE_MACHINE, configuration
from tests.test_packaging import MADE, build

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.environ.get("DSREG_TEST_SYSTEM") != "1", reason="installs whole systems: make test-system"),
]

CONFIG = "/etc/dsreg/cluster.toml"
# All that has to do with it, but for what the test has put there.
TRACES = "find / -xdev '(' -path /proc -o -path /root ')' -prune -o -name '*dsreg*' -print | grep -v '^/src'"
PIDS = "systemctl show -p MainPID --value dsreg-node@1 dsreg-node@2 dsreg-node@3"


class Packages(NamedTuple):
    """`later`: of the same tree, with a higher version."""

    first: Path
    later: Path


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Packages:
    base = tmp_path_factory.mktemp("packages")
    shutil.copytree(ROOT, base / "tree", ignore=MADE, symlinks=True)
    wheel = build(base / "tree", "wheel", base / "wheels")
    for revision in (1, 2):
        command = [sys.executable, "-m", "scripts.deb", str(wheel), str(base), "--revision", str(revision)]
        subprocess.run(command, cwd=ROOT, check=True, timeout=600)
    return Packages(*sorted(base.glob("*.deb")))


@pytest.fixture
def host(debian: Path, packages: Packages, tmp_path: Path) -> Iterator[Machine]:
    """Booted, with both packages in /root."""
    with Machine(debian, tmp_path / "host", "/lib/systemd/systemd") as machine:
        wait_until(lambda: is_up(machine), "the host has booted", 120)
        for name, path in (("first.deb", packages.first), ("later.deb", packages.later)):
            subprocess.run(machine.enter("tee", f"/root/{name}"), input=path.read_bytes(), stdout=subprocess.DEVNULL,
                           check=True)
        machine.type_in("apt-get update -qq")
        yield machine


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make dist` makes, of a copy: what is in dist/ here is not touched."""
    tree = tmp_path_factory.mktemp("released") / "tree"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(tree)], check=True)
    (tree / ".venv").symlink_to(ROOT / ".venv")
    subprocess.run([tree / "scripts" / "dist.sh"], check=True, timeout=1100)
    return tree / "dist"


def test_what_is_released(released: Path) -> None:
    names = {path.name for path in released.iterdir()}
    assert {f"dsreg-{VERSION}.tar.gz", f"dsreg-{VERSION}-py3-none-any.whl", "SHA256SUMS"} <= names
    assert any(name.endswith(".deb") for name in names)
    done = subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=released, check=False)
    assert done.returncode == 0


def test_the_compiled_wheel_is_installed_and_keeps_what_is_written(released: Path, tmp_path: Path) -> None:
    """In an environment of its own, with what the index has: three nodes, a client, and a restart of all."""
    [wheel] = released.glob("*-linux_*.whl")
    assert any(name.endswith(".so") for name in zipfile.ZipFile(wheel).namelist())
    options = " ".join(f"--host {address}:{port}" for address, port in free_addresses(3))
    script = f"""
set -ex
exec 2>&1
{sys.executable} -m venv own
own/bin/pip install -q --disable-pip-version-check {wheel}
PATH=$PWD/own/bin:$PATH
for name in dsreg dsreg-fuse dsreg-nbd; do test "$($name --version)" = "$name, version {VERSION} compiled"; done
dsreg init cluster --size 16MiB {options}
config=cluster/cluster.toml
run() {{
    dsreg up -c $config & up=$!
    trap 'kill $up; wait $up' EXIT
    dsreg wait --healed $config --timeout 120
    "$@"
    trap - EXIT
    kill $up && wait $up
}}
kept() {{ dsreg read -c $config 3 256 | cmp - data; }}
head -c 1M /dev/urandom > data
write() {{
    dsreg write -c $config 3 < data
    dsreg status --json $config
    dsreg bench -c $config --attach --mix 100 --seconds 1
    kept
}}
run write
run kept
"""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "DSREG"))}
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          text=True, env=environment, timeout=600, check=False)
    print(done.stdout)
    assert done.returncode == 0 and "Traceback" not in done.stdout, done.stdout
    assert done.stdout.count(f'"version": "{VERSION} compiled"') == 3, "each node"


def test_the_life_of_the_package(host: Machine) -> None:
    before = host.type_in(f"{TRACES} || true")
    said = host.type_in("""
apt-get install -y -qq /root/first.deb
dsreg --version; dsreg-fuse --version; dsreg-nbd --version
/opt/dsreg/bin/python3 -c 'import isal, h11, prometheus_client, pyfuse3; print(pyfuse3.__file__)'
systemctl list-unit-files --no-pager --no-legend 'dsreg*'
getent passwd dsreg
zcat /usr/share/man/man1/dsreg-health.1.gz
for shell in bash zsh fish; do COMP_WORDS='dsreg he' COMP_CWORD=1 _DSREG_COMPLETE=${shell}_complete dsreg; done
stat -c 'mode %a' /etc/dsreg
find /opt/dsreg -name __pycache__ -type d -print -quit
""")
    for part in (f"dsreg, version {VERSION}", f"dsreg-fuse, version {VERSION}", f"dsreg-nbd, version {VERSION}",
                 "/opt/dsreg/lib/python3.11/site-packages/pyfuse3/", "dsreg-node@.service", "dsreg-nbd.socket",
                 "dsreg node:/var/lib/dsreg", ".SH NAME\ndsreg\\-health \\- Say whether", "plain,health", "mode 700"):
        assert part in said

    options = " ".join(f"--host {address}:{port}" for address, port in free_addresses(3))
    nodes = "dsreg-node@1 dsreg-node@2 dsreg-node@3"
    host.type_in(f"""
dsreg init /etc/dsreg --size 64MiB {options}
systemctl enable --now {nodes}
until dsreg health {CONFIG}; do sleep 0.2; done
head -c 1M /dev/urandom > /root/data && dsreg write -c {CONFIG} 0 < /root/data
""")
    pids = host.type_in(PIDS)
    said = host.type_in("apt-get install -y -qq /root/later.deb")
    assert "these units go on with the version that was installed before" in said and "dsreg-node@3.service" in said
    assert host.type_in(PIDS) == pids, "a node is restarted by hand"
    read = f"dsreg read -c {CONFIG} 0 256 > /root/read && cmp /root/data /root/read"
    host.type_in(f"""
{read}
for rank in 1 2 3; do systemctl restart dsreg-node@$rank; dsreg wait --healed {CONFIG}; done
{read}
dpkg -s dsreg | grep '^Version: {VERSION}-2$'
""")

    said = host.type_in("""
systemctl start dsreg-nbd.socket dsreg-nbd.service
if apt-get remove -y -qq dsreg; then exit 1; fi
dsreg --version
systemctl stop dsreg-nbd.socket dsreg-nbd.service
apt-get remove -y -qq dsreg
""")
    assert "dsreg-nbd.service is active: the disk is in use on this host" in said
    host.type_in(f"""
test ! -e /opt/dsreg && test ! -e /usr/bin/dsreg && test -e {CONFIG}
systemctl list-units --plain --no-legend --state=active 'dsreg-node@*' | (! grep .)
apt-get install -y -qq /root/later.deb
systemctl start {nodes}; until dsreg health {CONFIG}; do sleep 0.2; done
{read}
""")
    said = host.type_in("apt-get purge -y -qq dsreg")
    assert "/var/lib/dsreg is kept" in said and "/etc/dsreg is kept" in said
    left = set(host.type_in(f"{TRACES} || true").splitlines()) - set(before.splitlines())
    kept = ("/etc/dsreg", "/var/lib/dsreg")
    assert {path for path in left if path.startswith("/")} == set(kept), "and nothing else"


# --- a cluster in use -----------------------------------------------------------------------------------
# Writes and verifies the disk round after round, until it is told to stop; ends with 1 at the first error.
FIO = """
while ! test -e /root/stop; do
    fio --name=round --filename=$1 --direct=1 --ioengine=libaio --iodepth=8 --bs=4k --size=16M --io_size=2M \\
        --rw=randwrite --verify=crc32c --verify_fatal=1 --randseed=$RANDOM --output=/root/fio.log || exit 1
    echo >> /root/rounds
done
"""
# Each step is in the files of this host at once; nodes of a unit have copies of them, which are made at their start.
ROTATE = f"""
set -e
dsreg keys rotate {CONFIG} --timeout 300 > /root/rotated 2>&1 & rotating=$!
for step in 'is accepted beside' 'the new key is used' 'only the new key'; do
    until grep "client key: .*$step" /root/rotated; do kill -0 $rotating; sleep 0.1; done
    stat -c 'keys %U %a' /etc/dsreg/client.key /etc/dsreg/system.key
    for rank in 1 2 3; do systemctl restart dsreg-node@$rank; dsreg wait --healed {CONFIG} --timeout 120; done
done
wait $rotating
cat /root/rotated
"""


class InUse:
    """Three nodes of the first package with metrics and pages at `address`, and fio on the disk, which is attached."""

    def __init__(self, host: Machine, address: str) -> None:
        self.host, self.address = host, address
        self.instances = [f"{address}:{9600 + rank}" for rank in (1, 2, 3)]
        options = " ".join(f"--host {at}:{port}" for at, port in free_addresses(3))
        for name, script in (("fio.sh", FIO), ("rotate.sh", ROTATE)):
            subprocess.run(host.enter("tee", f"/root/{name}"), input=script.encode(), stdout=subprocess.DEVNULL,
                           check=True)
        host.type_in(f"""
apt-get install -y -qq /root/first.deb
apt-get install -y -qq --no-install-recommends fio
dsreg init /etc/dsreg --size 64MiB {options}
sed -i 's/^\\[cluster\\]$/&\\nmetrics = "{address}"/' {CONFIG}
systemctl enable --now dsreg-node@1 dsreg-node@2 dsreg-node@3
dsreg wait --healed {CONFIG} --timeout 120
systemctl start dsreg-loop
systemd-run --unit load bash /root/fio.sh $(losetup -n -O NAME -j /run/dsreg/disk/disk.img)
""")

    def _rounds(self) -> int:
        return int(self.host.type_in("systemctl is-active load >&2; cat /root/rounds 2> /dev/null | wc -l").split()[-1])

    def go_on(self) -> None:
        """Until a round has begun and ended without an error."""
        enough = self._rounds() + 2
        wait_until(lambda: self._rounds() >= enough, "fio goes on", 300)

    def page(self, rank: int) -> str:
        with urllib.request.urlopen(f"http://{self.instances[rank - 1]}/", timeout=LIMIT_S) as answer:
            return str(answer.read().decode())

    def end(self) -> None:
        self.host.type_in("""
touch /root/stop
while systemctl is-active load; do sleep 0.2; done
test "$(systemctl show -p Result --value load)" = success
""")


def test_a_cluster_in_use_is_watched_upgraded_and_given_new_keys(host: Machine, tmp_path: Path) -> None:
    """As the runbook has it, with a server that watches, and without an error at the disk."""
    used = InUse(host, own_host())
    with Prometheus(configuration(tmp_path, {"dsreg-node": used.instances, "dsreg-edge": []}), tmp_path) as prometheus:
        used.go_on()
        wait_until(lambda: prometheus.is_scraped(*used.instances), "all are scraped", LIMIT_S)
        wait_until(lambda: prometheus.value("dsreg:spare_nodes") == 1, "one may go", LIMIT_S)
        host.type_in("systemctl kill --signal KILL dsreg-node@3; systemctl stop dsreg-node@3")
        down = {"DsregNodeDown": used.instances[2:], "DsregNoSpareNode": [""]}
        wait_until(lambda: prometheus.firing(OF_THE_MACHINE) == down, "the alerts", LIMIT_S)
        wait_until(lambda: "connection refused" in used.page(1), "the page says so", LIMIT_S)
        used.go_on()
        host.type_in(f"systemctl start dsreg-node@3; dsreg wait --healed {CONFIG} --timeout 120")
        wait_until(lambda: not prometheus.firing(OF_THE_MACHINE), "it is back, and has everything", LIMIT_S)
        assert "connection refused" not in used.page(1)

    host.type_in("apt-get install -y -qq /root/later.deb")
    said = host.type_in(f"""
until dsreg upgrade --plan {CONFIG} --to {VERSION}-2 > plan; do sleep 0.5; done
cat plan
bash -ex plan
""", timeout_s=900)
    assert "has the disk attached, and may keep it" in said and said.count("+ systemctl restart dsreg-node@") == 3
    used.go_on()

    host.type_in("mkdir /root/old; cp -p /etc/dsreg/* /root/old/")
    said = host.type_in("bash /root/rotate.sh", timeout_s=900)
    assert said.count("keys root 600") == 6
    used.go_on()
    host.type_in(f"""
until dsreg health {CONFIG}; do sleep 0.5; done
if dsreg read -c /root/old/cluster.toml --timeout 5 0 1 > /dev/null; then exit 1; fi
""")
    used.end()
    host.type_in(f"systemctl stop dsreg-mount; dsreg read -c {CONFIG} 0 1 | wc -c | grep 4096")
