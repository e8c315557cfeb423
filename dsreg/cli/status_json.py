"""`dsreg status --json`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from dsreg.config import ClusterConfig
from dsreg.health.checks import by_check, worst
from dsreg.health.findings import Finding, Severity
from dsreg.health.in_force import as_dict as configuration_as_dict
from dsreg.health.in_force import in_force
from dsreg.health.in_sync import can_lose, copies
from dsreg.health.serving import changed_directories, why_no_space
from dsreg.survey import Survey

# What the whole is, by the worst that was found.
HEALTH = {Severity.NOTICE: "well", Severity.WARNING: "degraded", Severity.CRITICAL: "critical"}


def findings_as_dict(found: Sequence[Finding]) -> dict[str, Any]:
    """`findings`: all, the worst first; `checks`: by name what the worst is that each has found, "" if nothing is."""
    return {
        "health": HEALTH[worst(found)],
        "findings": [{**asdict(finding), "severity": finding.severity.name.lower()} for finding in found],
        "checks": {name: Severity(severity).name.lower() if severity >= 0 else ""
                   for name, severity in by_check(found).items()},
    }


def as_dict(config: ClusterConfig, survey: Survey) -> dict[str, Any]:
    """All that is known, for --json."""
    changed, found = changed_directories(survey.answers), survey.findings(config)
    progress, force = copies(survey.answers), in_force(survey.answers)
    nodes = [
        {"address": answer.node.address, "answers": answer.report is not None, "fault": answer.fault,
         **(answer.report or {}), "rank": answer.node.rank, "directory_fault": changed.get(answer.node.rank, ""),
         "copy": asdict(progress[answer.node.rank])}
        for answer in survey.answers
    ]
    return {"sectors": force.sectors or config.sectors, "nodes": nodes, "answering": survey.answering,
            "can_lose": can_lose(survey.answers),
            "configuration": configuration_as_dict(force), "needed": force.quorum.needed, "quorum": survey.quorum,
            "fault": survey.fault,
            "no_space": survey.quorum and bool(why_no_space(survey.answers)),
            **findings_as_dict(found),
            "epoch": survey.attachment.epoch, "attached_by": survey.attachment.by}
