"""`dsreg init`: the files of a new cluster, and what to do with them."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from dsreg.cli.advice import advice
from dsreg.cli.options import to_size
from dsreg.config import create_cluster, load_config, plan_addresses
from dsreg.constants import MAX_RANK

_LOCAL_HOST = "127.0.0.1"


@click.command()
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path))
@click.option("--nodes", type=click.IntRange(1, MAX_RANK), help="Number of nodes.  [default: 3, or one per --host]")
@click.option("--size", callback=to_size, default="1GiB", metavar="SIZE", show_default=True,
              help="Size of the disk: KiB, MiB, GiB or TiB.")
@click.option("--base-port", type=click.IntRange(1, 65535), default=7001, show_default=True,
              help="Port of a host's first node; further nodes on one host count up from it.")
@click.option("--host", "hosts", multiple=True, metavar="HOST[:PORT]",
              help="A host that runs a node; once for each.  [default: all nodes on 127.0.0.1]")
def init(directory: Path, nodes: int | None, size: int, base_port: int, hosts: tuple[str, ...]) -> None:
    """Create a cluster in DIRECTORY: cluster.toml, client.key, system.key.

    Nothing that exists is overwritten. An odd number of nodes is best: three keep the disk available when
    one is down, five when two are.
    """
    if nodes is None:
        nodes = len(hosts) or 3
    if hosts and nodes < len(hosts):
        raise click.UsageError(f"{len(hosts)} times --host but --nodes {nodes}; leave --nodes out or give as many")
    path = create_cluster(directory, size, plan_addresses(hosts or (_LOCAL_HOST,), nodes, base_port),
                          strict_start=True)
    config = load_config(path)
    for line in advice(config.nodes):
        click.echo(f"dsreg: warning: {line}", err=True)
    file = shlex.quote(str(path))
    click.echo(f"Created {path}: {nodes} nodes, {config.sectors} sectors of 4096 bytes. The keys are next to it.")
    click.echo("\nNext:")
    next_steps: list[tuple[str, str]] = []
    if hosts:
        click.echo(f"  copy {shlex.quote(str(directory))} to every host (keys keep mode 0600), and there run its node:")
        for node in config.nodes:
            click.echo(f"  {node.host}: dsreg node --config {file} --rank {node.rank} --storage DIRECTORY")
        click.echo("  a host that only uses the disk needs cluster.toml and client.key alone")
    else:
        next_steps.append((f"dsreg up {file}", "run all nodes on this host"))
    next_steps += [
        (f"dsreg status {file}", "which of them answer"),
        (f"dsreg-fuse --config {file} MOUNTPOINT", "the disk as a file"),
    ]
    width = max(len(command) for command, _ in next_steps)
    for command, what in next_steps:
        click.echo(f"  {command:{width}}   # {what}")
