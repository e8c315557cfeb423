"""How a node asks the cluster while somebody looks: once for all of them, and it holds no connection afterwards."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

import pytest
import trio

from dsreg.config import ClusterConfig
from dsreg.health.answers import NodeAnswer
from dsreg.node.reporting import status_of
from dsreg.page import looking
from dsreg.page.looking import Looking, Seen
from tests.node.scene import PATIENCE_S
from tests.node.test_process import Served, config_of, served


def cluster_of(tmp_path: Path, port: int) -> ClusterConfig:
    cluster = config_of(tmp_path).cluster
    return dataclasses.replace(cluster, nodes=(dataclasses.replace(cluster.nodes[0], port=port),))


def looking_at(tmp_path: Path, node: Served, port: int) -> Looking:
    return Looking(cluster_of(tmp_path, port), lambda: NodeAnswer(
        node.node.config.node, {**status_of(node.node), "round_trip_s": 0.0}))


async def test_all_who_look_see_one_round_of_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with served(tmp_path) as node:
        asking, seen = looking_at(tmp_path, node, node.port), []

        async def look() -> None:
            seen.append(await asking.look())

        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(look)
        assert len(seen) == 8 and all(each is seen[0] for each in seen)
        assert seen[0].survey.quorum and seen[0].survey.answering == 1 and seen[0].before == ()
        while node.node.server.connections:
            await trio.lowlevel.checkpoint()  # the node sees the end of the client's connection
        monkeypatch.setattr(looking, "FRESH_S", 0.0)
        again = await asking.look()
        assert again is not seen[0] and again.before == seen[0].survey.answers
        monkeypatch.setattr(looking, "STALE_S", 0.0)
        assert (await asking.look()).before == (), "rates would be of a time that nobody has seen"


async def test_the_node_itself_is_up_whoever_reaches_it(tmp_path: Path) -> None:
    """Behind NAT it cannot connect to the address that the others have."""
    async with served(tmp_path) as node:
        seen: Seen = await looking_at(tmp_path, node, 1).look()
    (answer,) = seen.survey.answers
    assert answer.report is not None and answer.report["rank"] == 1 and answer.report["round_trip_s"] == 0.0
    assert not seen.survey.quorum


async def test_who_goes_away_while_it_is_asked_leaves_it_to_the_next(tmp_path: Path) -> None:
    async with served(tmp_path) as node:
        asking = looking_at(tmp_path, node, node.port)
        with trio.move_on_after(0) as gone:
            await asking.look()
        assert gone.cancelled_caught
        with trio.fail_after(PATIENCE_S):
            assert (await asking.look()).survey.answering == 1


async def test_what_the_client_warns_of_is_not_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    logger = logging.getLogger("dsreg.client")
    survey = looking.survey_quietly

    async def warning(*arguments: object) -> looking.Survey:
        logger.warning("on the page")
        return await survey(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(looking, "survey_quietly", warning)
    async with served(tmp_path) as node:
        await looking_at(tmp_path, node, node.port).look()
    assert "on the page" not in caplog.text and not logger.filters
