"""A checkpoint: what a journal segment says is brought home for good, and the segment is free again."""

from __future__ import annotations

from collections.abc import Sequence

from dsreg.storage import journal, tags
from dsreg.storage.directory import Directory
from dsreg.storage.failure import Failure
from dsreg.storage.journal import SegmentHeader
from dsreg.storage.pages import Span


class Checkpoint:
    """Call `run` once, in any thread, then hand it to finish_checkpoint. Commits go on meanwhile.

    `spans` are all slots of tags changed since the last checkpoint, at a moment when all commits to the segment had
    finished. So home has all its data, and after the two syncs the segment says nothing that is not said
    elsewhere. Tags of commits to the other segment may be among them: those are durable as well.
    """

    __slots__ = ("_directory", "_failure", "_header", "_spans")

    def __init__(
        self, directory: Directory, failure: Failure, header: SegmentHeader, spans: Sequence[Span]
    ) -> None:
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
        except OSError as error:
            raise self._failure.fail("checkpoint", error) from error

    def _free(self) -> None:
        file = self._directory.journals[self._header.generation % 2]
        journal.write_header(file, self._directory.salt, self._header)


def settle(directory: Directory, spans: Sequence[Span]) -> None:
    """Make home and these slots durable."""
    directory.home.fdatasync()
    tags.write(directory.tags, spans)
    directory.tags.fdatasync()
