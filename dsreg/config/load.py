"""The configuration: `cluster.toml` and its key files, read and checked as a whole before anything starts.

`find_config` says which file, `load_config` turns it into one frozen `ClusterConfig` or raises a
`ConfigError` with every fault, one line each, each with what to do about it. `NodeConfig` is what one
node process needs on top: its rank, its directory, the size of its journal.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dsreg.config import recovered as recovered_section
from dsreg.config.address import canonical_host, is_local_only
from dsreg.config.keys import KeyFile, KeyUnavailable, KeyWatch, derive_cluster_id, fingerprint, read_keys
from dsreg.config.metrics import BASE_PORT, metrics_host, token_file
from dsreg.config.nodes import NodeAddress, check_keys, first_nodes_of, nodes_of
from dsreg.config.recovered import Recovered
from dsreg.config.scrubbing import scrub_days_of
from dsreg.config.sizes import first_sectors_of, format_size, parse_size, sectors_of
from dsreg.config.slow import slow_ms_of, slow_s
from dsreg.constants import (
    CLIENT_KEY_SIZE,
    DEFAULT_JOURNAL_BYTES,
    DEFAULT_SCRUB_DAYS,
    MAX_JOURNAL_BYTES,
    MIN_JOURNAL_BYTES,
    SECTOR_SIZE,
    SYSTEM_KEY_SIZE,
)
from dsreg.errors import ConfigError

UNKNOWN_CLUSTER = bytes(16)  # the cluster id of a client host without the system key
SYSTEM_CONFIG = Path("/etc/dsreg/cluster.toml")

_SECTIONS = ("cluster", "node", "recovered")
_CLUSTER_KEYS = ("sectors", "size", "client_key_file", "system_key_file", "id", "require_sealed", "strict_start",
                 "heal_rate", "learn_addresses", "scrub_days", "first_nodes", "first_sectors", "metrics",
                 "metrics_token_file", "slow_ms")
_RECOVERED = "recovered"
_NO_KEY = KeyFile(b"")


@dataclass(frozen=True, slots=True)
class ClusterConfig:
    """A checked configuration.

    `sectors` is the size of the disk in sectors of 4096 bytes when the file was written; how large it is now the nodes
    tell. `client_key` is 32 bytes, `system_key` 64 bytes, or b"" on a client host that has none. `nodes` is ordered by
    rank: where to begin to look for them.
    `cluster_id` is 16 bytes, zeros where it is not known. `path` is the file that this was read from.
    `require_sealed`: clients and nodes talk over sealed connections only. `strict_start`: more others have to say that
    an empty directory is new (docs/lives.md). `heal_rate`: bytes a second that a node fetches at most of what it lacks
    (docs/heal.md); 0: as many as there are. `learn_addresses`: this host connects to where the nodes say that they are
    (docs/addresses.md); else only to what the file says. `recovered`: the cluster was made of what another one has left
    (docs/recover.md). `scrub_days`: in so many each node verifies its whole copy (docs/scrub.md); 0: only if it is
    asked to.
    `first_nodes`: the cluster was created with the nodes 1 to this, and others were added or removed since; 0: with
    those that `recovered` names, or else with those of `nodes`, which have the ranks 1..N without gaps.
    `first_sectors`: the cluster was created with a disk of that size, which has grown since; 0: with one of `sectors`.
    `metrics`: on which address of its host each node serves metrics, each on a port of its own; "": on none.
    `metrics_token_file`: holds what has to be shown for them; None: nothing has.
    `slow_ms`: requests that take longer are logged, by nodes and edges (docs/logs.md); 0: none is.
    `other_client_key`, `other_system_key`: accepted beside them while a key is being changed (docs/keys.md); b"": none
    is. `key_files`: where the keys were read from, that of the clients first; of a client host that has no other that
    alone.
    """

    sectors: int
    client_key: bytes = field(repr=False)
    system_key: bytes = field(repr=False)
    nodes: tuple[NodeAddress, ...]
    cluster_id: bytes
    path: Path
    require_sealed: bool = False
    strict_start: bool = False
    heal_rate: int = 0
    learn_addresses: bool = True
    recovered: Recovered | None = None
    scrub_days: float = DEFAULT_SCRUB_DAYS
    first_nodes: int = 0
    first_sectors: int = 0
    metrics: str = ""
    metrics_token_file: Path | None = None
    slow_ms: int = 0
    other_client_key: bytes = field(default=b"", repr=False)
    other_system_key: bytes = field(default=b"", repr=False)
    key_files: tuple[Path, ...] = ()

    @property
    def key_names(self) -> dict[str, list[str]]:
        """By fingerprint, what is used and then what is accepted besides: of "client", and of "system" if it is known.
        """
        pairs = {"client": (self.client_key, self.other_client_key), "system": (self.system_key, self.other_system_key)}
        return {kind: [fingerprint(key) for key in pair if key] for kind, pair in pairs.items() if pair[0]}

    def reread(self) -> ClusterConfig:
        """With the keys that its files hold now. Raises ValueError, with the path, if one is not as it must be."""
        client = read_keys(self.key_files[0], CLIENT_KEY_SIZE)
        system, other = self.system_key, self.other_system_key
        if system:
            file = read_keys(self.key_files[1], SYSTEM_KEY_SIZE, recovered=self.recovered is not None)
            system, other = _system_keys(file, self.recovered)
        return replace(self, client_key=client.key, other_client_key=client.other, system_key=system,
                       other_system_key=other)

    def watch(self) -> KeyWatch:
        """Of the files that `reread` reads."""
        return KeyWatch(self.key_files if self.system_key else self.key_files[:1])

    @property
    def ranks(self) -> tuple[int, ...]:
        """Of the nodes that the file lists."""
        return tuple(node.rank for node in self.nodes)

    @property
    def first_ranks(self) -> tuple[int, ...]:
        """Of configuration 1: docs/configurations.md."""
        if self.recovered is not None and self.recovered.nodes:
            return self.recovered.nodes
        return tuple(range(1, self.first_nodes + 1)) or self.ranks

    @property
    def created_sectors(self) -> int:
        """The size of the disk in configuration 1."""
        return self.first_sectors or self.sectors

    def metrics_at(self, rank: int) -> tuple[str, int] | None:
        """Where that node serves metrics, (host, port); None: nowhere."""
        return (self.metrics, BASE_PORT + rank) if self.metrics else None

    def node(self, rank: int) -> NodeAddress:
        """Raises ConfigError for a rank that the file does not list."""
        for node in self.nodes:
            if node.rank == rank:
                return node
        raise ConfigError([self.no_such(rank)])

    def no_such(self, rank: int) -> str:
        """What is wrong with a rank that the file does not list."""
        has_gaps = self.ranks != tuple(range(1, len(self.nodes) + 1))
        which = ", ".join(map(str, self.ranks)) if has_gaps else f"1..{len(self.nodes)}"
        return f"rank {rank}: not in {self.path}; give one of {which}"


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """What one node process runs with. `journal_bytes` is the size of one of the two journal segments, `listen` where
    it listens if not where the configuration says. `new`: an empty directory is new, though others may not be there to
    say so. `rejoin`: where it is not new, it takes the next life of its rank. `heal_rate`, `scrub_days`: in place of
    those of the cluster, if not None. `join`: an empty directory waits to be made a member. `metrics`: where it serves
    them, (host, port); None: nowhere. `metrics_token`: what has to be shown for them; b"": nothing has.
    `slow_ms`: in place of that of the cluster, if not None.

    Raises ConfigError for a rank that the cluster does not have, a missing system key or a journal
    outside MIN_JOURNAL_BYTES..MAX_JOURNAL_BYTES or not a multiple of 4096.
    """

    cluster: ClusterConfig
    rank: int
    storage: Path
    journal_bytes: int = DEFAULT_JOURNAL_BYTES
    listen: tuple[str, int] | None = None
    new: bool = False
    rejoin: bool = False
    heal_rate: int | None = None
    scrub_days: float | None = None
    join: bool = False
    metrics: tuple[str, int] | None = None
    metrics_token: bytes = field(default=b"", repr=False)
    slow_ms: int | None = None

    def __post_init__(self) -> None:
        faults = []
        if self.rank not in self.cluster.ranks:
            faults.append(self.cluster.no_such(self.rank))
        if len(self.cluster.system_key) != SYSTEM_KEY_SIZE:
            faults.append(f"{self.cluster.path}: a node needs the system key; set system_key_file")
        if not MIN_JOURNAL_BYTES <= self.journal_bytes <= MAX_JOURNAL_BYTES or self.journal_bytes % SECTOR_SIZE:
            faults.append(
                f"journal of {self.journal_bytes} bytes: give a multiple of 4096 from "
                f"{format_size(MIN_JOURNAL_BYTES)} to {format_size(MAX_JOURNAL_BYTES)}"
            )
        if faults:
            raise ConfigError(faults)

    @property
    def slow_s(self) -> float:
        """Commands that take so long are logged; inf: none is."""
        return slow_s(self.cluster.slow_ms if self.slow_ms is None else self.slow_ms)

    @property
    def heal_bytes_per_s(self) -> int:
        return self.cluster.heal_rate if self.heal_rate is None else self.heal_rate

    @property
    def node(self) -> NodeAddress:
        return self.cluster.node(self.rank)

    @property
    def listen_at(self) -> tuple[str, int]:
        """(host, port) to bind."""
        return self.listen or self.node.listen or (self.node.host, self.node.port)

    @property
    def advertised(self) -> tuple[str, int] | None:
        """(host, port) that the node tells others to be at. None: this host's file has it as an address for this host
        alone, which is of no use to those on others."""
        is_useless = is_local_only(self.node.host) and self.is_for_others
        return None if is_useless else (self.node.host, self.node.port)

    @property
    def is_for_others(self) -> bool:
        """Whether other hosts have to reach this node: some node of the cluster is on another one."""
        own = canonical_host(self.node.host)
        return any(canonical_host(node.host) != own and not is_local_only(node.host) for node in self.cluster.nodes)


def _system_keys(file: KeyFile, recovered: Recovered | None) -> tuple[bytes, bytes]:
    """What the nodes use, and what they accept besides, b"" if that is nothing."""
    if recovered is None:
        return file.key, file.other
    return recovered.bound(file.key), recovered.bound(file.other) if file.other else b""


def find_config(explicit: Path | None) -> Path | None:
    """The configuration to use, or None: `explicit`, $DSREG_CONFIG, the user's, the system's, in this order.

    What was named (`explicit`, $DSREG_CONFIG) is returned even if it does not exist, so that a typing error
    is reported and does not silently lead to another cluster.
    """
    if explicit is not None:
        return explicit
    if named := os.environ.get("DSREG_CONFIG"):
        return Path(named)
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    for candidate in (Path(home, "dsreg", "cluster.toml"), SYSTEM_CONFIG):
        if candidate.exists():
            return candidate
    return None


def load_config(path: Path, need_system_key: bool = True) -> ClusterConfig:
    """Read and check `path` and the key files it names.

    With `need_system_key` False (a client host) the system key may be left out or not be readable:
    `system_key` is then b"" and `cluster_id` zeros unless the file gives it. Raises ConfigError with all faults.
    """
    path = Path(path)
    return _Loader(path, _parse(path)).load(need_system_key)


def _parse(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))  # some editors begin a file with a BOM
    except FileNotFoundError:
        fault = f"{path}: no such file; create a cluster with `dsreg init`, or name another with --config"
    except OSError as error:
        fault = f"{path}: cannot be read: {error.strerror}"
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        fault = f"{path}: not valid TOML: {error}"
    raise ConfigError([fault])


class _Loader:
    """One pass over a parsed file that notes every fault and goes on."""

    def __init__(self, path: Path, document: dict[str, Any]) -> None:
        self.path = path
        self.document = document
        self.faults: list[str] = []

    def load(self, need_system_key: bool) -> ClusterConfig:
        check_keys(self.document, _SECTIONS, "the file", self._fault)
        cluster = self.document.get("cluster")
        if not isinstance(cluster, dict):
            self._fault("no [cluster] section; add one with sectors or size, client_key_file and system_key_file")
            cluster = {}
        else:
            check_keys(cluster, _CLUSTER_KEYS, "[cluster]", self._fault)
        sectors = sectors_of(cluster, self._fault)
        first_sectors = first_sectors_of(cluster, sectors, self._fault)
        client = self._key(cluster, "client_key_file", CLIENT_KEY_SIZE, needed=True)
        system = self._key(cluster, "system_key_file", SYSTEM_KEY_SIZE, needed=need_system_key,
                           recovered=_RECOVERED in self.document)
        configured_id = self._configured_id(cluster)
        require_sealed = self._flag(cluster, "require_sealed")
        strict_start = self._flag(cluster, "strict_start")
        heal_rate = self._heal_rate(cluster)
        learn_addresses = self._flag(cluster, "learn_addresses", default=True)
        scrub_days = scrub_days_of(cluster, self._fault)
        metrics = metrics_host(cluster, self._fault)
        metrics_token_file = token_file(cluster, self.path.parent, self._fault)
        slow_ms = slow_ms_of(cluster, self._fault)
        first_nodes = first_nodes_of(cluster, self._fault)
        has_gaps = bool(first_nodes) or recovered_section.names_its_nodes(self.document.get(_RECOVERED))
        nodes = nodes_of(self.document.get("node"), self.path.parent, has_gaps, self._fault)
        recovered = self._recovered(cluster, [*range(1, first_nodes + 1)] or [node.rank for node in nodes])
        client = client or _NO_KEY
        system_key, other_system_key = _system_keys(system, recovered) if system is not None else (b"", b"")
        cluster_id = self._cluster_id(configured_id, system, recovered, system_key)
        if self.faults:
            raise ConfigError(self.faults)
        return ClusterConfig(
            sectors, client.key, system_key, nodes, cluster_id, self.path, require_sealed,
            strict_start, heal_rate, learn_addresses, recovered, scrub_days, first_nodes, first_sectors, metrics,
            metrics_token_file, slow_ms, client.other, other_system_key, self._key_files(cluster),
        )

    def _key_files(self, cluster: Mapping[str, Any]) -> tuple[Path, ...]:
        names = [name for name in ("client_key_file", "system_key_file") if name in cluster]
        return tuple(self.path.parent / cluster[name] for name in names)

    def _recovered(self, cluster: Mapping[str, Any], first: list[int]) -> Recovered | None:
        if _RECOVERED not in self.document:
            return None
        if "id" in cluster:
            self._fault("[cluster] id: leave it out; that of a cluster that was recovered follows from its keys")
        return recovered_section.parse(self.document[_RECOVERED], first, self._fault)

    def _flag(self, cluster: dict[str, Any], key: str, *, default: bool = False) -> bool:
        value = cluster.get(key, default)
        if not isinstance(value, bool):
            self._fault(f"[cluster] {key} must be true or false, without quotes")
        return value is True

    def _heal_rate(self, cluster: dict[str, Any]) -> int:
        """Bytes a second, 0 if there is no limit."""
        text = cluster.get("heal_rate", "")
        if not isinstance(text, str):
            self._fault('[cluster] heal_rate must be text like "50MiB": so much a second')
            return 0
        try:
            return parse_size(text) if text else 0
        except ValueError as error:
            self._fault(f"[cluster] heal_rate: {error}")
            return 0

    def _fault(self, text: str) -> None:
        self.faults.append(f"{self.path}: {text}")

    def _key(
        self, cluster: Mapping[str, Any], name: str, size: int, *, needed: bool, recovered: bool = False
    ) -> KeyFile | None:
        """What the file holds that `name` names, or None (with a fault noted if it was `needed` or is unusable).
        `recovered`: see read_keys."""
        if name not in cluster:
            if needed:
                self._fault(f"[cluster] {name} is missing; name the file that holds the {size}-byte key in hex")
            return None
        file = cluster[name]
        if not isinstance(file, str) or not file:
            self._fault(f"[cluster] {name} must be the name of a file, in quotes")
            return None
        try:
            return read_keys(self.path.parent / file, size, recovered=recovered)
        except KeyUnavailable as error:
            if needed:
                self._fault(f"[cluster] {name}: {error}")
        except ValueError as error:
            self._fault(f"[cluster] {name}: {error}")
        return None

    def _configured_id(self, cluster: Mapping[str, Any]) -> bytes:
        """b"" if the file gives none."""
        text = cluster.get("id", "")
        if "id" in cluster and not (
            isinstance(text, str) and re.fullmatch(r"[0-9A-Fa-f]{32}", text) and int(text, 16)
        ):
            self._fault("[cluster] id must be 32 hex digits in quotes, not all zero; or leave it out")
            return UNKNOWN_CLUSTER
        return bytes.fromhex(text)

    def _cluster_id(
        self, configured: bytes, system: KeyFile | None, recovered: Recovered | None, system_key: bytes
    ) -> bytes:
        """`system_key`: that of `system`, as the nodes use it."""
        pinned = system.cluster if system is not None else b""  # when its key was first changed: docs/keys.md
        if pinned and configured not in (b"", pinned):
            self._fault("[cluster] id is not that of the system key; copy configuration and keys from another host")
        if pinned or configured:
            return pinned or configured
        if system is None:
            return UNKNOWN_CLUSTER
        return derive_cluster_id(system_key) if recovered is None else recovered.cluster_id(system_key)
