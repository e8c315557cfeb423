"""The registers of one node in a dict, behind what the replica asks of stable storage.

Nothing is durable before `commit`, in whatever order the caller commits; `crash` loses the rest.
Damage, and the lack of room, are set by the test. One object outlives the replicas (incarnations) on it.
"""

from __future__ import annotations

from collections.abc import Callable

from dsreg.constants import MAX_EXTENTS, MAX_RUN_SECTORS, NO_OWNER, SECTOR_SIZE, TAG_SIZE, ZERO_SECTOR, ZERO_TAG
from dsreg.protocol.extents import Extent
from dsreg.protocol.tags import attached_counter, is_uniform, iter_tags
from dsreg.register.effects import Fence, Persist, Reserve
from dsreg.runs import Runs
from dsreg.storage.learned import Learned


class MemoryStorage:
    """A TagView (dsreg.register.replica), with what an interpreter of effects needs to carry them out."""

    def __init__(self, sectors: int = 1 << 20) -> None:
        self.sectors = sectors
        self.on_stored: Callable[[int, int], None] = lambda first, count: None
        self.incarnation = 1
        self.ts_reserved = 0
        self.full = False  # refuses every persist
        self.epoch = 0
        self.owner = NO_OWNER
        self.queued: list[Persist | Reserve | Fence] = []
        self._durable: dict[int, tuple[bytes, bytes]] = {}  # sector -> tag, value
        self._no_value: set[int] = set()
        self._no_tag: set[int] = set()
        self.learning = Learned(sectors, self.tags)

    # --- TagView ----------------------------------------------------------------------------------
    def tags(self, first: int, count: int) -> bytes:
        """The durable tags, 16 bytes a sector; zeros for those never written or unknown."""
        return b"".join(self._tag(sector) for sector in range(first, first + count))

    def latest_tags(self, first: int, count: int) -> bytes:
        """As `tags`, with what is queued."""
        latest = iter_tags(self.tags(first, count))
        for effect in self.queued:
            if isinstance(effect, Persist):
                for sector, tag in enumerate(_tags_of(effect), effect.first):
                    if first <= sector < first + count:
                        latest[sector - first] = max(latest[sector - first], tag)
        return b"".join(latest)

    @property
    def attached_counter(self) -> int:
        """The highest counter of a write of the attachment in force."""
        return max((attached_counter(tag, self.epoch) for tag, _ in self._durable.values()), default=0)

    def missing(self, first: int, count: int) -> list[int]:
        """Sectors whose value is lost, `unknown` ones included."""
        return self.learning.with_left(first, count, self.damaged_of(first, count))

    def unknown(self, first: int, count: int) -> list[int]:
        """Sectors whose tag is lost, or to be learned."""
        return self.learning.with_left(first, count, self._without_tag(first, count))

    def damaged_of(self, first: int, count: int) -> list[int]:
        """Sectors whose value, or tag and value, is lost."""
        lost = self._no_value | self._no_tag
        return [sector for sector in range(first, first + count) if sector in lost]

    def _without_tag(self, first: int, count: int) -> list[int]:
        return [sector for sector in range(first, first + count) if sector in self._no_tag]

    def lost(self) -> list[int]:
        """All sectors of the disk whose value is damaged."""
        return sorted(self._no_value | self._no_tag)

    def unknown_chunks(self, chunk: int, stop: int) -> tuple[int, int] | None:
        """The first chunks [start, end) that begin within [chunk, stop) of which nothing is known, or not all."""
        found = self.learning.chunks(chunk)
        return found if found is not None and found[0] < stop else None

    def next_chunk(self, chunk: int) -> int | None:
        """The first one from `chunk` on of which a tag may be other than zeros."""
        written = (sector // MAX_RUN_SECTORS for sector in (*self._durable, *self._no_tag))
        return min((each for each in written if each >= chunk), default=None)

    def grow(self, sectors: int) -> None:
        """The disk has so many sectors from now on."""
        self.on_stored(self.sectors - 1, 1)
        self.sectors = sectors
        self.learning.grow(sectors)

    def extents(self, first: int, count: int) -> list[Extent]:
        """Of these whole chunks, one by one."""
        return [Extent(1, self._dataless(chunk)) for chunk in range(first, first + min(count, MAX_EXTENTS))]

    def _dataless(self, chunk: int) -> bytes | None:
        tags, data, is_damaged = self.load(chunk * MAX_RUN_SECTORS, MAX_RUN_SECTORS)
        return tags[:TAG_SIZE] if is_uniform(tags) and not any(data) and not is_damaged else None

    # --- effects ----------------------------------------------------------------------------------
    def load(self, first: int, count: int) -> tuple[bytes, bytes, bool]:
        """The durable tags and values, and whether some of them are lost: what Replica.loaded takes."""
        data = b"".join(self._durable.get(sector, (b"", ZERO_SECTOR))[1] for sector in range(first, first + count))
        return self.tags(first, count), data, bool(self.missing(first, count))

    def queue(self, effect: Persist | Reserve | Fence) -> None:
        self.queued.append(effect)

    def may_commit(self, index: int) -> bool:
        """A fence comes after the stores from before it; everything else in any order."""
        earlier = self.queued[:index]
        return not isinstance(self.queued[index], Fence) or not any(isinstance(each, Persist) for each in earlier)

    def commit(self, index: int = 0) -> tuple[Persist | Reserve | Fence, bool]:
        """Decide on one that is queued: it, and whether it is durable now. False: refused, nothing of it stored."""
        effect = self.queued.pop(index)
        if isinstance(effect, Reserve):
            self.ts_reserved = max(self.ts_reserved, effect.ts)
            return effect, True
        if isinstance(effect, Fence):
            self.epoch, self.owner = max((self.epoch, self.owner), (effect.epoch, effect.owner))
            return effect, True
        if self.full or not effect.repair and self._without_tag(effect.first, effect.count):
            return effect, False
        for offset, tag in enumerate(_tags_of(effect)):
            sector = effect.first + offset
            known = self._tag(sector)
            if tag > known or tag == known and sector in self._no_value | self._no_tag:
                value = bytes(effect.data[offset * SECTOR_SIZE : (offset + 1) * SECTOR_SIZE]) or ZERO_SECTOR
                self._durable[sector] = tag, value
                self._no_value.discard(sector)
                self._no_tag.discard(sector)
        self.on_stored(effect.first, effect.count)
        return effect, True

    # --- what a test does to it -------------------------------------------------------------------
    def damage(self, sector: int, *, tag_too: bool = False) -> None:
        """Lose the sector's value, or its value and its tag."""
        (self._no_tag if tag_too else self._no_value).add(sector)

    def begin_unknown(self) -> None:
        """Every sector is to be learned. What is stored stays."""
        self.learning.know(Runs())

    def crash(self) -> None:
        """What was not committed is gone. The next replica on this storage is a new incarnation."""
        self.queued.clear()
        self.incarnation += 1

    def _tag(self, sector: int) -> bytes:
        return ZERO_TAG if sector in self._no_tag else self._durable.get(sector, (ZERO_TAG, b""))[0]


def _tags_of(persist: Persist) -> list[bytes]:
    """Of each sector."""
    return iter_tags(persist.tags if persist.data else persist.tags * persist.count)
