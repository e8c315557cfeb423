"""What nodes do for clients: rates between two of their answers, and who the clients are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from dsreg.health.answers import NodeAnswer
from dsreg.health.traffic import counted, queue, rates, rates_of_nodes, users
from dsreg.histogram import BOUNDS_S
from tests.cli.test_health import answer


def requests(unfinished: int = 0, **operations: tuple[int, int, int]) -> dict[str, Any]:
    """By operation: how many, their bytes, and in which bucket all of them are."""
    return {"bounds_s": [*BOUNDS_S], "unfinished": unfinished, "unfinished_bytes": 0, "operations": {
        name: {"count": count, "bytes": size, "seconds": 1.0,
               "buckets": [count if index == bucket else 0 for index in range(len(BOUNDS_S) + 1)]}
        for name, (count, size, bucket) in operations.items()}}


def told(rank: int = 1, uptime_s: float = 100.0, start: int = 7, **report: Any) -> NodeAnswer:
    return answer(rank, **{"uptime_s": uptime_s, "incarnation": start, **report})


def client(peer: str, requests: int = 0, size: int = 0, owner: str = "", **told: Any) -> dict[str, Any]:
    return {"peer": peer, "owner": owner, "sealed": True, "since_s": 5.0, "requests": requests, "bytes": size,
            "unfinished": 0, **told}


def test_rates_are_of_the_time_between() -> None:
    before = told(requests=requests(get=(100, 4096, 3), put=(10, 4096, 3), tag=(5, 0, 0)))
    after = told(uptime_s=104.0, requests=requests(3, get=(300, 8 << 20, 3), read=(100, 0, 3), put=(18, 4096, 3)))
    found = rates(counted(before.report), counted(after.report))
    assert found is not None and (found.reads, found.writes) == (75.0, 2.0) and found.requests == 77.0
    assert found.read_bytes == ((8 << 20) - 4096) / 4 and found.written_bytes == 0
    assert found.p50_s is not None and found.p99_s is not None
    assert BOUNDS_S[2] < found.p50_s < found.p99_s <= BOUNDS_S[3], "of what came since, in its bucket"
    assert queue(after) == 3 and queue(answer(1)) is None
    assert rates_of_nodes([before], [after, told(2, requests=requests())]) == {1: found}


@pytest.mark.parametrize(("before", "after"), [
    (told(requests=requests()), told(requests=requests())),  # the same moment
    (told(start=7, requests=requests()), told(uptime_s=200.0, start=8, requests=requests())),  # started again
    (told(), told(uptime_s=200.0, requests=requests())),  # of a version that does not count
    (answer(1, "connection refused"), told(requests=requests())),
    (told(requests=requests()), told(uptime_s=200.0, requests={**requests(), "bounds_s": [1.0]})),  # of a later one
])
def test_what_cannot_be_told_is_not(before: NodeAnswer, after: NodeAnswer) -> None:
    assert rates_of_nodes([before], [after]) == {}


def test_nothing_asked_has_no_latency() -> None:
    found = rates(counted(told(requests=requests()).report), counted(told(uptime_s=101.0, requests=requests()).report))
    assert found is not None and found.requests == found.bytes == 0 and found.p50_s is found.p99_s is None


def seen(*clients: dict[str, Any], rank: int = 1, uptime_s: float = 100.0) -> NodeAnswer:
    return told(rank, uptime_s, clients=[*clients])


def test_users_are_owners_and_hosts() -> None:
    before = [seen(client("10.0.0.5:4000", 10, 100, "web, process 9"), client("10.0.0.6:5000", 7)),
              seen(client("10.0.0.5:4001", 10, 100, "web, process 9"), rank=2)]
    after = [seen(client("10.0.0.5:4000", 30, 4196, "web, process 9", unfinished=2), client("10.0.0.6:5000", 8),
                  client("10.0.0.6:5001", 90, sealed=False), uptime_s=102.0),
             seen(client("10.0.0.5:4001", 20, 100, "web, process 9", unfinished=1), rank=2, uptime_s=101.0)]
    owner, other = users(before, after)
    assert (owner.who, owner.has_attached, owner.ranks, owner.connections) == ("web, process 9", True, (1, 2), 2)
    assert owner.requests == 20 / 2 + 10 / 1 and owner.bytes == 4096 / 2 and owner.unfinished == 3 and owner.is_sealed
    assert (other.who, other.connections, other.is_sealed) == ("10.0.0.6", 2, False)
    assert other.requests == 0.5, "what is new has no rate yet"


@pytest.mark.parametrize("answers", [
    [], [answer(1, "gone")], [answer(1)], [seen()], [seen(client("10.0.0.9:4000", 1, since_s=0.1))],
])
def test_no_users(answers: Sequence[NodeAnswer]) -> None:
    assert users([], answers) == []


def test_what_a_client_calls_itself_is_made_harmless() -> None:
    (user,) = users([], [seen(client("10.0.0.5:4000", 1, owner="a\x1b[2J\u202eb\n"))])
    assert user.who == "a\ufffd[2J\ufffdb\ufffd" and user.requests is None
    (user,) = users([], [seen(client("::1:4000", 1))])
    assert user.who == "::1"
