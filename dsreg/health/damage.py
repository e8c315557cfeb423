"""What the nodes say of damage to their copies, for people: docs/scrub.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dsreg.health.answers import NodeAnswer

_KINDS = ("value", "tag", "contradiction")


def damage_of(answer: NodeAnswer) -> Mapping[str, Any]:
    """{} if the node does not answer, or is of a version that does not say."""
    damage = answer.report.get("damage") if answer.report is not None else None
    return damage if isinstance(damage, dict) else {}


def found_by(answer: NodeAnswer) -> int:
    """Sectors that it has found damaged since its start."""
    return sum(damage_of(answer).get(kind, 0) for kind in _KINDS)


def still_open(answer: NodeAnswer) -> int:
    """Of these, those that are not repaired."""
    return int(damage_of(answer).get("open", 0))


def described(found: int, damage: Mapping[str, Any]) -> str:
    """`found`: sectors that were found damaged; `damage`: as STATUS has it, which knows what of it is not repaired."""
    still = int(damage.get("open", 0))
    if not found and not still:
        return "nothing is damaged"
    what = f"{found} damaged sector{'' if found == 1 else 's'} found"
    if not still:
        return f"{what}, repaired"
    sectors = damage.get("sectors", ())
    which = ", ".join(map(str, sectors)) + (", ..." if still > len(sectors) else "")
    more = f"; {number} with two values under one tag" if (number := damage.get("contradictions")) else ""
    return f"{what}, {still} not repaired: {which}{more}"
