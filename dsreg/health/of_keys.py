"""The check of the keys: docs/keys.md."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from dsreg.health.findings import Finding, Severity, State
from dsreg.units import printable

_WHOSE = {"client": "clients", "system": "nodes"}
# So many of those that have yet to change are named.
_NAMED = 4


def keys_changing(state: State) -> Iterator[Finding]:
    """As long as two keys are good somewhere, or nodes use different ones, a change has begun and has to be ended: an
    old key that was given away is of use to others until then."""
    told = {answer.node.rank: answer.report["keys"] for answer in state.answering
            if answer.report is not None and "keys" in answer.report}
    for kind, whose in _WHOSE.items():
        ranks = [rank for rank, keys in told.items() if len(keys[kind]["accepts"]) > 1]
        used = {keys[kind]["uses"] for keys in told.values()}
        if ranks or len(used) > 1:
            others = _others([*told.values()], kind)
            yield Finding(
                "keys_changing", Severity.WARNING, tuple(ranks or told),
                f"the key of the {whose} is being changed"
                + (f"; not under the key of the nodes: {', '.join(others)}" if others else ""),
                f"dsreg keys rotate {state.file}",
            )


def _others(told: list[Mapping[str, Any]], kind: str) -> list[str]:
    found = {
        printable(str(other["peer"])).rpartition(":")[0] or printable(str(other["peer"]))
        for keys in told for other in keys["others"] if other["node"] == (kind == "system") and other["connected"]
    }
    names = sorted(found)
    return names[:_NAMED] + ([f"{len(names) - _NAMED} more"] if len(names) > _NAMED else [])
