"""Damage to this node's copy: what was found, each once, and what of it has been repaired. Pure. docs/scrub.md."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Callable, Iterable
from typing import NamedTuple

from dsreg.constants import MAX_RUN_SECTORS

# Runs that are remembered as damaged: of more it is not said when they are repaired, and they may be counted again.
MAX_OPEN = 4096
# Of these so many are told in STATUS.
TOLD = 16


class Kind(enum.Enum):
    """What is wrong. VALUE: the bytes are not what their checksum says. TAG: a slot of the file `tags` is not, or
    was not. CONTRADICTION: two values, each as its checksum says, have the same tag."""

    VALUE = "value"
    TAG = "tag"
    CONTRADICTION = "contradiction"


class Damage(NamedTuple):
    """Of the sectors [first, first + count)."""

    kind: Kind
    first: int
    count: int  # type: ignore[assignment]  # shadows tuple.count, which nobody needs
    detail: str = ""  # for people

    def __str__(self) -> str:
        where = f"sector {self.first}" if self.count == 1 else f"sectors {self.first}..{self.first + self.count - 1}"
        if self.kind is Kind.CONTRADICTION:
            return f"{where}: two values have the same tag; neither is taken for the right one{self.detail}"
        what = "value does not match its checksum" if self.kind is Kind.VALUE else "tag is damaged on the disk"
        return f"{where}: the {what}{self.detail}; it is repaired from the other nodes"


def contradiction(sector: int, tag: bytes, crc: bytes, other: bytes, where: str) -> Damage:
    """Values with these checksums have this tag: the one with `crc` here, the one with `other` `where`, for people."""
    detail = f" (tag {tag.hex()}: checksum {crc.hex()} here, {other.hex()} {where})"
    return Damage(Kind.CONTRADICTION, sector, 1, detail)


class Ledger:
    """`is_open(damage)`: whether the damage is still there. Counts are in sectors."""

    def __init__(self, is_open: Callable[[Damage], bool]) -> None:
        self._is_open = is_open
        self._open: dict[tuple[Kind, int, int], Damage] = {}
        self.found: Counter[Kind] = Counter()
        self.repaired = 0

    def take(self, some: Iterable[Damage]) -> list[Damage]:
        """This was found. Gives what is new."""
        new = []
        for damage in some:
            key = damage[:3]
            if key in self._open:
                continue
            if len(self._open) < MAX_OPEN:
                self._open[key] = damage
            self.found[damage.kind] += damage.count
            new.append(damage)
        return new

    def open(self) -> list[Damage]:
        """What is not repaired yet."""
        for key, damage in list(self._open.items()):
            if not self._is_open(damage):
                del self._open[key]
                self.repaired += damage.count
        return list(self._open.values())

    def report(self) -> dict[str, object]:
        """For STATUS."""
        still = self.open()
        return {
            **{kind.value: self.found[kind] for kind in Kind},
            "repaired": self.repaired,
            "open": sum(damage.count for damage in still),
            "contradictions": sum(damage.count for damage in still if damage.kind is Kind.CONTRADICTION),
            "sectors": [damage.first for damage in still[:TOLD]],
        }


def pieces(first: int, count: int) -> Iterable[tuple[int, int]]:
    """The run in parts of at most MAX_RUN_SECTORS."""
    for start in range(first, first + count, MAX_RUN_SECTORS):
        yield start, min(MAX_RUN_SECTORS, first + count - start)
