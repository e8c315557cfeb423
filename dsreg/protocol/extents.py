"""Extents of whole chunks: what a node says of them without their values, and how that stands in a message."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final, NamedTuple

from dsreg.constants import MAX_EXTENTS, MAX_MAP_CHUNKS, MAX_RUN_SECTORS, TAG_SIZE
from dsreg.protocol.messages import Buffer, Command, CommandKind

_LAYOUT: Final = struct.Struct(f">II{TAG_SIZE}s")  # chunks; 1 if they have no data, else 0; their tag
EXTENT_SIZE: Final = _LAYOUT.size


class Extent(NamedTuple):
    """`chunks` that follow each other, at least one. `tag`: all their sectors have it, and no data: they are zeros, or
    were never written if it is of no write. None: nothing is said of them, they may have data."""

    chunks: int
    tag: bytes | None


def encode_extents(extents: Iterable[Extent]) -> bytes:
    return b"".join(
        _LAYOUT.pack(chunks, 0, b"") if tag is None else _LAYOUT.pack(chunks, 1, tag) for chunks, tag in extents
    )


def decode_extents(content: Buffer, chunks: int) -> list[Extent] | None:
    """Of so many chunks, or of fewer, from the first one on; None if it is nothing of that kind."""
    if len(content) % EXTENT_SIZE or not 0 < len(content) <= MAX_EXTENTS * EXTENT_SIZE:
        return None
    extents = []
    for number, kind, tag in _LAYOUT.iter_unpack(content):
        if not number or kind > 1 or not kind and any(tag):
            return None
        extents.append(Extent(number, tag if kind else None))
    return extents if sum(extent.chunks for extent in extents) <= chunks else None


def can_be_mapped(first: int, count: int) -> bool:
    """Whether one command can ask about these sectors, if the disk has them: whole chunks."""
    chunks, rest = divmod(count, MAX_RUN_SECTORS)
    return not rest and not first % MAX_RUN_SECTORS and 1 <= chunks <= MAX_MAP_CHUNKS


def map_command(request: int, first: int, count: int, epoch: int) -> Command:
    """`first`, `count`: sectors, see `can_be_mapped`."""
    return Command(CommandKind.MAP, request, first, count, b"", b"", True, epoch)
