"""`metrics` in cluster.toml."""

from __future__ import annotations

from pathlib import Path

import pytest

from dsreg.config import load_config
from dsreg.config.metrics import read_token
from tests.test_config import CLUSTER, faults_of, write


@pytest.mark.parametrize(("line", "host"), [
    ("", ""), ("metrics = false", ""), ("metrics = true", "127.0.0.1"), ('metrics = "0.0.0.0"', "0.0.0.0"),
    ('metrics = "[::1]"', "::1"), ('metrics = "::1"', "::1"), ('metrics = "node.example"', "node.example"),
])
def test_where_metrics_are_served(tmp_path: Path, line: str, host: str) -> None:
    config = load_config(write(tmp_path, CLUSTER + line))
    assert config.metrics == host
    assert [config.metrics_at(rank) for rank in (1, 254)] == ([(host, 9601), (host, 9854)] if host else [None, None])


@pytest.mark.parametrize("value", ["9601", '"127.0.0.1:9601"', '""', '"10.1"', '"a b"'])
def test_where_no_metrics_can_be_served(tmp_path: Path, value: str) -> None:
    [fault] = faults_of(write(tmp_path, CLUSTER + f"metrics = {value}"))
    assert "[cluster] metrics" in fault


# --- the token ------------------------------------------------------------------------------------
GOOD = "0123456789abcdef"


def token_of(directory: Path, text: str, mode: int = 0o600) -> Path:
    path = directory / "metrics.token"
    path.write_text(text)
    path.chmod(mode)
    return path


def test_where_the_token_is(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, CLUSTER + 'metrics_token_file = "metrics.token"'))
    assert config.metrics_token_file == tmp_path / "metrics.token", "whoever is no node needs no such file"
    assert read_token(token_of(tmp_path, f" {GOOD}\n")) == GOOD.encode()
    [fault] = faults_of(write(tmp_path, CLUSTER + "metrics_token_file = 7"))
    assert "[cluster] metrics_token_file" in fault


@pytest.mark.parametrize(("text", "mode", "why"), [
    (GOOD[:-1], 0o600, "at least 16 characters"), ("", 0o600, "at least 16"), (f"{GOOD} {GOOD}", 0o600, "no blanks"),
    (f"{GOOD}\n{GOOD}", 0o600, "no blanks"), (GOOD + "\u00e9", 0o600, "ASCII"), (GOOD, 0o640, "chmod 600"),
])
def test_what_is_no_token(tmp_path: Path, text: str, mode: int, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        read_token(token_of(tmp_path, text, mode))


def test_how_to_make_a_token_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not exist; make one with: .*openssl rand"):
        read_token(tmp_path / "none")
