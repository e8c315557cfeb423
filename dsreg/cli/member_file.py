"""What `dsreg members` and `dsreg resize` do to `cluster.toml`, and what is said of new nodes."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from dsreg.config import ClusterConfig, NodeAddress, edit, format_size, load_config
from dsreg.config.edit import replace_file, with_first_nodes, with_first_sectors, with_node, without_node
from dsreg.constants import SECTOR_SIZE
from dsreg.errors import ConfigError
from dsreg.protocol.configuration import Configuration
from dsreg.register.quorum import bit, mask


def with_new_nodes(config: ClusterConfig, current: Configuration, nodes: Mapping[int, str]) -> ClusterConfig:
    """Write them, rank -> address, into the file, and how many there were first; those that have left go, whose
    addresses may be used anew. What it says then. Raises ConfigError."""
    missing = {rank: address for rank, address in nodes.items() if rank not in config.ranks}
    # Somebody may have written them in by hand: then the list is no more what the cluster was created with.
    is_told = current.number > 1 or mask(config.first_ranks) == current.ranks
    if not missing and is_told:
        return config

    def change(text: str) -> str:
        text = with_first_nodes(text, _first_nodes(config, current))
        for rank in gone(config, current):
            text = without_node(text, rank)
        for rank, address in sorted(missing.items()):
            text = with_node(text, rank, address)
        return text

    return _edited(config, change)


def gone(config: ClusterConfig, current: Configuration) -> list[int]:
    """The ranks that the file lists of those that were members and have left."""
    return [rank for rank in config.ranks if current.used & ~current.members & bit(rank)]


def without_gone(config: ClusterConfig, current: Configuration) -> None:
    """Take those out of the file that were members and have left. Raises ConfigError."""
    _without(config, current, gone(config, current))


def by_hand(config: ClusterConfig, ranks: Collection[int]) -> str:
    """How a person does what `without_gone` could not."""
    nodes = ", ".join(map(str, ranks))
    first = "" if config.first_ranks != config.ranks or config.first_nodes else \
        f", and write first_nodes = {len(config.first_ranks)} into [cluster]"
    return f"take the [[node]] of rank {nodes} out of {config.path} yourself{first}"


def without_strangers(config: ClusterConfig, current: Configuration, ranks: Collection[int]) -> list[NodeAddress]:
    """Take those of the ranks out of the file that it lists and that never were members. Raises ConfigError."""
    strangers = [node for node in config.nodes if node.rank in ranks and not current.used & bit(node.rank)]
    _without(config, current, [node.rank for node in strangers])
    return strangers


def _without(config: ClusterConfig, current: Configuration, ranks: Sequence[int]) -> None:
    if not ranks:
        return

    def change(text: str) -> str:
        text = with_first_nodes(text, _first_nodes(config, current))
        for rank in ranks:
            text = without_node(text, rank)
        return text

    _edited(config, change)


def _first_nodes(config: ClusterConfig, current: Configuration) -> int:
    """How many the cluster was created with: a file that does not say was written then."""
    if current.number == 1:
        return current.ranks.bit_count()
    return len(config.first_ranks)


def sized(config: ClusterConfig, current: Configuration, sectors: int) -> str:
    """What the file says with a disk of so many sectors. `current`: in force before. Raises ConfigError."""
    first = _first_sectors(config, current)
    return _changed(config, lambda text: with_first_sectors(edit.with_size(text, sectors), first))


def _first_sectors(config: ClusterConfig, current: Configuration) -> int:
    return current.sectors if current.number == 1 else config.created_sectors


def size_by_hand(config: ClusterConfig, current: Configuration, sectors: int) -> str:
    """What a person is to do where the file cannot be written."""
    return (f'in {config.path} write size = "{format_size(sectors * SECTOR_SIZE)}" and first_sectors = '
            f"{_first_sectors(config, current)} into [cluster]")


def with_size(config: ClusterConfig, current: Configuration, sectors: int) -> None:
    """Write that. Raises ConfigError."""
    replace_file(config.path, sized(config, current, sectors))


def _changed(config: ClusterConfig, change: Callable[[str], str]) -> str:
    try:
        return change(config.path.read_bytes().decode("utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError([f"{config.path}: {error}"]) from None


def _edited(config: ClusterConfig, change: Callable[[str], str]) -> ClusterConfig:
    replace_file(config.path, _changed(config, change))
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
