"""From when on requests are logged as slow: `slow_ms`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any


def slow_s(slow_ms: int) -> float:
    """The limit in seconds; inf for none."""
    return slow_ms / 1000 if slow_ms else math.inf


def slow_ms_of(cluster: Mapping[str, Any], fault: Callable[[str], None]) -> int:
    """Milliseconds by the section [cluster], 0 for never; `fault` is told what is wrong with it."""
    limit = cluster.get("slow_ms", 0)
    if not isinstance(limit, int) or isinstance(limit, bool) or limit < 0:
        fault("[cluster] slow_ms must be a whole number of milliseconds, without quotes; 0: nothing is logged as slow")
        return 0
    return limit
