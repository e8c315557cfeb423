"""Addresses of real nodes: names that stand for loopback, listening apart from the address, scopes of IPv6."""

from __future__ import annotations

import functools
import os
import subprocess
from pathlib import Path

import pytest

from dsreg.cli.faults import EXIT_CONFIG

TIMEOUT_S = 60
# A network and file systems of its own, in which the test has addresses and names as it likes; and processes of its
# own, so that none is left at the end.
UNSHARE = ["unshare", "--net", "--mount", "--propagation", "slave", "--pid", "--fork", "--kill-child", "--mount-proc",
           *([] if os.geteuid() == 0 else ["--map-root-user"])]
# Runs the nodes named in $RANKS for as long as the commands behind it take.
WITH_NODES = """
set -e
ip link set lo up
for rank in $RANKS; do "$@" node --config c/cluster.toml --rank $rank --storage s$rank & pids="$pids $!"; done
trap 'kill $pids; wait' EXIT
until "$@" health c/cluster.toml --timeout 5; do kill -0 $pids; done
"""


@functools.cache
def why_no_namespace() -> str:
    done = subprocess.run([*UNSHARE, "ip", "link", "set", "lo", "up"], capture_output=True, text=True, check=False)
    return done.stderr.strip() if done.returncode else ""


@pytest.fixture(autouse=True)
def _namespaces() -> None:
    if why := why_no_namespace():
        pytest.skip(f"no namespaces here: {why}")


def in_namespace(directory: Path, script: str, dsreg: list[str], ranks: str = "") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "RANKS": ranks}
    return subprocess.run([*UNSHARE, "bash", "-c", script, "bash", *dsreg], cwd=directory, env=environment,
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)


def add_interface(name: str, *addresses: str) -> str:
    """The lines of shell that make an interface which is up, and has these addresses."""
    lines = [f"ip link add {name} type veth peer name peer", f"ip link set {name} up", "ip link set peer up"]
    lines += [f"ip addr add {address} dev {name}" + (" nodad" if ":" in address else "") for address in addresses]
    return "\n".join(["set -e", *lines, ""])


def create(directory: Path, dsreg: list[str], *hosts: str) -> Path:
    options = [part for host in hosts for part in ("--host", host)]
    subprocess.run([*dsreg, "init", str(directory / "c"), "--size", "1MiB", *options], check=True, timeout=20,
                   capture_output=True)
    return directory / "c" / "cluster.toml"


@pytest.fixture
def hosts_file(tmp_path: Path) -> str:
    """What Debian's installer writes; a line of shell that puts it in place."""
    (tmp_path / "hosts").write_text("127.0.0.1 localhost\n127.0.1.1 here.example here\n192.0.2.2 there\n")
    return "mount --bind hosts /etc/hosts\n"


def test_a_name_that_stands_for_loopback_is_not_bound_for_others(
    tmp_path: Path, dsreg: list[str], hosts_file: str
) -> None:
    create(tmp_path, dsreg, "here", "there")
    node = 'ip link set lo up\n"$@" node --config c/cluster.toml --rank 1 --storage s\n'
    done = in_namespace(tmp_path, hosts_file + node, dsreg)
    assert done.returncode == EXIT_CONFIG, done
    assert done.stderr.endswith(
        "CRITICAL node-1 dsreg.node: here:7001: here resolves to 127.0.1.1 on this host (see /etc/hosts), where no "
        'other host can reach it: write its address in place of its name, or listen = "0.0.0.0:7001" beside it\n')
    assert not (tmp_path / "s").exists()


def test_the_advice_helps(tmp_path: Path, dsreg: list[str], hosts_file: str) -> None:
    """Node 1 listens on all addresses, and is reached by its name at one and by another at the other."""
    path = create(tmp_path, dsreg, "here", "there:7002")
    path.write_text(path.read_text().replace('"here:7001"\n', '"here:7001"\nlisten = "0.0.0.0:7001"\n'))
    script = hosts_file + add_interface("nic", "192.0.2.1/24", "192.0.2.2/24")
    script += WITH_NODES + "exec 3<>/dev/tcp/192.0.2.1/7001 && echo reached\n"
    done = in_namespace(tmp_path, script, dsreg, ranks="1 2")
    assert done.returncode == 0 and done.stdout.endswith("well: 2 of 2 nodes answer\nreached\n"), done


def test_a_cluster_on_one_host_by_its_name_is_told(tmp_path: Path, dsreg: list[str], hosts_file: str) -> None:
    create(tmp_path, dsreg, "here", "here", "here")
    done = in_namespace(tmp_path, hosts_file + WITH_NODES, dsreg, ranks="1 2 3")
    assert done.returncode == 0 and done.stdout.endswith("well: 3 of 3 nodes answer\n"), done
    assert done.stderr.count("here resolves to 127.0.1.1 on this host (see /etc/hosts): no other host can reach") == 3


@pytest.mark.parametrize("interface", ["br-lan", "enP2p1s0", "eth0.100"])
def test_link_local_addresses(tmp_path: Path, dsreg: list[str], interface: str) -> None:
    create(tmp_path, dsreg, f"fe80::1%{interface}", f"[fe80::2%{interface}]:7002", f"fe80::3%{interface}")
    script = add_interface(interface, "fe80::1/64", "fe80::2/64", "fe80::3/64") + WITH_NODES
    done = in_namespace(tmp_path, script, dsreg, ranks="1 2 3")
    assert done.returncode == 0 and done.stdout.endswith("well: 3 of 3 nodes answer\n"), done


def test_behind_nat(tmp_path: Path, dsreg: list[str]) -> None:
    """Advertised is an address that the node's host does not have, and a port that is translated to another one."""
    create(tmp_path, dsreg, "192.0.2.1:9001")
    script = add_interface("nic", "10.9.9.9/24") + """
ip link set lo up
"$@" node --config c/cluster.toml --rank 1 --storage s1 --listen '[::]:7001' & pid=$!
trap 'kill $pid $relay; wait' EXIT
python3 relay.py & relay=$!
until "$@" health c/cluster.toml --timeout 5; do kill -0 $pid $relay; done
exec 3<>/dev/tcp/10.9.9.9/7001 && exec 4<>/dev/tcp/::1/7001 && echo reached
"""
    # The router: it alone has the address that clients know.
    (tmp_path / "relay.py").write_text("""
import asyncio, subprocess
subprocess.run("ip addr add 192.0.2.1/32 dev lo", shell=True, check=True)
async def pass_on(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
async def serve(reader, writer):
    inner, outer = await asyncio.open_connection("10.9.9.9", 7001)
    await asyncio.gather(pass_on(reader, outer), pass_on(inner, writer))
async def main():
    async with await asyncio.start_server(serve, "192.0.2.1", 9001) as server:
        await server.serve_forever()
asyncio.run(main())
""")
    done = in_namespace(tmp_path, script, dsreg)
    assert done.returncode == 0 and done.stdout.endswith("well: 1 of 1 nodes answer\nreached\n"), done
