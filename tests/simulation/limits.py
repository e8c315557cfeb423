"""Lets a node have journals so small that a hundred writes fill them several times, and promise few tags at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from dsreg.register import tag_allocator as naming
from dsreg.storage import identity

# The header area and one record of the longest run that the simulator writes fit easily.
SMALLEST_BYTES = 48 * 1024


@contextlib.contextmanager
def use_small_limits(promise_step: int) -> Iterator[None]:
    usual = identity.MIN_JOURNAL_BYTES, naming.PROMISE_STEP
    identity.MIN_JOURNAL_BYTES, naming.PROMISE_STEP = SMALLEST_BYTES, promise_step
    try:
        yield
    finally:
        identity.MIN_JOURNAL_BYTES, naming.PROMISE_STEP = usual
