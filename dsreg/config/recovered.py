"""A cluster that was made of what another one has left, after a majority of its directories was lost: docs/recover.md.

`cluster.toml` has a section [recovered] then. Every node has to have it, as it says that an empty directory is to be
learned first. So the key file of the nodes says that there has to be one, and the section is part of the key: whoever
has lost it does not start, and whoever has another one cannot talk to the others.

The files of the new cluster are written beside the old ones (`stage`), then put in their place (`finish`); the old ones
are kept under other names. Both may be interrupted anywhere, and are called again.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from dsreg.config.durable import put_file, sync_directory
from dsreg.config.edit import FIRST_COMMENT
from dsreg.config.keys import RECOVERED_MARK, derive_cluster_id
from dsreg.constants import CLIENT_KEY_SIZE, MAX_EPOCH, MAX_RANK, SYSTEM_KEY_SIZE
from dsreg.errors import ConfigError

KEYS: Final = ("cluster", "ranks", "epoch")
# Where the cluster before had other nodes in the end than it was created with.
_NODES: Final = "nodes"
# Of the id of the cluster before: that salts the checksums of all that its nodes have stored (Identity.salt), and the
# nodes of the new one go on with it.
_KEPT: Final = 8
_BOUND: Final = b"dsreg recovered cluster"
_BOUND_NODES: Final = b"dsreg recovered cluster of nodes"
_NEW, _PART = ".new", ".part"

_SECTION = """
[recovered]
# Written by `dsreg recover`, and the same on all hosts: the cluster that was before, the nodes whose directories were
# left of it, and the epoch from which on this cluster goes on.
cluster = "{cluster}"
ranks = [{ranks}]
epoch = {epoch}
"""
_SECTION_NODES = """# The nodes that this cluster was created with.
nodes = [{nodes}]
"""


@dataclass(frozen=True, slots=True)
class Recovered:
    """`cluster`: the id of the one before, 16 bytes. `ranks`: of the nodes whose directories were left. Each learns
    from those in front of it: the last one has the highest copies of all. `epoch`: above all that was promised before.
    `nodes`: the members of configuration 1 of the new cluster, ascending; () for those that the rest of the file says.
    """

    cluster: bytes
    ranks: tuple[int, ...]
    epoch: int
    nodes: tuple[int, ...] = ()

    def sources(self, rank: int) -> tuple[int, ...]:
        """From whom a node learns what was before: all of these have to have told. () for the first, which knows."""
        return self.ranks[:self.ranks.index(rank)] if rank in self.ranks else self.ranks

    def bound(self, system_key: bytes) -> bytes:
        """The key of the nodes, 64 bytes, by that in the file."""
        content = b"".join((_BOUND, self.cluster, bytes(self.ranks), self.epoch.to_bytes(8)))
        if self.nodes:
            counted = bytes([len(self.nodes), *self.nodes, *self.ranks])
            content = b"".join((_BOUND_NODES, self.cluster, self.epoch.to_bytes(8), counted))
        return hmac.digest(system_key, content, hashlib.sha512)

    def cluster_id(self, bound: bytes) -> bytes:
        """Of the new cluster, 16 bytes."""
        return self.cluster[:_KEPT] + derive_cluster_id(bound)[_KEPT:]


def names_its_nodes(table: Any) -> bool:
    """Whether the section says with which nodes the cluster was created, so that the ranks may have gaps."""
    return isinstance(table, dict) and _NODES in table


def parse(table: Any, first: Sequence[int], fault: Callable[[str], None]) -> Recovered | None:
    """The section, of a cluster that was created with the nodes `first`, unless the section says with which. None with
    every `fault` noted if it is not as it was written."""
    if not isinstance(table, dict) or {*table, _NODES} != {*KEYS, _NODES}:
        fault(f"[recovered] must have the keys {', '.join(KEYS)}, as `dsreg recover` has written them: copy the file "
              "from another host")
        return None
    cluster, ranks, epoch, nodes = table["cluster"], table["ranks"], table["epoch"], table.get(_NODES)
    good = isinstance(cluster, str) and re.fullmatch(r"[0-9a-f]{32}", cluster) is not None
    good &= nodes is None or _are_ranks(nodes) and nodes == sorted(nodes)
    good = good and _are_ranks(ranks) and {*ranks} <= {*(first if nodes is None else nodes)}
    if not good or type(epoch) is not int or not 0 < epoch <= MAX_EPOCH:
        fault("[recovered] is not as `dsreg recover` has written it: copy the file from another host")
        return None
    return Recovered(bytes.fromhex(cluster), tuple(ranks), epoch, tuple(nodes or ()))


def _are_ranks(value: Any) -> bool:
    """Whether it is a list of different ranks, not an empty one."""
    if not isinstance(value, list) or not all(type(rank) is int and 1 <= rank <= MAX_RANK for rank in value):
        return False
    return 0 < len(value) == len({*value})


# --- the files ------------------------------------------------------------------------------------
def is_staged(path: Path) -> bool:
    """Whether the files of a new cluster are complete beside those of `path`, and are to be put in their place."""
    return _beside(path, _NEW).exists()


def stage(path: Path, recovered: Recovered, text: str | None = None) -> None:
    """Write the files of the new cluster beside those of `path`: new keys, and what `path` says, or `text` in its
    place, with `recovered` in it. Raises ConfigError, OSError."""
    if text is None:
        text = path.read_bytes().decode("utf-8-sig")  # as bytes: the ends of its lines stay what they are
    system, client = _key_files(path, text)
    new = rewritten(text, recovered)
    _put(_beside(client, _NEW), f"{secrets.token_hex(CLIENT_KEY_SIZE)}\n", client)
    _put(_beside(system, _NEW), f"{secrets.token_hex(SYSTEM_KEY_SIZE)}\n{RECOVERED_MARK.decode()}\n", system)
    _put(_beside(path, _NEW), new, path)  # last: what is staged is complete once it is there


def finish(path: Path) -> list[Path]:
    """Put what is staged in its place; where the files from before are kept."""
    text = _beside(path, _NEW).read_text(encoding="utf-8")
    kept = f".before-{tomllib.loads(text)['recovered']['cluster'][2 * _KEPT:]}"
    files = (*_key_files(path, text), path)
    for file in files:
        if not _beside(file, _NEW).exists():
            continue  # an attempt before this one has come so far
        try:
            os.link(file, _beside(file, kept))
        except FileExistsError:
            pass  # likewise
        sync_directory(file.parent)
        os.replace(_beside(file, _NEW), file)
        sync_directory(file.parent)
    return [_beside(file, kept) for file in files]


def rewritten(text: str, recovered: Recovered) -> str:
    """What `cluster.toml` says, comments and all, with this section, with no other id, and saying nowhere else with
    which size, and, if the section says that, with which nodes the cluster was created. Raises ConfigError."""
    before = tomllib.loads(text)
    dropped = ["id", "first_sectors"]
    section = _SECTION.format(
        cluster=recovered.cluster.hex(), ranks=", ".join(map(str, recovered.ranks)), epoch=recovered.epoch)
    values: dict[str, Any] = {
        "cluster": recovered.cluster.hex(), "ranks": list(recovered.ranks), "epoch": recovered.epoch}
    if recovered.nodes:
        dropped.append("first_nodes")
        section += _SECTION_NODES.format(nodes=", ".join(map(str, recovered.nodes)))
        values[_NODES] = list(recovered.nodes)
    new = re.sub(r"^\[recovered\][^\n]*\n(?:(?!\[)[^\n]*\n?)*", "", text, flags=re.MULTILINE)
    for key in dropped:
        new = re.sub(rf"^(?:{FIRST_COMMENT}[^\n]*\n)?[ \t]*{key}[ \t]*=[^\n]*\n", "", new, flags=re.MULTILINE)
    end = "\r\n" if "\r\n" in text else "\n"
    new = new.rstrip("\r\n") + end + section.replace("\n", end)
    cluster = {key: value for key, value in before["cluster"].items() if key not in dropped}
    wanted: Mapping[str, Any] = {**before, "cluster": cluster, "recovered": values}
    try:
        if tomllib.loads(new) == wanted:
            return new
    except tomllib.TOMLDecodeError:
        pass
    raise ConfigError(["the configuration is written in a way that this command cannot change; write it as "
                       "`dsreg init` does, one key a line, and run the command again"])


def _key_files(path: Path, text: str) -> tuple[Path, Path]:
    """Those of the nodes and of the clients: with the first of the new ones alone a node is of neither cluster."""
    cluster = tomllib.loads(text)["cluster"]
    return path.parent / cluster["system_key_file"], path.parent / cluster["client_key_file"]


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _put(path: Path, content: str, like: Path) -> None:
    put_file(path, content.encode("utf-8"), like, _beside(path, _PART))
