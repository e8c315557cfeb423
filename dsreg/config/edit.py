"""Nodes in `cluster.toml` changed, added and taken out, and the size of the disk changed, everything else as a person
has written it: comments, order, spacing.

Each edit takes the text of a valid configuration, and raises ValueError if that is written in such a way that a person
has to do it.
"""

from __future__ import annotations

import itertools
import re
import secrets
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dsreg.config.durable import put_file
from dsreg.config.sizes import format_size
from dsreg.constants import SECTOR_SIZE
from dsreg.errors import ConfigError

_HEADER = re.compile(r"^\s*\[")
_NODE = re.compile(r"^\s*\[\[\s*node\s*\]\]\s*(#.*)?$")
_RANK = re.compile(r"^\s*rank\s*=\s*([0-9]+)\s*(#.*)?$")
_CLUSTER = re.compile(r"^\s*\[\s*cluster\s*\]\s*(#.*)?$")
_SIZE = re.compile(r"^\s*(size|sectors)\s*=")
# How the lines above `first_nodes` and `first_sectors` begin that are written with them.
FIRST_COMMENT = "# The cluster was created with"
_ADDRESS = re.compile(r"""^(\s*address\s*=\s*)("[^"\\]*"|'[^']*')(\s*(#.*)?)$""")


def with_address(text: str, rank: int, address: str) -> str:
    """With `address` (host:port) for the node `rank`."""
    lines = text.split("\n")
    for table in _nodes(lines):
        if not _is_of(lines, table, rank):
            continue
        for at in table:
            if match := _ADDRESS.match(lines[at].rstrip("\r")):
                lines[at] = f'{match[1]}"{address}"{match[3]}{_end(lines[at])}'

    def changed(document: dict[str, Any]) -> None:
        for node in document["node"]:
            if node["rank"] == rank:
                node["address"] = address

    return _checked(text, lines, changed, f"the address of node {rank} stands in an unusual place: write "
                    f"{address!r} there yourself")


def with_first_nodes(text: str, count: int) -> str:
    """With the number of nodes that the cluster was created with, if it does not say with which yet."""
    document = tomllib.loads(_plain(text))
    if "first_nodes" in document["cluster"] or "nodes" in document.get("recovered", {}):
        return text
    return _with_first(text, "first_nodes", count, f"the nodes 1 to {count}. Which there are now")


def with_first_sectors(text: str, count: int) -> str:
    """With the size of the disk that the cluster was created with, if it is not there yet."""
    return _with_first(text, "first_sectors", count, "a disk of so many sectors. How large it is now")


def _with_first(text: str, key: str, count: int, comment: str) -> str:
    if key in tomllib.loads(_plain(text))["cluster"]:
        return text
    lines = text.split("\n")
    for at, line in enumerate(lines):
        if _CLUSTER.match(_plain(line).rstrip("\r")):
            lines[at + 1:at + 1] = [
                f"{new}{_end(line)}" for new in (f"{FIRST_COMMENT} {comment}: dsreg status.", f"{key} = {count}")
            ]
            break

    def changed(document: dict[str, Any]) -> None:
        document["cluster"][key] = count

    return _checked(text, lines, changed, f"the section [cluster] is written in an unusual way: write {key} = "
                    f"{count} into it yourself")


def with_node(text: str, rank: int, address: str) -> str:
    """With one node more, at the end."""
    end = "\r" if text.endswith("\r\n") else ""
    lines = text.rstrip("\r\n").split("\n")
    lines[-1] = lines[-1].rstrip("\r") + end
    lines += [f"{new}{end}" for new in ("", "[[node]]", f"rank = {rank}", f'address = "{address}"')] + [""]

    def changed(document: dict[str, Any]) -> None:
        document["node"].append({"rank": rank, "address": address})

    return _checked(text, lines, changed, f"the nodes are written in an unusual way: add one of rank {rank} with the "
                    f"address {address!r} yourself")


def without_node(text: str, rank: int) -> str:
    """Without the section of the node `rank`. Comments right above the next section are that one's."""
    lines = text.split("\n")
    for table in _nodes(lines):
        if not _is_of(lines, table, rank):
            continue
        end = table.stop
        while end < len(lines) and end > table.start and lines[end - 1].lstrip().startswith("#"):
            end -= 1
        del lines[table.start - 1:end]
        break
    while len(lines) > 1 and not lines[-1].strip() and not lines[-2].strip():
        del lines[-2]

    def changed(document: dict[str, Any]) -> None:
        document["node"] = [node for node in document["node"] if node["rank"] != rank]

    return _checked(text, lines, changed, f"node {rank} stands in an unusual place: take it out yourself")


def with_size(text: str, sectors: int) -> str:
    """With this size of the disk, as a size in bytes."""
    size = format_size(sectors * SECTOR_SIZE)
    lines = text.split("\n")
    for at, line in enumerate(lines):
        if _SIZE.match(line):
            lines[at] = f'size = "{size}"{_end(line)}'
            break

    def changed(document: dict[str, Any]) -> None:
        document["cluster"].pop("sectors", None)
        document["cluster"]["size"] = size

    return _checked(text, lines, changed, f'the size stands in an unusual place: write size = "{size}" yourself')


def _checked(text: str, lines: list[str], change: Callable[[dict[str, Any]], None], complaint: str) -> str:
    """What `lines` come to, which has to say what `text` says but for that `change`."""
    edited = "\n".join(lines)
    wanted = tomllib.loads(_plain(text))
    change(wanted)
    try:
        is_right = tomllib.loads(_plain(edited)) == wanted
    except tomllib.TOMLDecodeError:
        is_right = False
    if not is_right:
        raise ValueError(complaint)
    return edited


def _nodes(lines: list[str]) -> list[range]:
    """Of the sections [[node]]: the lines behind the header."""
    headers = [at for at, line in enumerate(lines) if _HEADER.match(_plain(line))]
    tables = itertools.pairwise([*headers, len(lines)])
    return [range(start + 1, end) for start, end in tables if _NODE.match(lines[start].rstrip("\r"))]


def _is_of(lines: list[str], table: range, rank: int) -> bool:
    return any((match := _RANK.match(lines[at])) and int(match[1]) == rank for at in table)


def _end(line: str) -> str:
    return "\r" if line.endswith("\r") else ""


def _plain(text: str) -> str:
    return text.removeprefix("\ufeff")


def replace_file(path: Path, text: str) -> None:
    """Write `text` in place of the file, which keeps its mode and owner: after a crash it is the old or the new one.
    Raises ConfigError."""
    real = path.resolve()
    part = real.with_name(f".{real.name}.{secrets.token_hex(8)}")  # of this process alone
    try:
        put_file(real, text.encode("utf-8"), real, part)
    except OSError as error:
        raise ConfigError([f"{path}: cannot be written: {error.strerror}"]) from None
