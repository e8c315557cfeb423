"""What `dsreg members` writes into `cluster.toml`."""

from __future__ import annotations

from pathlib import Path

import pytest

from dsreg.cli.member_file import by_hand, gone, with_new_nodes
from dsreg.config import create_cluster, load_config
from dsreg.config.edit import with_node
from dsreg.protocol.configuration import Configuration
from dsreg.register.quorum import mask

OLD = mask((1, 2, 3))
FIRST = Configuration(1, 256, OLD, 0, OLD)
ADDED = {4: "127.0.0.4:7001"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return create_cluster(tmp_path, 1 << 20, [f"127.0.0.{rank}:7001" for rank in (1, 2, 3)])


def test_new_nodes_are_written_and_how_many_there_were_first(path: Path) -> None:
    config = with_new_nodes(load_config(path), FIRST, ADDED)
    assert config.ranks == (1, 2, 3, 4) and config.first_ranks == (1, 2, 3)
    written = path.read_bytes()
    assert with_new_nodes(config, FIRST, ADDED).ranks == (1, 2, 3, 4) and path.read_bytes() == written


def test_how_many_there_were_is_written_also_where_somebody_has_added_the_node_by_hand(path: Path) -> None:
    path.write_text(with_node(path.read_text(), 4, ADDED[4]))
    assert load_config(path).first_ranks == (1, 2, 3, 4)
    config = with_new_nodes(load_config(path), FIRST, ADDED)
    assert config.ranks == (1, 2, 3, 4) and config.first_ranks == (1, 2, 3)


def test_the_address_of_a_node_that_has_left_is_used_anew(path: Path) -> None:
    """The file is of before it left."""
    later = Configuration(3, 256, mask((1, 3)), 0, OLD)
    assert gone(load_config(path), later) == [2]
    config = with_new_nodes(load_config(path), later, {4: "127.0.0.2:7001"})
    assert config.ranks == (1, 3, 4) and config.first_ranks == (1, 2, 3)


def test_what_is_to_be_written_by_hand(path: Path) -> None:
    said = by_hand(load_config(path), [2, 3])
    assert said == (f"take the [[node]] of rank 2, 3 out of {path} yourself, and write first_nodes = 3 into [cluster]")
    config = with_new_nodes(load_config(path), FIRST, ADDED)
    assert by_hand(config, [4]) == f"take the [[node]] of rank 4 out of {path} yourself"
