"""Checkpoint: syncs homes and tags, so that a segment of the journal is free again."""

from __future__ import annotations

from collections.abc import Sequence

from dsreg.storage import index_file, journal, tags
from dsreg.storage.directory import Directory
from dsreg.storage.failure import NO_SPACE, Failure
from dsreg.storage.journal import SegmentHeader
from dsreg.storage.pages import Span
from dsreg.storage.tags import TagTable


class Checkpoint:
    """Call `run` once, in any thread, then hand it to finish_checkpoint. Commits go on meanwhile.

    `spans` are all slots of tags changed since the last checkpoint, at a moment when all commits to the segment had
    finished. So home has all its data, and after the two syncs the segment says nothing that is not said
    elsewhere. Tags of commits to the other segment may be among them: those are durable as well.
    """

    __slots__ = ("indexed", "_directory", "_failure", "_header", "_index_of", "_spans")

    def __init__(
        self, directory: Directory, failure: Failure, header: SegmentHeader, spans: Sequence[Span],
        index_of: TagTable | None = None,
    ) -> None:
        """`index_of`: the table, if the file `index` is to be written anew."""
        self.indexed = 0  # slots in the index, if that was written
        self._index_of = index_of
        self._directory = directory
        self._failure = failure
        self._header = header
        self._spans = spans

    def run(self) -> None:
        """Raises SyncFailed, after which the storage is of no use any more."""
        self._failure.check()
        try:
            settle(self._directory, self._spans)
            self._free()
            if self._index_of is not None and write_index(self._directory, self._index_of, self._header.slots):
                self.indexed = self._header.slots
        except OSError as error:
            raise self._failure.fail("checkpoint", error) from error

    def _free(self) -> None:
        file = self._directory.journals[self._header.generation % 2]
        journal.write_header(file, self._directory.salt, self._header)


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
    tags.write(directory.tags, spans)
    directory.tags.fdatasync()
