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
from dsreg.config.keys import RECOVERED_MARK, derive_cluster_id
from dsreg.constants import CLIENT_KEY_SIZE, MAX_EPOCH, MAX_RANK, SYSTEM_KEY_SIZE
from dsreg.errors import ConfigError

KEYS: Final = ("cluster", "ranks", "epoch")
# Of the id of the cluster before: that salts the checksums of all that its nodes have stored (Identity.salt), and the
# nodes of the new one go on with it.
_KEPT: Final = 8
_BOUND: Final = b"dsreg recovered cluster"
_NEW, _PART = ".new", ".part"

_SECTION = """
[recovered]
# Written by `dsreg recover`, and the same on all hosts: the cluster that was before, the nodes whose directories were
# left of it, and the epoch from which on this cluster goes on.
cluster = "{cluster}"
ranks = [{ranks}]
epoch = {epoch}
"""


@dataclass(frozen=True, slots=True)
class Recovered:
    """`cluster`: the id of the one before, 16 bytes. `ranks`: of the nodes whose directories were left. Each learns
    from those in front of it: the last one has the highest copies of all. `epoch`: above all that was promised before.
    """

    cluster: bytes
    ranks: tuple[int, ...]
    epoch: int

    def sources(self, rank: int) -> tuple[int, ...]:
        """From whom a node learns what was before: all of these have to have told. () for the first, which knows."""
        return self.ranks[:self.ranks.index(rank)] if rank in self.ranks else self.ranks

    def bound(self, system_key: bytes) -> bytes:
        """The key of the nodes, 64 bytes, by that in the file."""
        content = b"".join((_BOUND, self.cluster, bytes(self.ranks), self.epoch.to_bytes(8)))
        return hmac.digest(system_key, content, hashlib.sha512)

    def cluster_id(self, bound: bytes) -> bytes:
        """Of the new cluster, 16 bytes."""
        return self.cluster[:_KEPT] + derive_cluster_id(bound)[_KEPT:]


def parse(table: Any, nodes: Sequence[int], fault: Callable[[str], None]) -> Recovered | None:
    """The section, of a cluster of these nodes. None with every `fault` noted if it is not as it was written."""
    if not isinstance(table, dict) or set(table) != set(KEYS):
        fault(f"[recovered] must have the keys {', '.join(KEYS)}, as `dsreg recover` has written them: copy the file "
              "from another host")
        return None
    cluster, ranks, epoch = table["cluster"], table["ranks"], table["epoch"]
    good = isinstance(cluster, str) and re.fullmatch(r"[0-9a-f]{32}", cluster) is not None
    good &= isinstance(ranks, list) and 0 < len(ranks) <= MAX_RANK and len({*map(str, ranks)}) == len(ranks)
    good = good and all(type(rank) is int and rank in nodes for rank in ranks)
    if not good or type(epoch) is not int or not 0 < epoch <= MAX_EPOCH:
        fault("[recovered] is not as `dsreg recover` has written it: copy the file from another host")
        return None
    return Recovered(bytes.fromhex(cluster), tuple(ranks), epoch)


# --- the files ------------------------------------------------------------------------------------
def is_staged(path: Path) -> bool:
    """Whether the files of a new cluster are complete beside those of `path`, and are to be put in their place."""
    return _beside(path, _NEW).exists()


def stage(path: Path, recovered: Recovered) -> None:
    """Write the files of the new cluster beside those of `path`: new keys, and what `path` says with `recovered` in it.
    Raises ConfigError, OSError."""
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
    """What `cluster.toml` says, comments and all, with this section, and with no other id. Raises ConfigError."""
    before = tomllib.loads(text)
    new = re.sub(r"^\[recovered\][^\n]*\n(?:(?!\[)[^\n]*\n?)*", "", text, flags=re.MULTILINE)
    new = re.sub(r"^[ \t]*id[ \t]*=[^\n]*\n", "", new, flags=re.MULTILINE)
    section = _SECTION.format(
        cluster=recovered.cluster.hex(), ranks=", ".join(map(str, recovered.ranks)), epoch=recovered.epoch)
    end = "\r\n" if "\r\n" in text else "\n"
    new = new.rstrip("\r\n") + end + section.replace("\n", end)
    wanted: Mapping[str, Any] = {
        **before, "cluster": {key: value for key, value in before["cluster"].items() if key != "id"},
        "recovered": {"cluster": recovered.cluster.hex(), "ranks": list(recovered.ranks), "epoch": recovered.epoch},
    }
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
