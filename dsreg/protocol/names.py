"""What tells apart the tags of one node: the 16 bits of `life` in a tag (dsreg.protocol.tags), by the life of the node
and by its incarnation, which counts the starts.

    first life          incarnation mod 65535 + 1; 0 without an attachment, as the contract has no place for it
    later ones          4 bits: (number - 1) mod 16 | 12 bits: incarnation mod 4095 + 1; without an attachment as well

A later life that is claimed is `is_apart` from the first one: then no name of the one is a name of the other. Two
later lives differ in the 4 bits, but for those whose numbers are 16 apart; and the starts within one of them in
the 12 bits, up to 4095 of them.
"""

from __future__ import annotations

from typing import Final

LIVES_IN_NAMES: Final = 16
_STARTS: Final = 0xFFF
_FIRST_STARTS: Final = 0xFFFF
_SHIFT: Final = 12


def name_bits(number: int, incarnation: int) -> int:
    """1..65535. `number`: of the life, from 1 on."""
    if number == 1:
        return incarnation % _FIRST_STARTS + 1
    return (number - 1) % LIVES_IN_NAMES << _SHIFT | incarnation % _STARTS + 1


def is_apart(number: int, incarnation: int) -> bool:
    """Whether no name of that later life is one of the first life, up to this incarnation of the node; 0: nobody has
    heard of one, so there may have been many. Beyond 61,438 starts no life is."""
    used = incarnation + 1 if incarnation else (LIVES_IN_NAMES - 2) << _SHIFT
    return (number - 1) % LIVES_IN_NAMES > used >> _SHIFT
