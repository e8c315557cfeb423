"""docs/metrics.md names every metric, as it is: of three nodes and of an edge with a cache, which have all of them."""

from __future__ import annotations

import trio

from dsreg.client import Attach
from dsreg.store import Read
from dsreg.volume import EdgeMeter, VolumeOptions, open_volume
from dsreg.volume.serving import serve_metrics
from tests.metrics.reference import Described, documented, served
from tests.metrics.scraping import get, listens, read
from tests.processes import raw
from tests.processes.cluster import TIMEOUT_S, Cluster, own_host, until
from tests.test_volume import ask


async def of_an_edge(cluster: Cluster) -> str:
    """Also its text for strict scrapers is read."""
    meter = EdgeMeter("fuse", ("127.0.0.1", 0))
    options = VolumeOptions(cluster.config, attach=Attach(name="edge"), is_cached=True, meter=meter)
    with trio.fail_after(TIMEOUT_S):
        async with trio.open_nursery() as nursery, open_volume(options) as opening:
            port = await nursery.start(serve_metrics, meter)
            await opening.attached()
            async with opening.volume() as (volume, _):
                await ask(volume, Read(0, 4096))
                _, text = await get(port, "/metrics")
            nursery.cancel_scope.cancel()
    return text


async def of_a_node(host: str) -> str:
    _, text = await get(9601, "/metrics", host=host)
    return text


def test_the_reference_has_all_metrics_as_they_are(cluster: Cluster) -> None:
    host = own_host()
    file = cluster.path.read_text().replace("[cluster]\n", f'[cluster]\nmetrics = "{host}"\n')
    cluster.path.write_text(file)
    cluster.kill(1)
    cluster.start(1)
    until(lambda: listens((host, 9601)), "the metrics are served")
    until(lambda: "dsreg_peer_out_of_sync_bytes{peer=2}" in read((host, 9601)), "the nodes compare what they have")
    with raw.RawClient(cluster.address(1), cluster.config.client_key) as client:
        client.send(client.read_frame(1, 0))
        assert client.response().status == raw.OK
    there: dict[str, Described] = {}
    for text in (trio.run(of_a_node, host), trio.run(of_an_edge, cluster)):
        there.update({metric.name: metric for metric in served(text)})
    named = {metric.name: metric for metric in documented()}
    assert sorted(there) == sorted(named)
    wrong = [metric.row for metric in there.values() if named[metric.name] != metric]
    assert not wrong, "docs/metrics.md is to have these rows:\n" + "\n".join(wrong)
    assert not [name for name, metric in there.items() if not metric.about.endswith(".")]
