"""The configuration of a cluster that was made of what another one has left: its section, its keys, its files."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dsreg.config import create_cluster, durable, load_config, recovered
from dsreg.config.recovered import Recovered, finish, is_staged, rewritten, stage
from dsreg.errors import ConfigError
from tests.test_config import CLUSTER, faults_of, write

OLD = bytes(range(16))
MADE = Recovered(OLD, (3,), 7)
NODES = ["127.0.0.1:7001", "127.0.0.1:7002", "127.0.0.1:7003"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return create_cluster(tmp_path, 1 << 20, NODES, strict_start=True)


def recover(path: Path, made: Recovered) -> list[Path]:
    """As `dsreg recover` does, whatever an attempt before has left."""
    if not is_staged(path):
        stage(path, made)
    return finish(path)


def test_the_new_cluster_has_nothing_of_the_old_one_but_its_salt(path: Path) -> None:
    old = load_config(path)
    recover(path, Recovered(old.cluster_id, (3,), 7))
    new = load_config(path)
    assert new.recovered == Recovered(old.cluster_id, (3,), 7)
    assert new.client_key != old.client_key and new.system_key != old.system_key
    assert new.cluster_id[:8] == old.cluster_id[:8] and new.cluster_id[8:] != old.cluster_id[8:]
    assert (new.nodes, new.sectors, new.strict_start) == (old.nodes, old.sectors, True)


def test_who_has_another_section_has_other_keys_and_nobody_can_do_without(path: Path) -> None:
    recover(path, MADE)
    text = path.read_text()
    of = load_config(path)
    for change in (("ranks = [3]", "ranks = [2]"), ("epoch = 7", "epoch = 8"), (OLD.hex(), OLD[::-1].hex())):
        path.write_text(text.replace(*change))
        other = load_config(path)
        assert other.system_key != of.system_key and other.cluster_id != of.cluster_id
        assert other.client_key == of.client_key
    path.write_text(text[:text.index("[recovered]")])
    [fault] = faults_of(path)
    assert "there is no section [recovered]; copy" in fault


def test_the_nodes_that_it_begins_with_are_part_of_the_key_and_may_have_gaps(path: Path) -> None:
    text = path.read_text().replace("[cluster]\n", "[cluster]\nfirst_nodes = 3\n").replace("rank = 2", "rank = 5")
    path.write_text(text)
    stage(path, Recovered(OLD, (5, 3), 7, (1, 3, 5)))
    finish(path)
    of = load_config(path)
    assert of.ranks == of.first_ranks == (1, 3, 5) and of.first_nodes == 0
    text = path.read_text()
    ids = {of.cluster_id}
    for nodes in ("[1, 3, 5, 7]", "[3, 5]", "[1, 2, 3, 5]"):
        path.write_text(text.replace("nodes = [1, 3, 5]", f"nodes = {nodes}"))
        ids.add(load_config(path).cluster_id)
    assert len(ids) == 4
    # Later on the file may list others, and those no more that were left.
    path.write_text(text.replace("rank = 5", "rank = 9"))
    assert load_config(path).cluster_id == of.cluster_id


def test_one_that_was_left_may_leave_the_file(path: Path) -> None:
    """It was removed from the cluster; how many nodes there were first is in the file then."""
    recover(path, MADE)
    before = load_config(path).cluster_id
    text = path.read_text().replace("[cluster]\n", "[cluster]\nfirst_nodes = 3\n")
    path.write_text(text.replace("rank = 3", "rank = 4"))
    assert load_config(path).cluster_id == before


@pytest.mark.parametrize("nodes", ["[]", "[2, 1, 3]", "[1, 1, 3]", "[0, 3]", "[3, 255]", "3", '["3"]', "[1, 2]"])
def test_nodes_that_were_never_written_are_refused(path: Path, nodes: str) -> None:
    """The last one lacks the node that was left."""
    recover(path, MADE)
    path.write_text(path.read_text() + f"nodes = {nodes}\n")
    assert any("[recovered] is not as `dsreg recover` has written it" in fault for fault in faults_of(path))


def test_a_key_of_the_old_cluster_is_refused(path: Path) -> None:
    recover(path, MADE)
    old = next(path.parent.glob("system.key.before-*"))
    old.replace(path.parent / "system.key")
    [fault] = faults_of(path)
    assert "is not of the cluster in the section [recovered]" in fault


def test_the_ends_of_lines_stay_what_they_are(path: Path) -> None:
    text = path.read_bytes().replace(b"\n", b"\r\n")
    path.write_bytes(text)
    recover(path, MADE)
    new = path.read_bytes()
    assert new.startswith(text.rstrip()) and new.count(b"\n") == new.count(b"\r\n") > text.count(b"\n")
    assert load_config(path).recovered == MADE
    recover(path, Recovered(OLD, (2,), 8))
    assert path.read_bytes().count(b"\n") == new.count(b"\n")


def test_a_client_needs_no_key_of_the_nodes(path: Path) -> None:
    recover(path, MADE)
    (path.parent / "system.key").unlink()
    config = load_config(path, need_system_key=False)
    assert config.system_key == b"" and config.recovered == MADE


def test_whom_a_node_learns_from() -> None:
    made = Recovered(OLD, (4, 5, 2), 1)
    assert [made.sources(rank) for rank in (4, 5, 2, 1, 3)] == [(), (4,), (4, 5), (4, 5, 2), (4, 5, 2)]


def mark(path: Path) -> None:
    with (path.parent / "system.key").open("a") as key:
        key.write("recovered\n")


# --- the file ---------------------------------------------------------------------------------------
def test_comments_stay_and_the_old_id_and_section_go() -> None:
    text = '# mine\n[cluster]\n  id = "00"\nsize = "1MiB" # large\n\n[[node]]\nrank = 1\nidle = 3\n'
    first = rewritten(text, MADE)
    assert first.startswith('# mine\n[cluster]\nsize = "1MiB" # large\n\n[[node]]\nrank = 1\nidle = 3\n\n[recovered]\n')
    again = Recovered(OLD[::-1], (1, 2), 9)
    second = rewritten(first, again)
    assert second.count("[recovered]") == 1 and "epoch = 9" in second and second.count("\n\n") == first.count("\n\n")
    between = text.replace("[[node]]", "[recovered]\n# a comment\ncluster = 1\n\n[[node]]")
    assert rewritten(between, again) == second, "wherever in the file it stands"


@pytest.mark.parametrize("text", [
    'cluster = { id = "00", size = "1MiB" }\n', 'cluster.id = "00"\n', '[cluster]\n"id" = "00"\n',
    '[cluster]\nx = """\nid = 4\n"""\n',
])
def test_what_cannot_be_changed_line_by_line_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="written in a way"):
        rewritten(text, MADE)


@pytest.mark.parametrize("section", [
    "", 'cluster = "00"\nranks = [1]\nepoch = 1', f'cluster = "{OLD.hex()}"\nranks = []\nepoch = 1',
    f'cluster = "{OLD.hex()}"\nranks = [1, 1]\nepoch = 1', f'cluster = "{OLD.hex()}"\nranks = [4]\nepoch = 1',
    f'cluster = "{OLD.hex()}"\nranks = ["1"]\nepoch = 1', f'cluster = "{OLD.hex()}"\nranks = [true]\nepoch = 1',
    f'cluster = "{OLD.hex()}"\nranks = [1]\nepoch = 0', f'cluster = "{OLD.hex()}"\nranks = [1]\nepoch = 16777216',
    f'cluster = "{OLD.hex()}"\nranks = [1]\nepoch = 1\nmore = 1', f'cluster = "{OLD.hex()}"\nranks = 1\nepoch = 1',
])
def test_a_section_that_was_changed_is_refused(tmp_path: Path, section: str) -> None:
    path = write(tmp_path)
    mark(path)
    path.write_text(f"{path.read_text()}\n[recovered]\n{section}\n")
    [fault] = faults_of(path)
    assert "copy the file from another host" in fault


def test_an_id_beside_the_section_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, CLUSTER + f'id = "{OLD.hex()}"\n')
    mark(path)
    path.write_text(f'{path.read_text()}\n[recovered]\ncluster = "{OLD.hex()}"\nranks = [1]\nepoch = 1\n')
    [fault] = faults_of(path)
    assert "id: leave it out" in fault


# --- the files --------------------------------------------------------------------------------------
class Crash(BaseException):
    """The process is killed."""


class KilledOs:
    """The module `os`, until it has been asked for so many changes."""

    CHANGES = ("open", "replace", "link", "fsync", "fchmod", "fchown", "unlink")

    def __init__(self, survives: int) -> None:
        self.left = survives

    def __getattr__(self, name: str) -> Any:
        function: Callable[..., Any] = getattr(os, name)
        if name not in self.CHANGES:
            return function

        def counted(*arguments: Any, **options: Any) -> Any:
            if self.left == 0:
                raise Crash
            self.left -= 1
            return function(*arguments, **options)

        return counted


def contents(path: Path) -> dict[str, bytes]:
    return {name: (path.parent / name).read_bytes() for name in ("client.key", "system.key", "cluster.toml")}


def test_killed_at_every_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = False
    survives = 0
    while not done:
        path = create_cluster(tmp_path / str(survives), 1 << 20, NODES)
        old, files = load_config(path), contents(path)
        made = Recovered(old.cluster_id, (3,), 7)
        with monkeypatch.context() as patch:
            killed = KilledOs(survives)
            patch.setattr(recovered, "os", killed)
            patch.setattr(durable, "os", killed)
            try:
                recover(path, made)
                done = True
            except Crash:
                pass
        try:  # all of one of them, or nobody can start with it
            between = load_config(path)
            is_new = between.recovered is not None
            assert (between.client_key != old.client_key) == (between.system_key != old.system_key) == is_new
        except ConfigError as error:
            is_new = False
            assert "of a cluster that was recovered" in str(error)
        kept = recover(path, made) if is_staged(path) or not is_new else None
        new = load_config(path)
        assert new.recovered == made and new.client_key != old.client_key and not is_staged(path)
        for name, content in files.items():
            before = path.with_name(f"{name}.before-{old.cluster_id[8:].hex()}")
            assert before.read_bytes() == content and (kept is None or before in kept)
            mode = 0o644 if name == "cluster.toml" else 0o600
            assert stat.S_IMODE(path.with_name(name).stat().st_mode) == mode
        survives += 1
    assert survives > 20
    assert sorted(entry.name for entry in path.parent.iterdir() if entry.name.endswith((".new", ".part"))) == []
