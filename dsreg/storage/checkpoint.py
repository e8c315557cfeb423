"""Checkpoint: syncs homes and tags, so that a segment of the journal is free again."""

from __future__ import annotations

from collections.abc import Sequence

from dsreg.storage import index_file, journal, learning, tags_file, zeros_file
from dsreg.storage.directory import Directory
from dsreg.storage.failure import NO_SPACE, Failure
from dsreg.storage.journal import SegmentHeader
from dsreg.storage.learning import Progress
from dsreg.storage.pages import Span
from dsreg.storage.tags import TagTable


class Checkpoint:
    """Call `run` once, in any thread, then hand it to finish_checkpoint. Commits go on meanwhile.

    `spans` are all slots of tags changed since the last checkpoint, at a moment when all commits to the segment had
    finished. So home has all its data, and after the two syncs the segment says nothing that is not said
    elsewhere. Tags of commits to the other segment may be among them: those are durable as well. What was learned by
    then is, too.
    """

    __slots__ = (
        "indexed", "progress", "recorded", "_directory", "_failure", "_header", "_index_of", "_spans", "_zeros",
    )

    def __init__(
        self, directory: Directory, failure: Failure, header: SegmentHeader | None, spans: Sequence[Span],
        index_of: TagTable | None = None, progress: Progress | None = None, zeros: bytes = b"",
    ) -> None:
        """`header`: of the segment to be freed; None: there is none, and `spans` are slots that were
        damaged in the file. `index_of`: the table, if the file `index` is to be written anew. `progress`: what was
        learned, if that is to be written. `zeros`: of the file of that name, if it is."""
        self.indexed = 0  # slots in the index, if that was written
        self.progress = progress
        self.recorded = False  # whether `progress` was written
        self._index_of = index_of
        self._directory = directory
        self._failure = failure
        self._header = header
        self._spans = spans
        self._zeros = zeros

    @property
    def frees(self) -> bool:
        """Whether it frees a segment."""
        return self._header is not None

    def run(self) -> None:
        """Raises SyncFailed, after which the storage is of no use any more."""
        self._failure.check()
        try:
            if self._header is not None or self._spans:
                settle(self._directory, self._spans)
            if self._zeros:
                zeros_file.write(self._directory.zeros, self._zeros, self._directory.salt)
            if self._header is not None:
                self._free(self._header)
                if self._index_of is not None and write_index(self._directory, self._index_of, self._header.slots):
                    self.indexed = self._header.slots
            if self.progress is not None:
                self.recorded = learning.write(self._directory, self.progress)
        except OSError as error:
            raise self._failure.fail("checkpoint", error) from error

    def _free(self, header: SegmentHeader) -> None:
        journal.write_header(self._directory.journals[header.generation % 2], self._directory.salt, header)


def write_index(directory: Directory, table: TagTable, slots: int) -> bool:
    """Of these slots, which are written for good. False: there is no room, and nothing depends on it."""
    try:
        index_file.write(directory.files, directory.tags, table.pages.index, slots, table.lost, directory.salt)
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        return False
    return True


def settle(directory: Directory, spans: Sequence[Span]) -> None:
    """Make home and these slots durable."""
    directory.home.fdatasync()
    tags_file.write(directory.tags, spans)
    directory.tags.fdatasync()
