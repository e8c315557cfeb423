"""One address in `cluster.toml` is changed, and nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dsreg.config import create_cluster, load_config
from dsreg.config.edit import replace_file, with_address
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
