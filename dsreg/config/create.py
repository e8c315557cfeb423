"""The files of a new cluster: `cluster.toml` and its two keys, as `dsreg init` and the embedded cluster make them."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path

from dsreg.config.address import format_address, parse_address, why_not_reachable
from dsreg.config.durable import sync_directory
from dsreg.config.keys import write_key, write_new
from dsreg.config.sizes import format_size
from dsreg.constants import CLIENT_KEY_SIZE, MAX_RANK, MAX_SECTORS, SECTOR_SIZE, SYSTEM_KEY_SIZE
from dsreg.errors import ConfigError

CONFIG_NAME = "cluster.toml"
CLIENT_KEY_NAME = "client.key"
SYSTEM_KEY_NAME = "system.key"

_HEAD = """\
# A dsreg cluster. Every node and every client gets a copy of this file.

[cluster]
# The size of the disk, a multiple of 4096 bytes (KiB, MiB, GiB, TiB); or: sectors = {sectors}
size = "{size}"
# 32 bytes in hex, mode 0600, for clients and nodes; relative to this file.
client_key_file = "{client_key}"
# 64 bytes in hex, mode 0600, for the nodes alone; a client host needs no copy of it.
system_key_file = "{system_key}"
# Accept only encrypted connections: refuses clients that send plain commands over TCP.
# require_sealed = true
"""

_STRICT_START = """\
# A node with an empty directory starts only after other nodes have confirmed that its rank is new: so many that every
# majority contains one of them. In a new cluster of which some nodes cannot be started yet: dsreg node --new.
strict_start = true
"""

_NODE = """
[[node]]
rank = {rank}
address = "{address}"
"""


def plan_addresses(hosts: Sequence[str], nodes: int, base_port: int) -> list[str]:
    """The `nodes` addresses of a new cluster, in the order of the ranks.

    Each of `hosts` is a name, an IPv4 or IPv6 address (brackets optional), or one with a port of its own. A host
    without a port gets `base_port`, and one more each time it comes up again, so that one host can carry
    several nodes. Hosts are used in turn. Raises ConfigError.
    """
    faults: list[str] = []
    addresses: list[str] = []
    taken: dict[str, int] = {}
    for number in range(nodes):
        host = hosts[number % len(hosts)]
        try:
            name, port = parse_address(host)
        except ValueError:
            name = host.removeprefix("[").removesuffix("]")
            port = base_port + taken.get(name, 0)
            taken[name] = taken.get(name, 0) + 1
        address = format_address(name, port)
        try:
            parse_address(address)
        except ValueError as error:
            faults.append(f"node {number + 1}: {error}")
        if fault := why_not_reachable(name):
            faults.append(f"node {number + 1}: {fault}")
        if address in addresses:
            faults.append(f"node {number + 1}: {address} is given twice; leave the port out or name another host")
        addresses.append(address)
    if faults:
        raise ConfigError(faults)
    return addresses


def create_cluster(directory: Path, size: int, addresses: Sequence[str], *, strict_start: bool = False) -> Path:
    """Create `cluster.toml` and fresh keys in `directory` (made with mode 0700 if missing); returns its path.

    `size` is the disk in bytes, `addresses` are `host:port` by rank; `strict_start`: see ClusterConfig. Existing files
    are never touched: where
    any of the three exists, or on any other fault, ConfigError is raised and nothing is left behind.
    """
    _check(size, addresses)
    directory = Path(directory)
    created: list[Path] = []
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name, key_size in ((CLIENT_KEY_NAME, CLIENT_KEY_SIZE), (SYSTEM_KEY_NAME, SYSTEM_KEY_SIZE)):
            _refuse_existing(directory / CONFIG_NAME)
            write_key(directory / name, secrets.token_bytes(key_size))
            created.append(directory / name)
        # Last, since it is what makes a cluster of the directory.
        write_new(directory / CONFIG_NAME, _document(size, addresses, strict_start).encode("utf-8"), 0o644)
        sync_directory(directory)
    except OSError as error:
        for path in created:
            path.unlink(missing_ok=True)
        if isinstance(error, FileExistsError):
            raise ConfigError([f"{error.filename}: exists already; a cluster is never overwritten, "
                               "name another directory"]) from None
        raise ConfigError([f"{error.filename or directory}: {error.strerror}; name another directory"]) from None
    return directory / CONFIG_NAME


def _check(size: int, addresses: Sequence[str]) -> None:
    faults = []
    if size % SECTOR_SIZE or not SECTOR_SIZE <= size <= MAX_SECTORS * SECTOR_SIZE:
        faults.append(f"size of {size} bytes: give a multiple of 4096, at least 4096, like 1GiB")
    if not 1 <= len(addresses) <= MAX_RANK:
        faults.append(f"{len(addresses)} nodes: give 1 to {MAX_RANK}")
    if faults:
        raise ConfigError(faults)


def _document(size: int, addresses: Sequence[str], strict_start: bool) -> str:
    head = _HEAD.format(sectors=size // SECTOR_SIZE, size=format_size(size),
                        client_key=CLIENT_KEY_NAME, system_key=SYSTEM_KEY_NAME)
    if strict_start:
        head += _STRICT_START
    return head + "".join(_NODE.format(rank=rank, address=address) for rank, address in enumerate(addresses, 1))


def _refuse_existing(path: Path) -> None:
    if path.exists():
        raise FileExistsError(0, "exists", str(path))
