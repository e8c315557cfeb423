"""What a node's STATUS tells of its clients and their requests, and the history of its page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dsreg.constants import SECTOR_SIZE
from dsreg.health.traffic import counted, rates
from dsreg.node import traffic
from dsreg.node.history import SAMPLES, STEP_S, History
from dsreg.protocol.messages import Command, Status, StatusReport, StatusRequest, owner_of
from tests.node.test_process import Client, served


async def status(client: Client) -> dict[str, Any]:
    await client.send(StatusRequest(999))
    report = await client.message()
    assert isinstance(report, StatusReport)
    found = json.loads(report.body)
    assert isinstance(found, dict)
    return found


async def write(client: Client, number: int) -> None:
    assert (await client.ask(Command.write(number, 0, bytes(SECTOR_SIZE)))).status is Status.OK


async def test_requests_and_who_has_asked(tmp_path: Path) -> None:
    async with served(tmp_path) as node:
        quiet, owner = await node.connect(), await node.connect()
        assert (await status(quiet))["clients"] == [], "who has asked for no sector is no client"
        attached = await owner.ask(Command.attach(1, 1, owner_of(bytes(range(16)), "a host, process 1")))
        assert attached.status is Status.OK
        for number in range(3):
            await write(owner, 10 + number)
        assert (await quiet.ask(Command.read(20, 0))).status is Status.OK
        report = await status(quiet)
    client, other = report["clients"]
    assert (other["owner"], other["requests"], other["bytes"]) == ("", 1, SECTOR_SIZE)
    assert client["owner"] == "a host, process 1" and client["peer"].startswith("127.0.0.1:")
    assert (client["requests"], client["bytes"], client["unfinished"]) == (4, 3 * SECTOR_SIZE, 0)
    assert client["sealed"] is False and 0 <= client["since_s"] <= report["uptime_s"]
    writes = report["requests"]["operations"]["write"]
    assert writes["count"] == sum(writes["buckets"]) == 3
    told = counted(report)
    assert told is not None and told.writes.requests == 3 and told.writes.bytes == 3 * SECTOR_SIZE
    assert told.reads.requests == 1


async def test_of_many_clients_the_busiest_are_told(tmp_path: Path) -> None:
    async with served(tmp_path) as node:
        clients = [await node.connect() for _ in range(traffic.MOST_CLIENTS + 2)]
        for client in clients:
            await write(client, 1)
        await write(clients[-1], 2)
        report = await status(clients[0])
    assert len(report["clients"]) == traffic.MOST_CLIENTS and report["clients_left_out"] == 2
    assert report["clients"][0]["requests"] == 2


async def test_the_history_is_bounded_and_made_of_integers(tmp_path: Path) -> None:
    async with served(tmp_path) as node:
        history = History(node.node)
        for _ in range(SAMPLES + 5):
            history.take()
        before = history.samples[-1]
        client = await node.connect()
        await write(client, 1)
        while (await status(client))["uptime_s"] * 1000 <= before.at_ms:
            pass
        history.take()
    assert len(history.samples) == SAMPLES and SAMPLES * STEP_S >= 600
    last = history.samples[-1]
    numbers = [last.at_ms, last.start, *last.reads[:2], *last.writes[:2], *last.reads.buckets, *last.writes.buckets]
    assert {type(number) for number in numbers} == {int}
    found = rates(before, last)
    assert found is not None and found.writes > 0 and found.reads == 0
