"""What the programs have in common that measure three nodes on this host."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import click
import trio

from dsreg.config.sizes import parse_size
from scripts.demo.cluster import Cluster

directory_option = click.option(
    "--directory", type=click.Path(file_okay=False, exists=True, path_type=Path),
    help="Where to put the disks.  [default: the system's directory for temporary files]",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print the figures once more, as JSON.")


class Figures:
    def __init__(self) -> None:
        self.told: dict[str, float] = {}

    def tell(self, name: str, value: float, text: str) -> None:
        self.told[name] = value
        click.echo(f"{name.replace('_', ' ')}: {text}")


def run_measurement(
    measure: Callable[[Cluster, int, Figures], Awaitable[None]], size: str, directory: Path | None, as_json: bool
) -> None:
    """`measure` is given nodes that run, with a new disk of `size` such as "1GiB", and that in bytes."""
    figures = Figures()
    with tempfile.TemporaryDirectory(dir=directory) as name:
        cluster = Cluster(Path(name), size)
        cluster.init()
        try:
            cluster.start_missing()
            trio.run(measure, cluster, parse_size(size), figures)
        finally:
            cluster.stop()
    if as_json:
        click.echo(json.dumps(figures.told))
