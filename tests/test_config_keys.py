"""Key files while a key is being changed, and the id of the cluster that stays: docs/keys.md."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dsreg.config import create_cluster, load_config
from dsreg.config.keys import KeyFile, Step, fingerprint, read_keys
from dsreg.config.recovered import Recovered, rewritten
from dsreg.config.rotation import CLIENT, SYSTEM, Files, next_files, write_files
from dsreg.errors import ConfigError

ADDRESSES = ["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"]
A, B = b"a" * 32, b"b" * 32


def put(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    path.chmod(0o600)
    return path


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    begun = KeyFile(A, recovered=True).begun(B, b"c" * 16)
    for file in (KeyFile(A), begun, begun.advanced(), begun.advanced().advanced()):
        assert read_keys(put(tmp_path / "key", file.content), 32, recovered=file.recovered) == file
    assert begun.advanced().advanced() == KeyFile(B, cluster=b"c" * 16, recovered=True)


@pytest.mark.parametrize("content", [
    b"61" * 32 + b"\nnext 62\n", b"61" * 32 + b"\nnext " + b"61" * 32, b"61" * 32 + b"\nother " + b"62" * 32,
    b"61" * 32 + b"\nnext " + b"62" * 32 + b"\nprevious " + b"63" * 32, b"61" * 32 + b"\ncluster 00\n",
], ids=["short", "same", "word", "both", "id"])
def test_what_is_not_as_it_must_be_is_refused_and_not_shown(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ValueError, match="key") as raised:
        read_keys(put(tmp_path / "key", content), 32)
    assert "6161" not in str(raised.value) and "6262" not in str(raised.value)


def change(path: Path) -> list[tuple[bytes, list[str], list[str]]]:
    """All three steps of both keys; what the configuration says before, and after each: id, keys of both kinds."""
    config = load_config(path)
    files = Files(read_keys(config.key_files[0], 32),
                  read_keys(config.key_files[1], 64, recovered=config.recovered is not None))
    said = [(config.cluster_id, *config.key_names.values())]
    for _ in range(3):
        later = next_files(files, {CLIENT, SYSTEM}, config.cluster_id, os.urandom)
        write_files(files, later, config.key_files)
        files, config = later, load_config(path)
        said.append((config.cluster_id, *config.key_names.values()))
    return said  # type: ignore[return-value]


@pytest.mark.parametrize("kind", ["derived", "configured", "recovered"])
def test_the_id_stays_what_it_was(tmp_path: Path, kind: str) -> None:
    path = create_cluster(tmp_path / "c", 1 << 20, ADDRESSES)
    if kind == "configured":
        path.write_text(path.read_text().replace("[cluster]\n", f'[cluster]\nid = "{"AB" * 16}"\n'))
    if kind == "recovered":
        path.write_text(rewritten(path.read_text(), Recovered(load_config(path).cluster_id, (1, 2, 3), 5)))
        put(tmp_path / "c" / "system.key", KeyFile(b"s" * 64, recovered=True).content)
    said = change(path) + change(path)[1:]
    assert len({id_ for id_, *_ in said}) == 1
    for kind_of_key in (1, 2):
        before, first, second, third, *_ = (entry[kind_of_key] for entry in said)
        assert [*map(len, (before, first, second, third))] == [1, 2, 2, 1]
        assert first[0] == before[0] and second == first[::-1] and third == second[:1]
    assert {file.stat().st_mode & 0o777 for file in load_config(path).key_files} == {0o600}


def test_an_id_that_is_not_that_of_the_key_is_a_fault(tmp_path: Path) -> None:
    path = create_cluster(tmp_path / "c", 1 << 20, ADDRESSES)
    change(path)
    path.write_text(path.read_text().replace("[cluster]\n", f'[cluster]\nid = "{"AB" * 16}"\n'))
    with pytest.raises(ConfigError, match="not that of the system key"):
        load_config(path)


def test_a_host_of_clients_reads_its_key_again(tmp_path: Path) -> None:
    path = create_cluster(tmp_path / "c", 1 << 20, ADDRESSES)
    (tmp_path / "c" / "system.key").unlink()
    config = load_config(path, need_system_key=False)
    watch = config.watch()
    assert not watch.changed() and config.reread() == config
    put(config.key_files[0], KeyFile(A).begun(B).advanced().content)
    assert watch.changed() and not watch.changed()
    again = config.reread()
    assert (again.client_key, again.other_client_key, again.system_key) == (B, A, b"")
    config.key_files[0].write_text("no key")
    with pytest.raises(ValueError, match=r"client\.key"):
        config.reread()


def test_a_fingerprint_says_nothing_of_the_key() -> None:
    assert len(fingerprint(A)) == 16 and fingerprint(A) != fingerprint(B) and fingerprint(b"") == ""
    assert Step("next") is Step.NEXT
