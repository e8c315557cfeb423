"""`dsreg up`: all nodes of a configuration on this host, in the foreground, with one log."""

from __future__ import annotations

import logging
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import click
import trio

from dsreg.cli.notify import notify
from dsreg.cli.options import chosen_config, config_argument, config_option, log_format_option
from dsreg.config import ClusterConfig
from dsreg.logs import log_to_stderr, said
from dsreg.supervisor import node_command, supervise


@click.command()
@config_argument
@config_option
@click.option("-v", "--verbose", "verbosity", count=True, help="Have the nodes log more: -v events, -vv everything.")
@log_format_option
def up(file: Path | None, config_path: Path | None, verbosity: int, log_format: str) -> None:
    """Run all nodes of a configuration on this host until SIGTERM or SIGINT.

    Each is a process of its own and is started again when it dies; one that does not come up at all in its first
    tries ends the command with 1. The storage is the `storage` of each
    [[node]], by default node-RANK beside the configuration.
    """
    log_to_stderr("up", verbosity, log_format)
    trio.run(_run, chosen_config(config_path, file, need_system_key=True), verbosity)


async def _run(config: ClusterConfig, verbosity: int) -> None:
    stop = trio.Event()
    extra = ["-" + "v" * verbosity] if verbosity else []
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_stop_on_signal, signals, stop)
            await supervise(config, command=node_command(config, extra=extra), stop=stop, gives_up=True,
                            task_status=_Listening(config))
            nursery.cancel_scope.cancel()


class _Listening(trio.TaskStatus[object]):
    """Says once that the cluster is up, to the person and to systemd."""

    def __init__(self, config: ClusterConfig) -> None:
        self._config = config

    def started(self, value: object = None) -> None:
        nodes = self._config.nodes
        addresses = ", ".join(node.address for node in nodes)
        text = f"all {len(nodes)} nodes listen ({addresses}); Ctrl-C stops them"
        click.echo(said("dsreg", text, logging.INFO), err=True)
        notify("READY=1")


async def _stop_on_signal(signals: AsyncIterator[int], stop: trio.Event) -> None:
    async for _ in signals:
        stop.set()
