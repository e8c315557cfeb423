"""One address in `cluster.toml` changed, everything else as a person has written it: comments, order, spacing."""

from __future__ import annotations

import itertools
import re
import secrets
import tomllib
from pathlib import Path
from typing import Any

from dsreg.config.durable import put_file
from dsreg.errors import ConfigError

_HEADER = re.compile(r"^\s*\[")
_NODE = re.compile(r"^\s*\[\[\s*node\s*\]\]\s*(#.*)?$")
_RANK = re.compile(r"^\s*rank\s*=\s*([0-9]+)\s*(#.*)?$")
_ADDRESS = re.compile(r"""^(\s*address\s*=\s*)("[^"\\]*"|'[^']*')(\s*(#.*)?)$""")


def with_address(text: str, rank: int, address: str) -> str:
    """`text`, of a valid configuration, with `address` (host:port) for the node `rank`.

    Raises ValueError if the file is written in such a way that a person has to do it.
    """
    lines = text.split("\n")
    wanted = _changed(tomllib.loads(text.removeprefix("\ufeff")), rank, address)
    for start, end in _tables(lines):
        table = range(start, end)
        if not any((match := _RANK.match(lines[at])) and int(match[1]) == rank for at in table):
            continue
        for at in table:
            if match := _ADDRESS.match(lines[at].rstrip("\r")):
                tail = "\r" if lines[at].endswith("\r") else ""
                lines[at] = f'{match[1]}"{address}"{match[3]}{tail}'
    edited = "\n".join(lines)
    try:
        is_right = tomllib.loads(edited.removeprefix("\ufeff")) == wanted
    except tomllib.TOMLDecodeError:
        is_right = False
    if not is_right:
        raise ValueError(f"the address of node {rank} stands in an unusual place: write {address!r} there yourself")
    return edited


def _tables(lines: list[str]) -> list[tuple[int, int]]:
    """Of the sections [[node]]: the lines behind the header, as a range."""
    headers = [at for at, line in enumerate(lines) if _HEADER.match(line)]
    tables = itertools.pairwise([*headers, len(lines)])
    return [(start + 1, end) for start, end in tables if _NODE.match(lines[start].rstrip("\r"))]


def _changed(document: dict[str, Any], rank: int, address: str) -> dict[str, Any]:
    nodes = [{**node, "address": address} if node["rank"] == rank else node for node in document["node"]]
    return {**document, "node": nodes}


def replace_file(path: Path, text: str) -> None:
    """Write `text` in place of the file, which keeps its mode and owner: after a crash it is the old or the new one.
    Raises ConfigError."""
    real = path.resolve()
    part = real.with_name(f".{real.name}.{secrets.token_hex(8)}")  # of this process alone
    try:
        put_file(real, text.encode("utf-8"), real, part)
    except OSError as error:
        raise ConfigError([f"{path}: cannot be written: {error.strerror}"]) from None
