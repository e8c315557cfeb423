"""Answers of nodes, checked against the commands that they answer."""

from __future__ import annotations

from typing import Final

from dsreg.constants import MAX_RUN_SECTORS, SECTOR_SIZE, TAG_SIZE
from dsreg.protocol.extents import decode_extents
from dsreg.protocol.messages import Command, CommandKind, Response

# Commands that store something.
CHANGING: Final = (CommandKind.STORE, CommandKind.PUT, CommandKind.ZERO)
# Members of enumerations that each answer needs: see dsreg.protocol.messages.
_READ, _GET, _MAP = CommandKind.READ, CommandKind.GET, CommandKind.MAP


def fits(command: Command, response: Response) -> bool:
    """Whether the answer has the length that was asked for."""
    kind, tags, data = command.kind, len(response.tags), len(response.data)
    if kind in CHANGING:
        return not tags and not data
    if kind is _MAP:
        return not tags and decode_extents(response.data, command.count // MAX_RUN_SECTORS) is not None
    whole_tags, whole_data = command.count * TAG_SIZE, command.count * SECTOR_SIZE
    if kind is _READ:
        return data == whole_data and (not tags or command.epoch > 0 and tags == whole_tags)
    return tags == whole_tags and (not data or kind is _GET and data == whole_data)
