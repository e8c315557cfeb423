"""What `dsreg members` does to `cluster.toml`, and what it says of new nodes."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from dsreg.config import ClusterConfig, NodeAddress, load_config
from dsreg.config.edit import replace_file, with_first_nodes, with_node, without_node
from dsreg.errors import ConfigError
from dsreg.protocol.configuration import Configuration
from dsreg.register.quorum import bit, mask


def with_new_nodes(config: ClusterConfig, current: Configuration, nodes: Mapping[int, str]) -> ClusterConfig:
    """Write them, rank -> address, into the file, and how many there were first; what it says then. Raises
    ConfigError."""
    missing = {rank: address for rank, address in nodes.items() if rank not in config.ranks}
    # Somebody may have written them in by hand: then the list is no more what the cluster was created with.
    is_told = current.number > 1 or mask(config.first_ranks) == current.ranks
    if not missing and is_told:
        return config

    def edit(text: str) -> str:
        text = with_first_nodes(text, _first_nodes(config, current))
        for rank, address in sorted(missing.items()):
            text = with_node(text, rank, address)
        return text

    return _edited(config, edit)


def without_gone(config: ClusterConfig, current: Configuration) -> list[int]:
    """Take those out of the file that were members and have left; their ranks. Raises ConfigError."""
    return _without(config, current, [rank for rank in config.ranks if current.used & ~current.members & bit(rank)])


def without_strangers(config: ClusterConfig, current: Configuration, ranks: Collection[int]) -> list[NodeAddress]:
    """Take those of the ranks out of the file that it lists and that never were members. Raises ConfigError."""
    strangers = [node for node in config.nodes if node.rank in ranks and not current.used & bit(node.rank)]
    _without(config, current, [node.rank for node in strangers])
    return strangers


def _without(config: ClusterConfig, current: Configuration, gone: list[int]) -> list[int]:
    if not gone:
        return []

    def edit(text: str) -> str:
        text = with_first_nodes(text, _first_nodes(config, current))
        for rank in gone:
            text = without_node(text, rank)
        return text

    _edited(config, edit)
    return gone


def _first_nodes(config: ClusterConfig, current: Configuration) -> int:
    """How many the cluster was created with: a file that does not say was written then."""
    if current.number == 1:
        return current.ranks.bit_count()
    return len(config.first_ranks)


def _edited(config: ClusterConfig, edit: Callable[[str], str]) -> ClusterConfig:
    try:
        text = config.path.read_bytes().decode("utf-8")
        edited = edit(text)
    except (OSError, ValueError) as error:
        raise ConfigError([f"{config.path}: {error}"]) from None
    replace_file(config.path, edited)
    return load_config(config.path, need_system_key=False)


def how_to_start(config: ClusterConfig, nodes: Sequence[NodeAddress]) -> str:
    """What is to be done for these new ones."""
    path = quoted(config.path)
    lines = [f"{config.path}: the new nodes are in the file. Copy it and the keys that it names, with their modes "
             "(scp -p), to their machines, and start each with an empty directory:"]
    lines += [f"  on {node.host}: dsreg node --config {path} --rank {node.rank} --storage DIR --join" for node in nodes]
    return "\n".join(lines)


def quoted(path: Path) -> str:
    return shlex.quote(str(path))
