"""Metrics that are served, read by prometheus_client's own parsers over HTTP."""

from __future__ import annotations

import socket
import urllib.request

import trio
from prometheus_client.core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

READ_S = 30.0
OPENMETRICS = "application/openmetrics-text; version=1.0.0"


async def get(port: int, path: str, accept: str = "*/*", host: str = "127.0.0.1") -> tuple[int, str]:
    """Status and body."""
    stream = await trio.open_tcp_stream(host, port)
    async with stream:
        head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\nConnection: close\r\n\r\n"
        await stream.send_all(head.encode())
        received = b"".join([bytes(chunk) async for chunk in stream]).decode()
    before, _, body = received.partition("\r\n\r\n")
    return int(before.split()[1]), body


async def samples(port: int) -> dict[str, float]:
    """By name and labels: name{label=value,...}."""
    status, text = await get(port, "/metrics")
    assert status == 200
    return {name_of(sample.name, sample.labels): sample.value
            for family in parse_text(text) for sample in family.samples}


def read(address: tuple[str, int]) -> dict[str, float]:
    """As `samples`, of another process. Raises OSError if it does not answer."""
    host, port = address
    with urllib.request.urlopen(f"http://{host}:{port}/metrics", timeout=READ_S) as answer:
        text = answer.read().decode()
    return {name_of(sample.name, sample.labels): sample.value
            for family in parse_text(text) for sample in family.samples}


def summed(found: dict[str, float], name: str) -> float:
    """Of all labels."""
    return sum(value for key, value in found.items() if key.partition("{")[0] == name)


def listens(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, timeout=1.0).close()
    except OSError:
        return False
    return True


def name_of(name: str, labels: dict[str, str]) -> str:
    return name + ("{" + ",".join(f"{key}={value}" for key, value in sorted(labels.items())) + "}" if labels else "")


async def check_formats(port: int) -> None:
    """Both are read by strict parsers, have the same families, and names by the conventions."""
    _, text = await get(port, "/metrics")
    _, open_text = await get(port, "/metrics", OPENMETRICS)
    assert open_text.rstrip().endswith("# EOF")
    plain, strict = [*parse_text(text)], [*parse_openmetrics(open_text)]
    assert {family.name for family in strict} == {family.name.removesuffix("_info") for family in plain}
    check_names(strict)


def check_names(families: list[Metric]) -> None:
    names = [family.name for family in families]
    assert len(set(names)) == len(names)
    for family in families:
        assert family.name.startswith(("dsreg_", "process_")) and family.documentation, family
        assert not family.name.endswith(("_total", "_ms", "_us", "_kib", "_percent")), family
        for sample in family.samples:
            assert family.type != "counter" or sample.name.endswith(("_total", "_created")), sample
