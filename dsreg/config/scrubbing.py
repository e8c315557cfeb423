"""How often a node verifies all of its copy: `scrub_days`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from dsreg.constants import DEFAULT_SCRUB_DAYS, MAX_SCRUB_DAYS


def scrub_days_of(cluster: Mapping[str, Any], fault: Callable[[str], None]) -> float:
    """By the section [cluster]; `fault` is told what is wrong with it."""
    days = cluster.get("scrub_days", DEFAULT_SCRUB_DAYS)
    if isinstance(days, bool) or not isinstance(days, int | float) or not 0 <= days <= MAX_SCRUB_DAYS:
        fault(f"[cluster] scrub_days must be a number of days from 0 (never) to {MAX_SCRUB_DAYS}")
        return 0.0
    return float(days)
