"""What is in a directory that is left, and what must be taken for lost: for `dsreg recover`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from dsreg.constants import SECTOR_SIZE
from dsreg.protocol.messages import name_of_owner
from dsreg.storage import StableStorage
from dsreg.storage.new_cluster import damaged_sectors, runs_of
from dsreg.units import size_text


@dataclass(frozen=True, slots=True)
class Found:
    """`damaged`: sectors whose value, or tag and value, is lost; ascending. `unlearned`: how many the node had yet to
    learn. `epoch`, `owner`: of the attachment that it has heard of last. `stored_s`: when a value was stored last."""

    written: int
    damaged: list[int]
    unlearned: int
    epoch: int
    owner: str
    stored_s: float


def look_into(storage: StableStorage, stored_s: float, on_read: Callable[[int], None]) -> Found:
    """Read everything in it, and close it. Blocks."""
    try:
        return Found(
            written=storage.sectors_written,
            damaged=damaged_sectors(storage, on_read),
            unlearned=storage.learning.left,
            epoch=storage.epoch,
            owner=name_of_owner(storage.owner),
            stored_s=stored_s,
        )
    finally:
        storage.close()


def report(found: Found, lost: Iterable[int], ranks: tuple[int, ...]) -> list[str]:
    """For people: what there is, and what may be missing. `lost`: the nodes that decided beside `ranks`."""
    stored = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(found.stored_s))
    gone = ", ".join(map(str, lost))
    written = size_text(found.written * SECTOR_SIZE)
    lines = [
        f"Left: the directory of node {ranks[0]}, with {written} in {found.written} sectors.",
        f"    It has stored a value last at {stored}.",
        "Lost:",
        f"  - What only the nodes {gone} have acknowledged. Nobody can tell which sectors that is: an older",
        f"    value will be read there. If node {ranks[0]} was down before, it is all that was written meanwhile.",
        *damage_lines(found),
    ]
    if found.unlearned:
        size = size_text(found.unlearned * SECTOR_SIZE)
        lines += [f"  - Of {size} of the disk this node had yet to learn the newest value from the others: it has",
                  "    an older one, or zeros, there."]
    if found.epoch:
        by = f" by {found.owner}" if found.owner else ""
        lines += [f"The disk was attached last{by} (epoch {found.epoch}). Whoever has it mounted will get errors:",
                  "unmount it there, and check the file system before you use it."]
    if len(ranks) > 1:
        lines.append(f"Of the nodes {', '.join(map(str, ranks))} the newest copy of each sector is taken.")
    return lines


def damage_lines(found: Found) -> list[str]:
    """For people; [] if there is no damage."""
    if not found.damaged:
        return []
    runs = ", ".join(_range(first, count) for first, count in runs_of(found.damaged))
    return [f"  - {len(found.damaged)} sectors that are damaged here, and will read as zeros: {runs}"]


def _range(first: int, count: int) -> str:
    return str(first) if count == 1 else f"{first}-{first + count - 1}"
