"""MapTally: which whole chunks of the disk are nothing but zeros, as the client counts what the nodes say of them.

A chunk is a hole only where enough nodes say that they have no data of it, *under the same tag*: that is what a GET of
all its sectors, answered by these nodes, would return at once. Whatever else they say is data, which is always true
enough: whoever reads it finds what is there. docs/protocol.md, Part 9.
"""

from __future__ import annotations

from collections.abc import Iterable

from dsreg.client.quorum import Tally, Verdict
from dsreg.protocol.extents import decode_extents
from dsreg.protocol.messages import CommandKind, Response
from dsreg.register.one_round import may_return
from dsreg.register.quorum import Quorum


class MapTally(Tally):
    """Of a MAP of so many `chunks`. It is done when all that were asked have answered: the more agree, the better."""

    __slots__ = ("_chunks", "_told")

    def __init__(self, quorum: Quorum, epoch: int, chunks: int) -> None:
        super().__init__(CommandKind.MAP, quorum, epoch)
        self._chunks = chunks
        # Of each node: where an extent ends, counted from the first chunk of all, and its tag.
        self._told: dict[int, list[tuple[int, bytes | None]]] = {}

    def add(self, rank: int, answer: Response) -> None:
        extents = decode_extents(answer.data, self._chunks)
        assert extents is not None
        told, at = [], 0
        for chunks, tag in extents:
            at += chunks
            told.append((at, tag))
        self._told[rank] = told
        self.answered |= 1 << rank
        self.last = rank

    def verdict(self, outstanding: Iterable[int]) -> Verdict:
        return Verdict.WAIT if any(True for _ in outstanding) else Verdict.DONE

    def holes(self) -> bytes:
        """A byte for each chunk, from the first one on: 1 if it is a hole, 0 if it is to be read. Of all chunks, or of
        as many as every node that has answered tells of, at least one."""
        known = min((told[-1][0] for told in self._told.values()), default=self._chunks)
        holes, at = bytearray(known), 0
        left = {rank: iter(told) for rank, told in self._told.items()}
        now = {rank: next(told) for rank, told in left.items()}
        while at < known and now:
            stop = min(known, *(end for end, _ in now.values()))
            if self._agree({rank: tag for rank, (_, tag) in now.items()}):
                holes[at:stop] = b"\1" * (stop - at)
            at = stop
            if at < known:
                now = {rank: extent if extent[0] > at else next(left[rank]) for rank, extent in now.items()}
        return bytes(holes)

    def _agree(self, tags: dict[int, bytes | None]) -> bool:
        """Whether nodes that decide have one of these, by rank."""
        agreeing: dict[bytes, int] = {}
        for rank, tag in tags.items():
            if tag is not None:
                agreeing[tag] = agreeing.get(tag, 0) | 1 << rank
        return any(may_return(self._quorum, nodes, tag, self._epoch) for tag, nodes in agreeing.items())
