"""`dsreg scrub`: have the nodes verify all that they keep, now."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import trio

from dsreg.cli.faults import EXIT_FAILED, leaves
from dsreg.cli.options import chosen_config, config_argument, config_option
from dsreg.cli.progress import progress_bar
from dsreg.client import Client
from dsreg.config import ClusterConfig, NodeAddress
from dsreg.constants import MAX_RANK
from dsreg.errors import ClientError
from dsreg.health.answers import NodeAnswer
from dsreg.health.damage import damage_of, described, found_by, still_open
from dsreg.health.in_force import in_force, of_members
from dsreg.register.quorum import bit, mask, ranks_in
from dsreg.survey import ask_all, ask_cluster
from dsreg.units import size_text

# Between two questions to the nodes, and how long one waits for the answers.
POLL_S = 0.2
ASK_S = 2.0
# A node that does not answer for so long is given up; what is not repaired so long after anything last was, remains.
SILENT_S = 10.0
REPAIR_S = 10.0


@dataclass(slots=True)
class _Node:
    """`fault`: why it was given up. `number`: of the pass that it was asked for, in its run `incarnation`."""

    node: NodeAddress
    found_before: int = 0
    number: int = 0
    incarnation: int = 0
    fault: str = ""
    heard_s: float = 0.0
    answer: NodeAnswer | None = None

    @property
    def scrub(self) -> dict[str, Any]:
        report = self.answer.report if self.answer is not None else None
        return report["scrub"] if report is not None else {}

    @property
    def is_through(self) -> bool:
        return bool(self.fault) or self.scrub.get("done", -1) >= self.number > 0

    @property
    def verified(self) -> int:
        """Bytes, of the pass that counts."""
        if self.is_through:
            return int(self.scrub.get("done_bytes", 0))
        return int(self.scrub["verified_bytes"]) if self.scrub.get("number") == self.number else 0

    @property
    def open(self) -> int:
        return still_open(self.answer) if self.answer is not None and not self.fault else 0

    def told(self) -> str:
        """For people, when all is done."""
        if self.fault:
            return f"node {self.node.rank}: not verified: {self.fault}"
        assert self.answer is not None
        found = max(0, found_by(self.answer) - self.found_before)
        said = f"{size_text(self.verified)} verified, {described(found, damage_of(self.answer))}"
        if chunks := self.scrub.get("done_not_compared"):
            said += f"; {chunks} MiB could not be compared with another node"
        return f"node {self.node.rank}: {said}"


@click.command()
@config_argument
@config_option
@click.option("--rank", type=click.IntRange(1, MAX_RANK), help="Only this node.")
@click.pass_obj
def scrub(warnings: list[str], file: Path | None, config_path: Path | None, rank: int | None) -> None:
    """Have all nodes verify now what they keep, on their disks, compare it with each other, and repair it.

    Every sector is read and checked against its checksum. What is damaged is taken from the other nodes. Clients come
    first: while they use the disk it takes longer. Ctrl-C ends the waiting; the nodes go on.

    Exits with 0 if nothing was damaged, or all of it is repaired; with 1 if damage remains, or a node was not verified.
    """
    config = chosen_config(config_path, file)
    if rank is not None:
        config.node(rank)
    try:
        nodes = trio.run(_scrub, config, rank)
    except BaseException as error:
        if any(isinstance(leaf, KeyboardInterrupt) for leaf in leaves(error)):
            click.echo("the nodes go on; `dsreg status` shows what they find", err=True)
        raise
    warnings.clear()  # of the client: what is wrong is in what is printed
    for each in nodes:
        click.echo(each.told(), err=bool(each.fault))
    if any(each.fault or each.open for each in nodes):
        sys.exit(EXIT_FAILED)


async def _scrub(config: ClusterConfig, rank: int | None) -> list[_Node]:
    """All that is to be verified, when that is done."""
    async with Client(config) as client:
        answers = await ask_cluster(client, config, ASK_S)
        nodes = nodes_to_verify(config, answers) if rank is None else [_only(config, answers, rank)]
        await _ask(client, nodes)
        async with trio.open_nursery() as nursery:
            for each in nodes:
                if not each.fault:
                    nursery.start_soon(_begin, client, each)
        total = sum(each.scrub.get("total_bytes", 0) for each in nodes)
        done = 0
        async with progress_bar("scrubbing", total) as advance:
            while not all(each.is_through for each in nodes):
                await trio.sleep(POLL_S)
                await _ask(client, nodes)
                verified = sum(each.verified for each in nodes)
                advance(max(0, verified - done))
                done = max(done, verified)
        await _repaired(client, nodes)
    return nodes


def nodes_to_verify(config: ClusterConfig, answers: Sequence[NodeAnswer]) -> list[_Node]:
    """The members, by what the nodes say, whatever the file lists."""
    members = of_members(answers)
    unlisted = in_force(answers).members & ~mask(answer.node.rank for answer in members)
    nodes = [_Node(answer.node) for answer in members]
    return nodes + [_Node(NodeAddress(rank, "", 0, Path()), fault=f"it is not in {config.path}, and was not found")
                    for rank in ranks_in(unlisted)]


def _only(config: ClusterConfig, answers: Sequence[NodeAnswer], rank: int) -> _Node:
    force = in_force(answers)
    fault = "" if force.members & bit(rank) else f"it is no member of the cluster ({force.described()})"
    return _Node(config.node(rank), fault=fault)


async def _ask(client: Client, nodes: list[_Node]) -> None:
    """For their status; one that was started anew is to verify from the beginning."""
    asked = [each for each in nodes if not each.fault]
    for each, answer in zip(asked, await ask_all(client, [each.node for each in asked], ASK_S), strict=True):
        now = trio.current_time()
        if answer.report is None:
            if not each.number or now - each.heard_s >= SILENT_S:
                each.fault = f"it does not answer: {answer.fault}"
        elif "scrub" not in answer.report:
            each.fault = "its version cannot"
        else:
            each.heard_s, each.answer = now, answer
            if each.number and answer.report["incarnation"] != each.incarnation:
                await _begin(client, each)


async def _begin(client: Client, each: _Node) -> None:
    assert each.answer is not None and each.answer.report is not None
    each.found_before = 0 if each.number else found_by(each.answer)  # it counts from its start
    each.incarnation = each.answer.report["incarnation"]
    try:
        each.number = await client.scrub(each.node.rank, ASK_S) or 0
    except ClientError as error:
        each.fault = f"it does not answer: {error.reason}"


async def _repaired(client: Client, nodes: list[_Node]) -> None:
    """Until nothing is open any more, or nothing was repaired for some time."""
    least = sum(each.open for each in nodes)
    until_s = trio.current_time() + REPAIR_S
    while least and trio.current_time() < until_s:
        await trio.sleep(POLL_S)
        await _ask(client, nodes)
        still = sum(each.open for each in nodes)
        if still < least:
            until_s = trio.current_time() + REPAIR_S
        least = min(least, still)
