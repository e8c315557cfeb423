"""What the nodes of a cluster answer when they are asked for their state, and whether there is a quorum."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import trio

from dsreg.client import Client
from dsreg.config import ClusterConfig, NodeAddress
from dsreg.errors import ClientError, OperationTimeout, Outcome, is_config_fault
from dsreg.health.answers import NodeAnswer
from dsreg.health.attached import Attachment, attachment_of
from dsreg.health.checks import examine
from dsreg.health.findings import Finding, State
from dsreg.health.in_force import in_force, of_members
from dsreg.health.of_machines import slow_node
from dsreg.health.serving import changed_directories, reached, serves
from dsreg.register.quorum import bit, counted

# So often a node that seems slow is asked again: three late answers in a row are not a scheduler that was busy.
SLOW_AGAIN = 2


@dataclass(frozen=True, slots=True)
class Survey:
    """What the nodes answered, by rank. `error`: why a read of sector 0 did not go through; None if it did."""

    answers: tuple[NodeAnswer, ...]
    error: ClientError | None = None

    @property
    def quorum(self) -> bool:
        return self.error is None

    @property
    def fault(self) -> str:
        return "" if self.error is None else self.error.reason

    @property
    def answering(self) -> int:
        changed = changed_directories(self.answers)
        return sum(serves(answer, changed) for answer in of_members(self.answers))

    def findings(self, config: ClusterConfig) -> tuple[Finding, ...]:
        # What is wrong here all nodes say alike.
        answers = () if is_config_fault(self.error) else self.answers
        return examine(State(answers, self.fault, str(config.path)))

    @property
    def attachment(self) -> Attachment:
        return attachment_of(answer.report for answer in self.answers if answer.report is not None)


async def ask_one(client: Client, node: NodeAddress, timeout_s: float) -> NodeAnswer:
    """What this node answers, or why it does not; where it is, if others have said that it is not where the file has
    it."""
    try:
        report = await client.status(node.rank, timeout_s=timeout_s)
        return NodeAnswer(_where(client, node), report)
    except ClientError as error:
        node = _where(client, node)
        if complaint := client.complaint(node.rank):
            return NodeAnswer(node, None, complaint, refuses=True)
        return NodeAnswer(node, None, await _why_silent(node, error, timeout_s))


def _where(client: Client, node: NodeAddress) -> NodeAddress:
    host, port = client.place(node.rank)
    return replace(node, host=host, port=port)


async def survey(client: Client, config: ClusterConfig, timeout_s: float) -> Survey:
    """Ask all nodes, and try to read. Those that seem slow are asked again: one late answer says nothing."""
    error: ClientError | None = None

    async def read() -> None:
        nonlocal error
        error = await try_read(client, timeout_s)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        answers = await quickest(client, await ask_cluster(client, config, timeout_s), timeout_s)
    return Survey(answers, error)


async def survey_quietly(
    client: Client, config: ClusterConfig, timeout_s: float, read_timeout_s: float
) -> Survey:
    """The same, for who asks again and again, by a client of its own each time: the read comes after the answers, in
    which it is not seen, and only if so many nodes are in reach, so that nodes without a quorum are not left with it.
    """
    answers = await quickest(client, await ask_cluster(client, config, timeout_s), timeout_s)
    quorum = in_force(answers).quorum
    if quorum.decided(reached(answers)):
        return Survey(answers, await try_read(client, read_timeout_s))
    few = counted(quorum, reached(answers), "are in reach")
    return Survey(answers, OperationTimeout(few, Outcome.DID_NOT_HAPPEN))


async def try_read(client: Client, timeout_s: float) -> ClientError | None:
    """Why no majority can be read; None if one can."""
    with trio.move_on_after(timeout_s):
        try:
            await client.read(0, 1)
            return None
        except ClientError as raised:
            return raised
    return OperationTimeout(f"no majority answered a read within {timeout_s:g} s", Outcome.DID_NOT_HAPPEN)


async def quickest(client: Client, answers: tuple[NodeAnswer, ...], timeout_s: float) -> tuple[NodeAnswer, ...]:
    """The same, but of nodes that seem slow the quickest of some answers."""
    found = {answer.node.rank: answer for answer in answers}
    for _ in range(SLOW_AGAIN):
        slow = [found[rank] for finding in slow_node(State([*found.values()])) for rank in finding.ranks]
        for before, again in zip(slow, await ask_all(client, [each.node for each in slow], timeout_s), strict=True):
            if again.report and before.report and again.report["round_trip_s"] < before.report["round_trip_s"]:
                found[again.node.rank] = again
    return tuple(found.values())


async def ask_cluster(
    client: Client, config: ClusterConfig, timeout_s: float, only: int | None = None
) -> tuple[NodeAnswer, ...]:
    """What the nodes of the file answer, and those that the client was told of besides. `only`: a mask."""
    nodes = [node for node in config.nodes if only is None or only & bit(node.rank)]
    answers = [*await ask_all(client, nodes, timeout_s)]
    found = [rank for rank in client.ranks if rank not in config.ranks and (only is None or only & bit(rank))]

    async def ask(rank: int) -> None:
        node = NodeAddress(rank, *client.place(rank), Path())
        try:
            answers.append(NodeAnswer(node, await client.status(rank, timeout_s)))
        except ClientError as error:
            complaint = client.complaint(rank)
            answers.append(NodeAnswer(node, None, complaint or error.reason, refuses=bool(complaint)))

    async with trio.open_nursery() as nursery:
        for rank in found:
            nursery.start_soon(ask, rank)
    return tuple(sorted(answers, key=lambda answer: answer.node.rank))


async def ask_all(client: Client, nodes: Sequence[NodeAddress], timeout_s: float) -> tuple[NodeAnswer, ...]:
    """What these nodes answer, all asked at once."""
    answers: dict[int, NodeAnswer] = {}

    async def ask(node: NodeAddress) -> None:
        answers[node.rank] = await ask_one(client, node, timeout_s)

    async with trio.open_nursery() as nursery:
        for node in nodes:
            nursery.start_soon(ask, node)
    return tuple(answers[rank] for rank in sorted(answers))


async def _why_silent(node: NodeAddress, error: ClientError, timeout_s: float) -> str:
    """What a plain connection to the node says about its silence."""
    try:
        with trio.fail_after(timeout_s):
            await (await trio.open_tcp_stream(node.host, node.port)).aclose()
    except trio.TooSlowError:
        return "no connection in time"
    except (OSError, ExceptionGroup) as refusal:
        return _reason(refusal)
    return f"connects, but: {error.reason}"


def _reason(error: OSError | ExceptionGroup[Exception]) -> str:
    """trio names only the address in its message; what the kernel said is below it."""
    cause = error.__cause__
    if isinstance(cause, OSError | ExceptionGroup):
        return _reason(cause)
    if isinstance(error, ExceptionGroup):
        inner = error.exceptions[0]
        return _reason(inner) if isinstance(inner, OSError | ExceptionGroup) else str(inner)
    if error.errno and not isinstance(error, socket.gaierror):
        return os.strerror(error.errno).lower()
    return (error.strerror or str(error)).lower()
