"""The metrics of a node, served over HTTP in its own process. Imported only where they are wanted: dsreg.metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from dsreg.health.answers import NodeAnswer
from dsreg.health.checks import examine
from dsreg.health.findings import State
from dsreg.metrics.of_node import NodeFigures, families
from dsreg.metrics.pages import pages
from dsreg.metrics.serving import serve_pages
from dsreg.node.reporting import status_of

if TYPE_CHECKING:
    from dsreg.node.process import Node


async def serve_metrics(
    node: Node, address: tuple[str, int], task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED
) -> None:
    """Until it is cancelled; see serve_pages."""
    served = pages(lambda: families(figures_of(node)), lambda: examine(_state_of(node)))
    await serve_pages({**served, **node.more_pages}, address, task_status, token=node.config.metrics_token)


def figures_of(node: Node) -> NodeFigures:
    """As they are now."""
    interpreter, storage, disk = node.interpreter, node.storage, node.disk
    state = _state_of(node)
    status = state.answers[0].report
    assert status is not None
    return NodeFigures(
        status=status,
        requests=interpreter.requests(),
        unfinished=interpreter.unfinished,
        unfinished_bytes=interpreter.unfinished_bytes,
        syncs=disk.syncs.whole,
        commit_bytes=disk.commit_bytes,
        checkpoints=disk.checkpoints,
        journal_used=storage.journal_used,
        queued_bytes=storage.queued_bytes,
        quorum=node.members.configuring.quorum,
        state=state,
    )


def _state_of(node: Node) -> State:
    """The node alone, by what it would answer now."""
    answer = NodeAnswer(node.config.node, status_of(node))
    return State((answer,), file=str(node.config.cluster.path), alone=True)
