"""`dsreg node` once its port is bound: runs the node. Apart from node.py, as its imports take longer than a bind."""

from __future__ import annotations

import logging
import signal
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from typing import TYPE_CHECKING, Any

import trio

from dsreg.cli.notify import notify
from dsreg.config import NodeConfig
from dsreg.constants import DRAIN_S
from dsreg.node import run_register_process

if TYPE_CHECKING:
    from dsreg.metrics.http import Make
    from dsreg.node.process import Node

# The process must be gone 5 s after SIGTERM. A drain that ends in time takes DRAIN_S; one that hangs is
# given up after this, which is safe at any point: nothing was acknowledged that is not on disk.
_STOP_LIMIT_S = DRAIN_S + 0.7

_log = logging.getLogger("dsreg.node")


def run(config: NodeConfig, listeners: list[socket.socket]) -> None:
    """Run the node until SIGTERM or SIGINT. Raises what run_register_process raises."""
    trio.run(_run, config, listeners)


class _Ready(trio.TaskStatus[Any]):
    """Passes the node's word that it serves on to whoever started the process."""

    def started(self, value: Any = None) -> None:
        notify("READY=1")


async def _run(config: NodeConfig, listeners: list[socket.socket]) -> None:
    stop = trio.Event()
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            with trio.CancelScope() as limit:
                nursery.start_soon(_stop_on_signal, signals, stop, limit)
                await run_register_process(
                    config, task_status=_Ready(), stop=stop, listeners=listeners, pages=_pages(config))
            if limit.cancelled_caught:
                _log.warning("stopping: operations in progress did not end within %.1f s; their clients have no answer",
                             _STOP_LIMIT_S)
            nursery.cancel_scope.cancel()


def _pages(config: NodeConfig) -> Callable[[Node], Mapping[str, Make]] | None:
    """What is served beside the metrics, where they are."""
    if config.metrics is None:
        return None
    from dsreg.page.serving import pages_of  # wants the packages of the extra `metrics`

    return pages_of


async def _stop_on_signal(signals: AsyncIterator[int], stop: trio.Event, limit: trio.CancelScope) -> None:
    async for number in signals:
        if stop.is_set():
            continue  # said already, as when a terminal and a supervisor both pass on one Ctrl-C
        _log.info("%s: draining", signal.Signals(number).name)
        notify("STOPPING=1")
        limit.deadline = trio.current_time() + _STOP_LIMIT_S
        stop.set()
