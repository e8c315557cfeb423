"""`dsreg status --json`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from dsreg.cli.health import changed_directories, why_no_space
from dsreg.cli.in_force import as_dict as configuration_as_dict
from dsreg.cli.in_force import in_force
from dsreg.cli.in_sync import can_lose, copies
from dsreg.cli.survey import Survey
from dsreg.config import ClusterConfig


def as_dict(config: ClusterConfig, survey: Survey) -> dict[str, Any]:
    """All that is known, for --json."""
    changed = changed_directories(survey.answers)
    progress, force = copies(survey.answers), in_force(survey.answers)
    nodes = [
        {"address": answer.node.address, "answers": answer.report is not None, "fault": answer.fault,
         **(answer.report or {}), "rank": answer.node.rank, "directory_fault": changed.get(answer.node.rank, ""),
         "copy": asdict(progress[answer.node.rank])}
        for answer in survey.answers
    ]
    return {"sectors": config.sectors, "nodes": nodes, "answering": survey.answering,
            "can_lose": can_lose(survey.answers),
            "configuration": configuration_as_dict(force), "needed": force.quorum.needed, "quorum": survey.quorum,
            "fault": survey.fault,
            "no_space": survey.quorum and bool(why_no_space(survey.answers)),
            "epoch": survey.attachment.epoch, "attached_by": survey.attachment.by}
