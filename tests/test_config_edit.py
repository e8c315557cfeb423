"""One thing in `cluster.toml` is changed, and nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dsreg.config import create_cluster, load_config
from dsreg.config.edit import (
    replace_file,
    with_address,
    with_first_nodes,
    with_first_sectors,
    with_node,
    with_size,
    without_node,
)
from dsreg.errors import ConfigError

ROOT = Path(__file__).resolve().parent.parent
TEXT = """\
# Ours.
[cluster]   # a comment with [[node]] in it
size = "1GiB"
client_key_file = "client.key"

[[node]] # the first
rank = 1
address = "10.0.0.1:7001"

[[ node ]]
  address   =  '10.0.0.2:7001'   # rack 7
  rank = 2  # not 3
listen = "0.0.0.0:7001"

[[node]]
rank = 3
address = "[::1]:7001"
"""


def test_the_line_of_the_rank_is_changed_and_all_else_stays() -> None:
    assert with_address(TEXT, 2, "new:1") == TEXT.replace("'10.0.0.2:7001'", '"new:1"')
    assert with_address(TEXT, 1, "new:1") == TEXT.replace('"10.0.0.1:7001"', '"new:1"')
    assert with_address(TEXT, 3, "[::2]:9") == TEXT.replace('"[::1]:7001"', '"[::2]:9"')
    windows = "\ufeff" + TEXT.replace("\n", "\r\n")
    assert with_address(windows, 2, "new:1") == windows.replace("'10.0.0.2:7001'", '"new:1"')


def test_the_example_can_be_changed() -> None:
    text = (ROOT / "deploy" / "cluster.toml").read_text()
    assert with_address(text, 3, "new:1") == text.replace('"10.0.0.3:7001"', '"new:1"')


@pytest.mark.parametrize("unusual", [
    'node = [{rank = 1, address = "a:1"}, {rank = 2, address = "b:1"}]',
    '[[node]]\nrank = 2\naddress = """b:1"""',
    '[[node]]\nrank = 0x2\naddress = "b:1"',
    '[[node]]\nrank = 2\n"address" = "b:1"',
])
def test_what_is_written_in_an_unusual_way_is_left_to_a_person(unusual: str) -> None:
    with pytest.raises(ValueError, match="write 'new:1' there yourself"):
        with_address(unusual, 2, "new:1")


def test_nodes_are_added_and_the_first_ones_counted() -> None:
    counted = with_first_nodes(TEXT, 3)
    head, _, rest = TEXT.partition("in it\n")
    assert counted.startswith(f"{head}in it\n# The cluster was created with the nodes 1 to 3")
    assert counted.endswith(f"\nfirst_nodes = 3\n{rest}") and with_first_nodes(counted, 5) == counted
    added = with_node(TEXT, 4, "[::2]:9")
    assert added == f'{TEXT}\n[[node]]\nrank = 4\naddress = "[::2]:9"\n'
    assert with_node(TEXT.rstrip("\n"), 4, "[::2]:9") == added
    windows = "\ufeff" + TEXT.replace("\n", "\r\n")
    assert with_node(windows, 4, "[::2]:9") == "\ufeff" + added.replace("\n", "\r\n")
    assert with_first_nodes(windows, 3) == "\ufeff" + counted.replace("\n", "\r\n")
    bare = "\ufeff" + TEXT.partition("# Ours.\n")[2]
    assert "first_nodes = 3" in with_first_nodes(bare, 3)


def test_a_node_is_taken_out_with_all_that_is_its_own() -> None:
    two = TEXT.index("[[ node ]]"), TEXT.index("[[node]]\nrank = 3")
    assert without_node(TEXT, 2) == TEXT[:two[0]] + TEXT[two[1]:]
    assert without_node(with_node(TEXT, 4, "d:1"), 4) == TEXT
    of_the_next = TEXT.replace("[[node]]\nrank = 3", "# The third.\n[[node]]\nrank = 3")
    assert without_node(of_the_next, 2) == of_the_next[:two[0]] + of_the_next[two[1]:]
    windows = TEXT.replace("\n", "\r\n")
    assert without_node(windows, 2) == without_node(TEXT, 2).replace("\n", "\r\n")


@pytest.mark.parametrize("unusual", [
    'cluster = {size = "1MiB"}\nnode = [{rank = 1, address = "a:1"}, {rank = 2, address = "b:1"}]',
    'cluster.size = "1MiB"\n[[node]]\nrank = 1\naddress = "a:1"\n[[node]]\nrank = 0x2\naddress = "b:1"',
])
def test_nodes_in_an_unusual_place_are_left_to_a_person(unusual: str) -> None:
    with pytest.raises(ValueError, match="take it out yourself"):
        without_node(unusual, 2)
    with pytest.raises(ValueError, match="write first_nodes = 2 into it yourself"):
        with_first_nodes(unusual, 2)
    if unusual.startswith("cluster ="):
        with pytest.raises(ValueError, match="add one of rank 3 with the address 'c:1' yourself"):
            with_node(unusual, 3, "c:1")


def test_the_file_is_replaced_as_a_whole_and_keeps_its_mode(tmp_path: Path) -> None:
    path = create_cluster(tmp_path / "c", 4096, ["a:1", "b:1", "c:1"])
    path.chmod(0o640)
    link = tmp_path / "link.toml"
    link.symlink_to(path)
    before = path.stat().st_ino
    replace_file(link, with_address(path.read_text(), 2, "new:1"))
    assert link.is_symlink() and path.stat().st_ino != before and path.stat().st_mode & 0o777 == 0o640
    assert load_config(path).nodes[1].address == "new:1"
    assert sorted(os.listdir(path.parent)) == ["client.key", "cluster.toml", "system.key"]


def test_a_file_that_cannot_be_written_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be written"):
        replace_file(tmp_path / "nothing" / "cluster.toml", TEXT)


def test_the_size_is_changed_and_nothing_else() -> None:
    text = "# of the disk\n[cluster]\nsectors = 4 # few\nclient_key_file = \"a\"\n[[node]]\nrank = 1\n"
    assert with_size(text, 1 << 18) == text.replace("sectors = 4 # few", 'size = "1GiB"')
    windows = with_size(text.replace("\n", "\r\n"), 3)
    assert windows == text.replace("sectors = 4 # few", 'size = "12KiB"').replace("\n", "\r\n")
    with pytest.raises(ValueError, match='write size = "4KiB" yourself'):
        with_size("cluster = { sectors = 4 }\n", 1)


def test_the_size_that_it_was_created_with_is_written_once() -> None:
    text = "[cluster] # it\nsize = \"1GiB\"\n\n[[node]]\nrank = 1\n"
    once = with_first_sectors(text, 262144)
    assert once.splitlines()[1:4] == [
        "# The cluster was created with a disk of so many sectors. How large it is now: dsreg status.",
        "first_sectors = 262144", 'size = "1GiB"',
    ]
    assert with_first_sectors(with_size(once, 1 << 19), 5) == with_size(once, 1 << 19)


def test_how_many_there_were_first_is_not_written_where_a_section_says_which() -> None:
    text = TEXT + "\n[recovered]\nnodes = [1, 4]\n"
    assert with_first_nodes(text, 3) == text
