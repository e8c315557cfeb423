"""One look of `dsreg top` at a cluster: what the nodes answer now and answered before, and what it comes to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import trio

from dsreg.cli.status_json import findings_as_dict
from dsreg.cli.staying import Followed
from dsreg.client import Client
from dsreg.config import ClusterConfig
from dsreg.health.answers import NodeAnswer
from dsreg.health.checks import examine
from dsreg.health.condition import Condition, condition
from dsreg.health.findings import Finding, State
from dsreg.health.in_force import of_members
from dsreg.health.look import Look
from dsreg.health.of_machines import number
from dsreg.health.serving import serves
from dsreg.health.traffic import queue
from dsreg.register.quorum import counted, mask
from dsreg.survey import ask_cluster

# Where the answers take longer than the interval nodes and terminal have this pause all the same.
_LEAST_PAUSE_S = 0.2


@dataclass(frozen=True)
class Round(Look):
    """`before`: of the round before. `fault`: why the configuration that changed meanwhile cannot be used, ""
    otherwise. `unix_s`: when.

    No read is tried: there is a quorum if as many nodes answer, and serve, as are needed.
    """

    config: ClusterConfig
    fault: str
    unix_s: float

    @cached_property
    def answering(self) -> str:
        """How many do, for people."""
        return counted(self.force.quorum, self._serving, "answer")

    @cached_property
    def _serving(self) -> int:
        return mask(answer.node.rank for answer in of_members(self.answers) if serves(answer, self.changed))

    @cached_property
    def findings(self) -> Sequence[Finding]:
        has_quorum = self.force.quorum.decided(self._serving)
        return examine(State(self.answers, "" if has_quorum else self.answering, str(self.config.path)))

    @cached_property
    def conditions(self) -> dict[int, Condition]:
        """By rank."""
        members = self.force.members
        return {answer.node.rank: condition(answer, self.changed, members) for answer in self.answers}

    def as_dict(self) -> dict[str, Any]:
        """For --json; rates are null where nothing is known yet."""
        return {
            "time": round(self.unix_s, 3), "config_fault": self.fault, **findings_as_dict(self.findings),
            "epoch": self.attachment.epoch, "attached_by": self.attachment.by,
            "nodes": [self._node(answer) for answer in self.answers],
            "clients": [_rounded(asdict(user)) for user in self.users],
        }

    def _node(self, answer: NodeAnswer) -> dict[str, Any]:
        rank = answer.node.rank
        rates = self.rates.get(rank)
        return {
            "rank": rank, "address": answer.node.address, "answers": answer.report is not None,
            "state": self.conditions[rank].text, "copy": asdict(self.copies[rank]),
            "rates": None if rates is None else _rounded(asdict(rates)), "waiting": queue(answer),
            "sync_s": number(answer.report, "syncs", "median_s"), "uptime_s": number(answer.report, "uptime_s"),
        }


def _rounded(figures: dict[str, Any]) -> dict[str, Any]:
    """To as many digits as mean something."""
    return {key: round(value, 6) if isinstance(value, float) else value for key, value in figures.items()}


async def rounds(
    config: ClusterConfig, timeout_s: float, interval_s: float, show: Callable[[Round], None],
    clock: Callable[[], float], number: float = float("inf"),
) -> None:
    """Look so often, every `interval_s`. `show` is called after each look; `clock`: seconds of Unix time."""
    followed, before, done = Followed(config), tuple[NodeAnswer, ...](), 0
    while done < number:
        async with Client(followed.config) as client:
            while done < number:
                began_s = trio.current_time()
                answers = await ask_cluster(client, followed.config, timeout_s)
                show(Round(answers, before, followed.config, followed.fault, clock()))
                before, done = answers, done + 1
                if done < number:
                    await trio.sleep(max(_LEAST_PAUSE_S, began_s + interval_s - trio.current_time()))
                if followed.changed():
                    break
