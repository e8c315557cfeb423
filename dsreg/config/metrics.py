"""Where nodes serve metrics, and what has to be shown for them: `metrics`, `metrics_token_file`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from dsreg.config.address import format_address, is_local_only, parse_address
from dsreg.config.keys import read_private

# Metrics are for whoever watches this host, who may pass them on: there nobody has to prove who he is.
DEFAULT_HOST: Final = "127.0.0.1"
# The port is this and the rank, so that a host may have several nodes: 9601 to 9854.
BASE_PORT: Final = 9600
# Characters of a token, which may be tried as often as somebody likes.
LEAST_TOKEN: Final = 16
_MAKE_ONE: Final = "make one with: (umask 077; openssl rand -hex 32 > FILE)"


def metrics_host(cluster: Mapping[str, Any], fault: Callable[[str], None]) -> str:
    """By the section [cluster]; "" for nowhere. `fault` is told what is wrong with it."""
    host = cluster.get("metrics", False)
    if isinstance(host, bool):
        return DEFAULT_HOST if host else ""
    if not isinstance(host, str):
        fault(f'[cluster] metrics must be true (on {DEFAULT_HOST}), false, or text like "10.0.0.1": on which address '
              "of its host each node serves them")
        return ""
    host = host.removeprefix("[").removesuffix("]")
    try:
        return parse_address(format_address(host, BASE_PORT))[0]
    except ValueError as error:
        fault(f"[cluster] metrics: write a host without a port: {error}")
        return ""


def token_file(cluster: Mapping[str, Any], directory: Path, fault: Callable[[str], None]) -> Path | None:
    """By the section [cluster] of a file in `directory`. None: there is none. `fault`: as above."""
    name = cluster.get("metrics_token_file")
    if name is None:
        return None
    if not isinstance(name, str) or not name:
        fault("[cluster] metrics_token_file must be the name of a file, in quotes")
        return None
    return directory / name


def read_token(path: Path) -> bytes:
    """What whoever wants the metrics has to show. Raises ValueError, with what to do."""
    token = read_private(path, _MAKE_ONE)
    if len(token) < LEAST_TOKEN or not token.isascii() or len(token.split()) != 1:
        raise ValueError(f"{path}: a token has at least {LEAST_TOKEN} characters of ASCII, and no blanks; {_MAKE_ONE}")
    return token


def token_for(host: str, file: Path | None) -> bytes:
    """What has to be shown for metrics on `host`, which is in `file`; b"": nothing has. Raises ValueError, with what to
    do."""
    if file is not None:
        return read_token(file)
    if not is_local_only(host):
        raise ValueError(f"other hosts can reach {host}: name a file with a token: metrics_token_file in cluster.toml")
    return b""
