"""The survey of a cluster as commands make it: once, with a sign of life on a terminal."""

from __future__ import annotations

from dsreg.cli.progress import progress_bar
from dsreg.client import Client
from dsreg.config import ClusterConfig
from dsreg.survey import Survey, survey


async def survey_once(config: ClusterConfig, timeout_s: float) -> Survey:
    """By a client of its own."""
    async with progress_bar("asking the nodes", None, show_bytes=False), Client(config) as client:
        return await survey(client, config, timeout_s)
