"""A Prometheus server from Debian watches a cluster with what is in deploy/: `make test-system`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
import yaml

from dsreg.client import Attach
from dsreg.constants import SECTOR_SIZE
from dsreg.volume import EdgeMeter, VolumeOptions, open_volume
from dsreg.volume.serving import serve_metrics
from nbd_frontend.numbers import CommandType, Reply
from tests.fuse.tools import ROOT, wait_until
from tests.metrics.scraping import get, listens
from tests.metrics.test_deployed import PROMETHEUS, RULE_TESTS, RULES, panels
from tests.metrics.test_of_node import scraped
from tests.nbd.client import RawClient
from tests.processes.cluster import Cluster, free_addresses, own_host
from tests.system.prometheus import LIMIT_S, Prometheus, promtool
from tests.test_volume import nodes

pytestmark = [
    pytest.mark.slow,
    pytest.mark.allow_logs("has an empty directory, and serves once"),  # on a busy machine
    pytest.mark.skipif(os.environ.get("DSREG_TEST_SYSTEM") != "1", reason="fetches Prometheus: make test-system"),
]
TOKEN = "a-token-of-this-test-alone"
# A machine that does other things is slow, and what it was slow with counts for five minutes.
OF_THE_MACHINE = ("DsregSlowDisk", "DsregSlowMajority")
# Panels that show nothing as long as all is well, or that there is no cache.
EMPTY = {"Write-back cache"}


# --- promtool -------------------------------------------------------------------------------------
def test_the_rules_do_what_they_are_to_do() -> None:
    assert "SUCCESS" in promtool("check", "rules", RULES)
    assert "SUCCESS" in promtool("test", "rules", RULE_TESTS)


def test_the_configuration_is_taken(tmp_path: Path) -> None:
    assert "SUCCESS" in promtool("check", "config", configuration(tmp_path, {"dsreg-node": ["h:1"], "dsreg-edge": []}))


async def test_the_metrics_of_a_node_are_taken(tmp_path: Path) -> None:
    async with scraped(tmp_path) as seen:
        _, text = await seen.get("/metrics")
    assert "dsreg_sync_duration_seconds_bucket" in text
    promtool("check", "metrics", text=text)


def test_what_promtool_does_not_take_is_a_fault() -> None:
    with pytest.raises(AssertionError, match="no help text"):
        promtool("check", "metrics", text="# TYPE dsreg_x counter\ndsreg_x 1\n")


async def test_the_metrics_of_an_edge_are_taken(nursery: trio.Nursery) -> None:
    meter = EdgeMeter("fuse", ("127.0.0.1", 0))
    port = await nursery.start(serve_metrics, meter)
    async with nodes() as config:
        options = VolumeOptions(config, attach=Attach(name="edge"), is_cached=True, meter=meter)
        async with open_volume(options) as opening:
            await opening.attached()
            async with opening.volume():
                _, text = await get(port, "/metrics")
    nursery.cancel_scope.cancel()
    promtool("check", "metrics", text=text)


# --- a server -------------------------------------------------------------------------------------
def configuration(directory: Path, targets: dict[str, list[str]]) -> Path:
    """That of deploy/prometheus, in seconds in place of minutes, with these targets for each job."""
    token = directory / "token"
    token.write_text(TOKEN)
    token.chmod(0o600)
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    for job in config["scrape_configs"]:
        job["authorization"]["credentials_file"] = str(token)
        [static] = job["static_configs"]
        static["targets"] = targets[job["job_name"]]
    (directory / RULES.name).write_text(re.sub(r"\bfor: \w+", "for: 3s", RULES.read_text()))
    path = directory / "prometheus.yml"
    path.write_text(yaml.safe_dump(config))
    return path


class Watched:
    """Three nodes and an NBD server whose metrics want a token, and a server that shows it."""

    def __init__(self, cluster: Cluster, host: str, edge: tuple[str, int], socket: Path) -> None:
        self.cluster, self.edge, self.socket = cluster, edge, socket
        self.nodes = {rank: (host, 9600 + rank) for rank in cluster.ranks}

    def instance(self, rank: int) -> str:
        host, port = self.nodes[rank]
        return f"{host}:{port}"


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    cluster, host = Cluster(tmp_path / "cluster"), own_host()
    (tmp_path / "token").write_text(TOKEN)
    (tmp_path / "token").chmod(0o600)
    settings = f'[cluster]\nmetrics = "{host}"\nmetrics_token_file = "{tmp_path / "token"}"\n'
    cluster.path.write_text(cluster.path.read_text().replace("[cluster]\n", settings))
    [edge] = free_addresses(1)
    seen = Watched(cluster, host, edge, tmp_path / "nbd.sock")
    command = [sys.executable, "-m", "nbd_frontend.cli", "--config", str(cluster.path), "--socket", str(seen.socket),
               "--metrics", f"{edge[0]}:{edge[1]}"]
    log = (tmp_path / "nbd.log").open("wb")
    try:
        cluster.start()
        server = subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT)
        wait_until(lambda: all(map(listens, (edge, *seen.nodes.values()))), "the metrics are served", LIMIT_S)
        yield seen
        server.terminate()
        server.wait()
    finally:
        log.close()
        cluster.close()
        print((tmp_path / "nbd.log").read_text(errors="replace"))


async def test_a_node_that_goes_is_an_alert_until_it_is_back(watched: Watched, tmp_path: Path) -> None:
    edge = f"{watched.edge[0]}:{watched.edge[1]}"
    instances = [watched.instance(rank) for rank in (1, 2, 3)]
    config = configuration(tmp_path, {"dsreg-node": instances, "dsreg-edge": [edge]})
    with Prometheus(config, tmp_path) as prometheus:
        client = RawClient(await trio.open_unix_socket(str(watched.socket)))
        assert (await client.go()).kind == Reply.ACK
        for number in range(100):
            assert (await client.call(CommandType.WRITE, number * SECTOR_SIZE, data=b"p" * SECTOR_SIZE)).error == 0
        written = 'sum(dsreg_edge_request_bytes_total{job="dsreg-edge",edge="nbd",operation="write"})'
        wait_until(lambda: prometheus.value(written) == 100 * SECTOR_SIZE, "the edge is scraped", LIMIT_S)
        wait_until(lambda: prometheus.is_scraped(*instances, edge), "all are scraped", LIMIT_S)
        wait_until(lambda: prometheus.value("dsreg:spare_nodes") == 1, "the recorded figure", LIMIT_S)
        wait_until(lambda: not prometheus.firing(OF_THE_MACHINE), "all is well", LIMIT_S)
        check_dashboard(prometheus)

        watched.cluster.kill(3)
        down = {"DsregNodeDown": [watched.instance(3)], "DsregNoSpareNode": [""]}
        wait_until(lambda: prometheus.firing(OF_THE_MACHINE) == down, "the alerts", LIMIT_S)
        assert prometheus.value("dsreg:spare_nodes") == 0
        assert (await client.call(CommandType.WRITE, 0, data=b"q" * SECTOR_SIZE)).error == 0, "the disk goes on"
        assert prometheus.value("sum(dsreg_client_connected)") == 2

        watched.cluster.start(3)
        wait_until(lambda: not prometheus.firing(OF_THE_MACHINE), "it is back, and has everything", LIMIT_S)
        assert prometheus.value("dsreg:spare_nodes") == 1
        await client.stream.aclose()


def check_dashboard(prometheus: Prometheus) -> None:
    """Each panel has something to show, and asks nothing that Prometheus does not understand."""
    def shows(panel: dict[str, list[dict[str, str]]]) -> bool:
        asked = [target["expr"].replace("$cluster", "main").replace("$__rate_interval", "30s")
                 for target in panel["targets"]]
        return any([prometheus.query(expression) for expression in asked])

    for panel in panels():
        if panel["type"] != "row" and panel["title"] not in EMPTY:
            wait_until(lambda panel=panel: shows(panel), f"the panel {panel['title']!r}", LIMIT_S)  # type: ignore[misc]
