"""Lines that change or lose every seventh kilobyte: there is progress, and no less than by the contract alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.processes.bad_lines import KINDS, NODES, BadLines, Speech, use_client, use_contract
from tests.processes.cluster import Cluster
from tests.processes.proxy import Network

# They take some seconds each on a quiet machine. With all that is outstanding in one record most would never end.
LIMIT_S = 120.0
# What chance, and a loaded machine, may add to the time of one of two runs.
CHANCE_S = 15.0


@pytest.mark.parametrize("kind", KINDS)
def test_between_nodes_that_choose_what_to_speak(make_cluster: Callable[..., Cluster], seed: int, kind: str) -> None:
    with Network(seed) as network:
        lines = BadLines(make_cluster(nodes=NODES), network, kind)
        print(f"{kind}: {use_contract(lines, LIMIT_S):.1f} s, {lines.connections} connections")
        assert lines.struck()


@pytest.mark.parametrize("kind", KINDS)
async def test_between_nodes_that_have_to_seal(make_cluster: Callable[..., Cluster], seed: int, kind: str) -> None:
    with Network(seed) as network:
        lines = BadLines(make_cluster(nodes=NODES), network, kind, Speech.SEALED)
        taken_s = await use_client(lines.cluster.only(1), LIMIT_S)
        print(f"{kind}: {taken_s:.1f} s, {lines.connections} connections")
        assert lines.struck()


def test_no_slower_than_the_contract_alone(make_cluster: Callable[..., Cluster], seed: int) -> None:
    taken_s: dict[Speech, float] = {}
    for speech in (Speech.OURS, Speech.CONTRACT):
        with Network(seed) as network:
            cluster = make_cluster(nodes=NODES)
            try:
                taken_s[speech] = use_contract(BadLines(cluster, network, "corrupt", speech), LIMIT_S)
            finally:
                cluster.kill()
    print(taken_s)
    assert taken_s[Speech.OURS] <= taken_s[Speech.CONTRACT] + CHANCE_S
