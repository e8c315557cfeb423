"""The page at the HTTP server of a node."""

from __future__ import annotations

import time
from collections.abc import Mapping

from dsreg.health.answers import NodeAnswer
from dsreg.metrics.http import Make, Page
from dsreg.node.process import Node
from dsreg.node.reporting import status_of
from dsreg.page.document import POLICY, document
from dsreg.page.looking import Looking
from dsreg.page.view import View

# Rates need two looks: who looks first gets them soon.
REFRESH_S, FIRST_REFRESH_S = 5, 3
_HEADERS = (("Content-Security-Policy", POLICY), ("Referrer-Policy", "no-referrer"))


def pages_of(node: Node) -> Mapping[str, Make]:
    """`/`."""
    cluster = node.config.cluster

    def own() -> NodeAnswer:
        return NodeAnswer(node.config.node, {**status_of(node), "round_trip_s": 0.0})

    looking = Looking(cluster, own)

    async def show(headers: Mapping[str, str]) -> Page:
        seen = await looking.look()
        view = View(
            rank=node.config.rank, file=str(cluster.path), sectors=cluster.sectors, answers=seen.survey.answers,
            findings=seen.survey.findings(cluster), no_quorum=seen.survey.fault, before=seen.before,
            history=node.history.samples, when=time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
            refresh_s=REFRESH_S if seen.before else FIRST_REFRESH_S,
        )
        return Page(200, "text/html; charset=utf-8", document(view).encode(errors="replace"), _HEADERS)

    return {"/": show}
