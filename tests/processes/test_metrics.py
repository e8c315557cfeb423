"""Metrics of nodes as they are started by the command line."""

from __future__ import annotations

import socket

from dsreg.client import BlockingClient
from tests.metrics.scraping import listens, read, summed
from tests.processes.cluster import TIMEOUT_S, Cluster, free_addresses, own_host, until


def test_nodes_tell_of_each_other(make_cluster: type[Cluster]) -> None:
    cluster = make_cluster()
    addresses = dict(zip(cluster.ranks, free_addresses(3), strict=True))
    for rank, (host, port) in addresses.items():
        cluster.start(rank, options=("--metrics", f"{host}:{port}"))
    until(lambda: all(map(listens, addresses.values())), "the metrics are served")
    until(lambda: all(read(each)["dsreg_in_sync"] for each in addresses.values()), "all have what the others have")
    found = [read(address) for address in addresses.values()]
    spare = sum(each["dsreg_in_sync"] for each in found) - max(each["dsreg_quorum_needed"] for each in found)
    assert spare == 1, "as the runbook has it"
    assert all(summed(each, "dsreg_peer_link") == 2 for each in found), "one state of each link"
    assert all(each["process_resident_memory_bytes"] > 1 << 20 for each in found)
    cluster.kill(3)
    until(lambda: summed(read(addresses[1]), "dsreg_health") >= 1, "the link to the node that is down")


def test_the_configuration_picks_a_port_for_each_node(make_cluster: type[Cluster]) -> None:
    """A port that somebody else has is said, and costs the node its metrics and nothing else."""
    cluster, host = make_cluster(), own_host()
    cluster.path.write_text(cluster.path.read_text().replace("[cluster]\n", f'[cluster]\nmetrics = "{host}"\n'))
    with socket.create_server((host, 9603)):
        cluster.start()
        until(lambda: listens((host, 9601)) and listens((host, 9602)), "the metrics are served")
        assert [read((host, 9600 + rank))["dsreg_quorum_needed"] for rank in (1, 2)] == [2, 2]
        until(lambda: b"no metrics are served" in cluster.log(3).read_bytes(), "the node says it")
        with BlockingClient(cluster.config, TIMEOUT_S) as client:
            client.write(0, bytes(range(256)) * 16)
        assert cluster.report(3)["rank"] == 3
    assert f"no metrics are served on {host}:9603: Address already in use" in cluster.log(3).read_text()
