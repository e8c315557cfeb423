"""What a cache counts."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(slots=True)
class Counts:
    """Since the start. `hits`: reads of what was buffered; `partial_hits`: those of which some was; `misses`: those of
    which nothing was. `flushes`: those that have ended, `failed_flushes` of them with an error. `written_bytes`: those
    that were written back; `failed_runs`: runs that could not be, each time."""

    hits: int = 0
    partial_hits: int = 0
    misses: int = 0
    flushes: int = 0
    failed_flushes: int = 0
    written_bytes: int = 0
    failed_runs: int = 0
