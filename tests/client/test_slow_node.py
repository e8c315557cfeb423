"""Nodes that are slow to answer a HELLO, as all are on a machine that has too much to do."""

from __future__ import annotations

from collections.abc import Callable

import trio

from dsreg.client import Client
from dsreg.link.client_line import HELLO_S
from tests.client.fake_node import FakeCluster
from tests.client.test_client import all_connected, nodes

__all__ = ["nodes"]


async def test_one_silence_is_not_worth_a_warning(nodes: FakeCluster) -> None:
    """A warning would fail this test."""
    nodes.nodes[0].behaviour.silent = 1
    with trio.fail_after(60):
        async with Client(nodes.config) as client:
            await all_connected(client)


async def test_a_slow_node_is_waited_for_longer_each_time(
    nodes: FakeCluster, allow_logs: Callable[[str], None]
) -> None:
    """One that always needs longer than the first time-out is used in the end."""
    allow_logs("does not answer the HELLO")
    nodes.nodes[0].behaviour.late_s = 1.4 * HELLO_S
    with trio.fail_after(60):
        async with Client(nodes.config) as client:
            await all_connected(client)
