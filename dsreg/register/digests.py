"""Digests of this node's tags, 16 bytes for each chunk of 256 sectors, and what it answers to those who ask for them.

Each is computed when it is wanted, and kept until a sector of its chunk is stored: 17 bytes a chunk, where anything
was ever written.
"""

from __future__ import annotations

import hashlib
from typing import Protocol

from dsreg.chunks import chunks_of, number_of_chunks, run_of
from dsreg.constants import DIGEST_SIZE
from dsreg.protocol.messages import DigestQuery, Digests

# Of a chunk of which a tag is lost: nothing can be said of it.
UNKNOWN = b"\xff" * DIGEST_SIZE
# Chunks in a page of the table.
_PAGE = 4096
# How many are computed at one time, some 30 us each; more are left to the next question.
BUDGET = 32
# What is known of a chunk.
_OUTDATED, _UNWRITTEN, _DIGEST = range(3)  # the first one is 0


class Tags(Protocol):
    """What is needed of stable storage."""

    sectors: int

    def tags(self, first: int, count: int) -> bytes: ...

    def unknown(self, first: int, count: int) -> list[int]: ...

    def next_chunk(self, chunk: int) -> int | None:
        """The first one from `chunk` on of which a tag may be other than zeros, of those that are known."""

    def unknown_chunks(self, chunk: int, stop: int) -> tuple[int, int] | None:
        """The first chunks [start, end) that begin within [chunk, stop) of which nothing is known, or not all."""


class _Page:
    def __init__(self) -> None:
        self.states = bytearray(_PAGE)
        self.digests = bytearray(_PAGE * DIGEST_SIZE)


class TagDigests:
    def __init__(self, storage: Tags) -> None:
        self._storage = storage
        self._pages: dict[int, _Page] = {}

    @property
    def chunks(self) -> int:
        """Of the disk."""
        return number_of_chunks(self._storage.sectors)

    def stored(self, first: int, count: int) -> None:
        """The tags of this run are other ones now."""
        chunks = chunks_of(first, count)
        for number in range(chunks.start // _PAGE, (chunks.stop - 1) // _PAGE + 1):
            page = self._pages.get(number)
            if page is not None:
                begin, end = max(chunks.start - number * _PAGE, 0), min(chunks.stop - number * _PAGE, _PAGE)
                page.states[begin:end] = bytes(end - begin)

    def run_of(self, chunk: int) -> tuple[int, int]:
        """First sector, and number of sectors, of the chunk."""
        return run_of(chunk, self._storage.sectors)

    def of(self, chunk: int) -> bytes:
        """b"" if no sector of it was ever written, nor is lost."""
        number, index = divmod(chunk, _PAGE)
        page = self._pages.get(number)
        if page is None:
            page = self._pages[number] = _Page()
        at = index * DIGEST_SIZE
        if page.states[index] == _OUTDATED:
            if self._storage.unknown_chunks(chunk, chunk + 1):
                return UNKNOWN
            digest = self._compute(chunk)
            if digest == UNKNOWN:
                return digest  # it is found again when no tag is lost any more, of which nobody tells
            page.states[index] = _DIGEST if digest else _UNWRITTEN
            page.digests[at:at + DIGEST_SIZE] = digest or bytes(DIGEST_SIZE)
        return bytes(page.digests[at:at + DIGEST_SIZE]) if page.states[index] == _DIGEST else b""

    def _compute(self, chunk: int) -> bytes:
        first, count = self.run_of(chunk)
        tags = self._storage.tags(first, count)  # damage to them is found now
        if self._storage.unknown(first, count):
            return UNKNOWN
        return hashlib.blake2b(tags, digest_size=DIGEST_SIZE).digest() if any(tags) else b""

    def listed(self, first: int, count: int) -> dict[int, bytes]:
        """Those of the chunks [first, first + count) that are not b""."""
        digests: dict[int, bytes] = {}
        chunk = self._storage.next_chunk(first)
        while chunk is not None and chunk < first + count:
            if digest := self.of(chunk):
                digests[chunk] = digest
            chunk = self._storage.next_chunk(chunk + 1)
        return digests

    def prepare(self, first: int, count: int) -> int:
        """Of how many chunks from `first` on, at most `count`, the digest is there, or nothing is known; up to BUDGET
        are computed."""
        computed = 0
        chunk = self._storage.next_chunk(first)
        while chunk is not None and chunk < first + count:
            page = self._pages.get(chunk // _PAGE)
            outdated = page is None or page.states[chunk % _PAGE] == _OUTDATED
            if outdated and not self._storage.unknown_chunks(chunk, chunk + 1):
                if computed == BUDGET:
                    return chunk - first
                computed += 1
                self.of(chunk)
            chunk = self._storage.next_chunk(chunk + 1)
        return count

    def answer(self, rank: int, query: DigestQuery) -> Digests:
        """What the node `rank`, whose tags these are, says; of fewer chunks than it was asked for, perhaps.

        Whoever learns relies on it that what is not listed was never written (see Digests). So an answer ends where
        something begins that is not known here.
        """
        first, count = query.first, query.count
        unknown = self._storage.unknown_chunks(first, first + count)
        if unknown is not None and unknown[0] == first:
            return Digests(rank, query.rid, first, 1, min(unknown[1], self.chunks), {first: UNKNOWN})
        count = self.prepare(first, count if unknown is None else unknown[0] - first)
        listed = self.listed(first, count)
        end = first + count
        if end == self.chunks or listed.get(end - 1) == UNKNOWN:
            return Digests(rank, query.rid, first, count, end, listed)
        written = self._storage.next_chunk(end)
        following = self.chunks if written is None else written
        unknown = self._storage.unknown_chunks(end, following)
        return Digests(rank, query.rid, first, count, following if unknown is None else unknown[0], listed)
