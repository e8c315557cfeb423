"""Which sectors a node has yet to learn, and what that takes. Pure; learning.py makes it durable."""

from __future__ import annotations

from collections.abc import Callable

from dsreg.constants import MAX_RUN_SECTORS, TAG_SIZE
from dsreg.protocol.tags import iter_tags
from dsreg.runs import Runs


class Learned:
    """Of a disk of `sectors`. `left`: how many of them are to be learned; 0, as usual: none. What is stored there
    meanwhile is kept, and is not all that there may have been. `tags`: gives what is durable here, 16 bytes a sector.
    """

    def __init__(self, sectors: int, tags: Callable[[int, int], bytes]) -> None:
        self.sectors = sectors
        self._tags = tags
        self._known = Runs()
        self.left = 0

    @property
    def is_recorded(self) -> bool:
        """Whether a restart would find something left."""
        return self.left > 0

    def know(self, known: Runs) -> None:
        """All but these are to be learned."""
        self._known = known
        self.left = self.sectors - known.total

    def grow(self, sectors: int) -> None:
        """The disk has so many from now on. While something is left so are the new ones: what this node has forgotten
        may have been in them. Once nothing is, it has begun to serve under the smaller size, so that whatever it had
        acknowledged in them before does not count: docs/configurations.md, "A larger disk"."""
        self.sectors = sectors
        if self.left:
            self.left = sectors - self._known.total

    def of(self, first: int, count: int) -> list[int]:
        """Those of the run that are left."""
        if not self.left:
            return []
        return [sector for start, stop in self._known.gaps(first, first + count) for sector in range(start, stop)]

    def with_left(self, first: int, count: int, others: list[int]) -> list[int]:
        """These sectors, and those of the run that are left; ascending."""
        left = self.of(first, count)
        return sorted({*left, *others}) if left else others

    def chunks(self, chunk: int) -> tuple[int, int] | None:
        """The first chunks [start, stop) of 256 sectors, from `chunk` on, of each of which something is left."""
        if not self.left:
            return None
        gap = next(self._known.gaps(chunk * MAX_RUN_SECTORS, self.sectors), None)
        return None if gap is None else (gap[0] // MAX_RUN_SECTORS, -(-gap[1] // MAX_RUN_SECTORS))

    def learned(self, first: int, count: int, told: bytes = b"") -> bool:
        """As many others as must have told of this run, and their highest tags are `told`, or (b"") zeros. From now on
        it is known, unless what is durable here is below that (False)."""
        assert 0 <= first < first + count <= self.sectors
        own = self._tags(first, count) if told else b""
        assert len(own) == len(told) == (count * TAG_SIZE if told else 0)
        if own != told and any(mine < other for mine, other in zip(iter_tags(own), iter_tags(told), strict=True)):
            return False
        if self.left:
            self._known.add(first, first + count)
            self.left = self.sectors - self._known.total
        return True
