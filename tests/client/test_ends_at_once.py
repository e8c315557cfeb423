"""One event ends several runs of one call."""

from __future__ import annotations

import pytest
import trio

from dsreg.client import Client
from dsreg.core.messages import CommandKind
from dsreg.errors import ClientClosed, Outcome
from tests.client.fake_node import FakeCluster
from tests.client.test_client import nodes, sectors

__all__ = ["nodes"]


@pytest.mark.parametrize(("deaf_to", "outcome"), [
    (CommandKind.TAG, Outcome.DID_NOT_HAPPEN), (CommandKind.STORE, Outcome.MAY_HAVE_HAPPENED)])
async def test_a_long_write_when_the_client_is_closed(
    nodes: FakeCluster, deaf_to: CommandKind, outcome: Outcome
) -> None:
    for node in nodes.nodes:
        node.behaviour.deaf_to = frozenset({deaf_to})
    errors: list[ClientClosed] = []

    async def write(client: Client) -> None:
        with pytest.raises(ClientClosed) as caught:
            await client.write(0, sectors(700))
        errors.append(caught.value)

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            async with Client(nodes.config) as client:
                nursery.start_soon(write, client)
                for node in nodes.nodes:  # each is the one that is asked first for one of the runs
                    await node.until(1, deaf_to)
    assert errors[0].outcome is outcome
