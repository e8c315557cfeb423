"""Lets the storage have journals so small that a hundred writes fill them several times."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from dsreg.storage import identity

# The header area and one record of the longest run that the simulator writes fit easily.
SMALLEST_BYTES = 48 * 1024


@contextlib.contextmanager
def use_small_journals() -> Iterator[None]:
    usual = identity.MIN_JOURNAL_BYTES
    identity.MIN_JOURNAL_BYTES = SMALLEST_BYTES
    try:
        yield
    finally:
        identity.MIN_JOURNAL_BYTES = usual
