"""The page of a node as it is started by the command line."""

from __future__ import annotations

import base64
import re
import subprocess
import sys
import urllib.error
import urllib.request
from email.message import Message

from dsreg.client import BlockingClient
from tests.page.test_document import Parsed
from tests.processes.cluster import ROOT, TIMEOUT_S, Address, Cluster, free_addresses, until

TOKEN = "0123456789abcdef0123456789abcdef"


def get(address: Address, path: str = "/", **headers: str) -> tuple[int, Message, str]:
    host, port = address
    request = urllib.request.Request(f"http://{host}:{port}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            return answer.status, answer.headers, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read().decode()


def shows(address: Address, *parts: str) -> bool:
    try:
        text = Parsed(get(address)[2]).text
    except OSError:
        return False  # it listens, but not there yet
    return all(part in text for part in parts)


def test_any_node_shows_the_whole_cluster(make_cluster: type[Cluster]) -> None:
    cluster = make_cluster()
    addresses = free_addresses(2)
    for rank, (host, port) in enumerate(addresses, 1):
        cluster.start(rank, options=("--metrics", f"{host}:{port}"))
    cluster.start(3)
    with BlockingClient(cluster.config, TIMEOUT_S) as client:
        client.write(7, bytes(4096))
        well = ("Well", "3 of 3 nodes answer", "1 more node may be lost")
        until(lambda: all(shows(address, *well) for address in addresses), "all is well")
    status, headers, text = get(addresses[0])
    assert status == 200 and headers["Content-Type"] == "text/html; charset=utf-8"
    assert headers["Cache-Control"] == "no-store" and "default-src 'none'" in headers["Content-Security-Policy"]
    assert len(re.findall(r"<th[^>]*>Node [123]", text)) == 6, "nodes, and their scrubs"
    until(lambda: cluster.report(2)["connections"] <= 3, "nobody looks any more: links of two nodes, and who asks")
    cluster.kill(3)
    until(lambda: shows(addresses[1], "Degraded", "connection refused", "start node 3"), "the node is missed")
    cluster.kill(2)
    until(lambda: shows(addresses[0], "Critical", "no quorum: 1 of 3 nodes are in reach, 2 are needed"), "no quorum")
    assert "Nobody who is connected has asked for anything" in Parsed(get(addresses[0])[2]).text
    until(lambda: cluster.report(1)["connections"] <= 1, "nothing is left behind, where nothing can be answered")
    assert "Exception" not in cluster.log(1).read_text()


def test_a_node_that_stands_still_holds_nobody_up_for_long(make_cluster: type[Cluster]) -> None:
    cluster = make_cluster()
    ((host, port),) = free_addresses(1)
    cluster.start(1, options=("--metrics", f"{host}:{port}"))
    cluster.start(2, 3)
    until(lambda: shows((host, port), "Well"), "all is well")
    cluster.pause(3)
    try:
        missed = ("2 of 3 nodes answer", "connects, but: no status from node 3")
        until(lambda: shows((host, port), *missed), "it is missed")
    finally:
        cluster.resume(3)


def test_other_hosts_have_to_show_the_token(make_cluster: type[Cluster]) -> None:
    cluster = make_cluster(nodes=1)
    token = cluster.directory / "metrics.token"
    token.write_text(TOKEN)
    token.chmod(0o600)
    ((host, port),) = free_addresses(1)
    cluster.start(1, options=("--metrics", f"{host}:{port}", "--metrics-token-file", str(token)))
    until(lambda: shows((host, port), "a token is wanted"), "it is served")
    for path in ("/", "/metrics", "/healthz", "/nothing"):
        assert get((host, port), path)[0] == 401
        assert get((host, port), path, Authorization=f"Bearer {TOKEN}x")[0] == 401
    password = base64.b64encode(f"operator:{TOKEN}".encode()).decode()
    until(lambda: "Well" in get((host, port), "/", Authorization=f"Basic {password}")[2], "whoever shows it sees it")
    assert "dsreg_in_sync 1.0" in get((host, port), "/metrics", Authorization=f"Bearer {TOKEN}")[2]


def test_without_a_token_other_hosts_are_refused_at_the_start(make_cluster: type[Cluster]) -> None:
    cluster = make_cluster(nodes=1)
    command = [sys.executable, "-P", "-m", "dsreg", "node", "--config", str(cluster.path), "--rank", "1",
               "--storage", str(cluster.storage(1)), "--metrics", "0.0.0.0:9601"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False, cwd=ROOT)
    assert done.returncode == 2 and "other hosts can reach 0.0.0.0" in done.stderr and "Traceback" not in done.stderr
    done = subprocess.run([*command, "--metrics-token-file", "/nowhere/token"], capture_output=True, text=True,
                          timeout=TIMEOUT_S, check=False, cwd=ROOT)
    assert done.returncode == 2 and "/nowhere/token does not exist; make one with" in done.stderr
