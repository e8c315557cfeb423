"""Which nodes a new cluster has, by what a directory that is left knows: docs/recover.md."""

from __future__ import annotations

from pathlib import Path

import pytest

from dsreg.cli.last_known import LastKnown, NewCluster, edited, new_cluster, recovered_from, what_is_known
from dsreg.config import ClusterConfig, create_cluster, load_config
from dsreg.config.edit import with_first_nodes
from dsreg.config.recovered import finish, stage
from dsreg.errors import ConfigError
from dsreg.protocol.address import Place
from dsreg.protocol.configuration import Configuration
from dsreg.register.quorum import mask

SECTORS = 1 << 18


def members(*ranks: int) -> int:
    return mask(ranks)


def joint(number: int, earlier: int, later: int) -> Configuration:
    return Configuration(number, SECTORS, earlier, later, earlier | later)


def alone(number: int, ranks: int, used: int = 0) -> Configuration:
    return Configuration(number, SECTORS, ranks, 0, ranks | used)


def known(rank: int, latest: Configuration, voted: Configuration | None = None, sectors: int = SECTORS) -> LastKnown:
    return LastKnown(rank, latest, voted, sectors, {4: Place("10.0.0.4", 7001)})


@pytest.fixture
def config(tmp_path: Path) -> ClusterConfig:
    path = create_cluster(tmp_path, SECTORS * 4096, [f"10.0.0.{rank}:7001" for rank in (1, 2, 3)])
    return load_config(path)


A, B = members(1, 2, 3), members(1, 2, 3, 4, 5)


@pytest.mark.parametrize(("latest", "left", "expected"), [
    (alone(1, A), (3,), A), (alone(3, members(1, 4, 5), A), (4,), members(1, 4, 5)),
    # Joint: the later set, if all are in it.
    (joint(2, A, B), (3,), B), (joint(2, A, B), (1, 2), B), (joint(2, A, B), (3, 4, 5), B),
    (joint(2, B, A), (1,), A), (joint(2, B, A), (4,), B), (joint(2, B, A), (3, 4), B),
    (joint(2, A, members(1)), (1,), members(1)), (joint(2, A, members(4, 5, 6)), (1,), A),
    # At most so many as meet every majority of it.
    (joint(2, members(1, 2, 3, 4, 5, 6, 7), members(1, 2, 3, 4)), (1, 2, 3), members(1, 2, 3, 4, 5, 6, 7)),
])
def test_which_nodes_the_new_cluster_has(
    config: ClusterConfig, latest: Configuration, left: tuple[int, ...], expected: int
) -> None:
    assert new_cluster(known(left[0], latest), config, left) == NewCluster(expected, SECTORS)


@pytest.mark.parametrize(("latest", "left", "said"), [
    (alone(1, A), (1, 3), "nodes 1, 3 are a majority: nothing is lost"),
    (joint(2, A, B), (1, 2, 3), "a majority: nothing is lost"),
    (alone(5, members(1, 4, 5), A), (4, 2), "rank 2: it has left the cluster, and lacks what was written since: "
     "configuration 5, the latest that node 4 knows, has nodes 1 4 5"),
    (alone(3, members(1, 2), A), (1, 7), "rank 7: not in "),
    (alone(1, members(1, 2)), (1, 3), "it has never become a member"),
    (joint(2, A, members(3, 4, 5)), (1, 4), "one of them alone, at most 2 of the first or 2 of the second"),
    (joint(2, members(7), members(1, 2, 3, 4)), (1, 2, 3), "from 7 to 1 2 3 4"),
])
def test_what_makes_no_new_cluster(
    config: ClusterConfig, latest: Configuration, left: tuple[int, ...], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        new_cluster(known(left[0], latest), config, left)


def test_the_size_is_that_of_the_latest_configuration(config: ClusterConfig) -> None:
    larger = alone(2, A)._replace(sectors=2 * SECTORS)
    assert new_cluster(known(1, larger, sectors=2 * SECTORS), config, (1,)) == NewCluster(A, 2 * SECTORS)
    text = edited(config, known(1, larger), NewCluster(A, 2 * SECTORS))
    assert 'size = "2GiB"' in text and 'size = "1GiB"' not in text


def text_for(config: ClusterConfig, latest: Configuration, left: tuple[int, ...]) -> str:
    of = known(left[0], latest)
    new = new_cluster(of, config, left)
    stage(config.path, recovered_from(config, new, left, 7), edited(config, of, new))
    finish(config.path)
    return config.path.read_text()


def test_the_file_lists_the_nodes_of_the_new_cluster(config: ClusterConfig) -> None:
    config.path.write_text(with_first_nodes(config.path.read_text(), 3))
    config = load_config(config.path)
    text = text_for(config, alone(5, members(1, 4), A), (1,))
    new = load_config(config.path)
    assert new.ranks == new.first_ranks == (1, 4) and new.node(4).address == "10.0.0.4:7001"
    assert new.recovered is not None and new.recovered.nodes == (1, 4) and "first_nodes" not in text
    # Once more, before anything has changed.
    text = text_for(new, alone(1, members(1, 4)), (4,))
    again = load_config(config.path)
    assert again.first_ranks == (1, 4) and text.count("[recovered]") == 1 and again.cluster_id != new.cluster_id


def test_the_section_is_as_ever_where_the_file_says_the_same(config: ClusterConfig) -> None:
    text = text_for(config, alone(1, A), (3,))
    assert "nodes = " not in text and load_config(config.path).first_ranks == (1, 2, 3)


def test_an_address_that_nobody_knows_is_asked_for(config: ClusterConfig) -> None:
    with pytest.raises(ConfigError, match="does not list node 5, which the new cluster has"):
        text_for(config, alone(3, B), (1,))
    assert load_config(config.path) == config


def test_what_is_said(config: ClusterConfig) -> None:
    def said(latest: Configuration, left: tuple[int, ...], voted: Configuration | None = None) -> str:
        of = known(left[0], latest, voted)
        return "\n".join(what_is_known(of, new_cluster(of, config, left), left))

    assert said(alone(1, A), (3,)) == ""
    assert "voted for configuration 2, nodes 1 2 3 together with 1 2 3 4 5, and does not know" in said(
        alone(1, A), (3,), joint(2, A, B))
    assert "has the nodes 1 2 3 4 5, to which they were being changed." in said(joint(2, A, B), (3,))
    assert "has the nodes 1 2 3 4 5, from which they were being changed, as node 4 is none of the later ones." in said(
        joint(2, B, A), (3, 4))
    seven, four = members(1, 2, 3, 4, 5, 6, 7), members(1, 2, 3, 4)
    assert "changed, as so many of the later ones are left." in said(joint(2, seven, four), (1, 2, 3))
