"""Lets a node have journals so small that a hundred writes fill them several times, and promise few tags at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from dsreg.constants import SECTOR_SIZE
from dsreg.register import tag_allocator
from dsreg.storage import identity
from dsreg.storage.journal import RECORD_BYTES, RECORDS_AT

# The header area and one record of the longest run that the simulator's clients write by themselves fit easily.
SMALLEST_BYTES = 48 * 1024


def smallest_journal(run_sectors: int) -> int:
    """Bytes of the smallest segment that has room for a record of so many sectors."""
    return -(-(RECORDS_AT + RECORD_BYTES[run_sectors]) // SECTOR_SIZE) * SECTOR_SIZE


@contextlib.contextmanager
def use_small_limits(promise_step: int) -> Iterator[None]:
    usual = identity.MIN_JOURNAL_BYTES, tag_allocator.PROMISE_STEP
    identity.MIN_JOURNAL_BYTES, tag_allocator.PROMISE_STEP = SMALLEST_BYTES, promise_step
    try:
        yield
    finally:
        identity.MIN_JOURNAL_BYTES, tag_allocator.PROMISE_STEP = usual
