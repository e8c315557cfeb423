"""One node of ours in a cluster whose other nodes speak only the contract, and are slow, lossy or touchy."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
import trio

from dsreg.client import Attach, Client
from dsreg.errors import AttachRefused
from tests.processes.cluster import ROOT, TIMEOUT_S, Cluster
from tests.processes.contract_node import ContractNode
from tests.processes.raw import READ_PROC, WRITE_PROC, PeerMessage, RawClient

RUN = 256


class Mixed:
    """Of three nodes some are ours. `start` makes the others, with the options of a ContractNode."""

    def __init__(self, cluster: Cluster, stack: ExitStack) -> None:
        self.cluster = cluster
        self.peers: list[ContractNode] = []
        self._stack = stack

    def start(self, *ours: int, **options: object) -> list[ContractNode]:
        """`ours`: the ranks of our nodes; none given: 1."""
        cluster, ours = self.cluster, ours or (1,)
        for rank in set(cluster.ranks).difference(ours):
            peer = ContractNode(
                rank, cluster.address(rank), cluster.address(1), cluster.config.system_key,
                client_key=cluster.config.client_key, **options,  # type: ignore[arg-type]
            )
            self._stack.callback(self._end, peer)
            self.peers.append(peer)
        cluster.start(*ours)
        return self.peers

    def _end(self, peer: ContractNode) -> None:
        peer.close()
        if self.cluster.processes:
            self.cluster.kill()
        peer.join()


@pytest.fixture
def mixed(make_cluster: Callable[..., Cluster]) -> Iterator[Mixed]:
    with ExitStack() as stack:
        yield Mixed(make_cluster(), stack)


async def write_and_read(mixed: Mixed, data: bytes) -> None:
    with trio.fail_after(4 * TIMEOUT_S):
        async with Client(mixed.cluster.only(1)) as client:
            await client.write(0, data)
            assert await client.read(0, len(data) // 4096) == data


async def test_of_a_run_only_what_is_not_answered_is_sent_again(mixed: Mixed, rng: random.Random) -> None:
    """Both peers leave one of 256 sectors unanswered twice."""

    def is_ignored(message: PeerMessage, times: int) -> bool:
        return message.sector == 17 and times <= 2

    peers = mixed.start(is_ignored=is_ignored)
    await write_and_read(mixed, rng.randbytes(RUN * 4096))
    assert max(times for peer in peers for times in peer.times.values()) >= 3, "sector 17"
    for peer in peers:
        assert peer.faults == []
        # Each pause of this machine may bring 32 more.
        assert peer.count(READ_PROC) < 4 * RUN
        assert peer.count(WRITE_PROC) < 2 * RUN


async def test_a_slow_contract_node_gets_a_run_once(mixed: Mixed, rng: random.Random) -> None:
    peers = mixed.start(answer_s=0.005)
    await write_and_read(mixed, rng.randbytes(RUN * 4096))
    for peer in peers:
        print(f"node {peer.rank}: {peer.count(READ_PROC)} READ_PROC, {peer.count(WRITE_PROC)} WRITE_PROC")
        assert peer.count(WRITE_PROC) < 2 * RUN


def test_a_peer_that_hangs_up_on_receipts_gets_no_more_of_them(mixed: Mixed, rng: random.Random) -> None:
    """Nor is it greeted each time that it hangs up."""
    cluster = mixed.cluster
    peers = mixed.start()
    for peer in peers:
        peer.hangs_up_on_receipts = True
    with RawClient(cluster.address(1), cluster.config.client_key) as client:
        for sector in range(100):
            data = rng.randbytes(4096)
            client.write(sector, data)
            assert client.read(sector) == data
    for peer in peers:
        assert peer.faults == []
        # Two, and some more should this machine pause so that the end of a connection is seen late.
        assert 1 <= len(peer.receipts) <= 8
        assert peer.connections <= 12
        assert peer.greetings <= 3


# --- attaching ------------------------------------------------------------------------------------
async def refusal(mixed: Mixed) -> AttachRefused:
    """What attaching ends with."""
    async with Client(mixed.cluster.config, attach=Attach(name="a test")) as client:
        with trio.fail_after(TIMEOUT_S):
            with pytest.raises(AttachRefused) as caught:
                await client.attached()
    return caught.value


async def until_linked_to_contract_node(mixed: Mixed, *ours: int) -> None:
    """Until each of these nodes is linked to node 3. A client that attaches before that is not refused, which is safe:
    a node that has promised an epoch ignores what speaks only the contract."""
    with trio.fail_after(TIMEOUT_S):
        async with Client(mixed.cluster.only(*ours)) as client:
            for rank in ours:
                link = "down"
                while link not in ("silent", "contract"):
                    link = (await client.status(rank, TIMEOUT_S))["peers"]["3"]


@pytest.mark.allow_logs("does not speak the extension of the protocol")
async def test_where_a_majority_speaks_only_the_contract_attaching_is_refused(
    mixed: Mixed, rng: random.Random
) -> None:
    mixed.start()
    refused = await refusal(mixed)
    assert refused.reason.startswith("nodes 2 and 3 speak only the contract, which leaves no majority of the 3 nodes")
    data = rng.randbytes(4096)
    async with Client(mixed.cluster.config) as client:
        with trio.fail_after(TIMEOUT_S):
            await client.write(3, data)
            assert await client.read(3) == data


@pytest.mark.allow_logs("does not speak the extension of the protocol")
async def test_where_one_node_speaks_only_the_contract_attaching_is_refused(mixed: Mixed) -> None:
    mixed.start(1, 2)
    await until_linked_to_contract_node(mixed, 1, 2)
    refused = await refusal(mixed)
    assert refused.reason.startswith("a node of the cluster speaks only the contract")


def test_status_is_not_green_where_fewer_nodes_than_a_majority_answer(mixed: Mixed) -> None:
    mixed.start()
    with RawClient(mixed.cluster.address(1), mixed.cluster.config.client_key) as client:
        client.read(0)  # node 1 is linked to the others
    command = [sys.executable, "-P", "-m", "dsreg"]
    table, checked = [
        subprocess.Popen(
            [*command, verb, str(mixed.cluster.path), "--timeout", "10"], stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        for verb in ("status", "health")
    ]
    shown, _ = table.communicate(timeout=2 * TIMEOUT_S)
    assert "does not speak the extension of the protocol" in " ".join(shown.split())
    assert "quorum: this host reaches only 1 of 3 nodes" in shown and "are needed" not in shown
    line, _ = checked.communicate(timeout=2 * TIMEOUT_S)
    assert checked.returncode == 1 and line.startswith("degraded: 1 of 3 nodes answer"), line
