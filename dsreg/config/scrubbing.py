"""How often a node verifies all of its copy: `scrub_days`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from dsreg.constants import DEFAULT_SCRUB_DAYS, MAX_SCRUB_DAYS

SCRUB_DAYS_RULE: Final = f"must be a number of days from 0 (never) to {MAX_SCRUB_DAYS}"


def are_scrub_days(days: Any) -> bool:
    """By the rule; so `nan`, which compares with nothing, is refused."""
    return isinstance(days, int | float) and not isinstance(days, bool) and 0 <= days <= MAX_SCRUB_DAYS


def scrub_days_of(cluster: Mapping[str, Any], fault: Callable[[str], None]) -> float:
    """By the section [cluster]; `fault` is told what is wrong with it."""
    days = cluster.get("scrub_days", DEFAULT_SCRUB_DAYS)
    if not are_scrub_days(days):
        fault(f"[cluster] scrub_days {SCRUB_DAYS_RULE}")
        return 0.0
    return float(days)
