"""The command line, `dsreg`.

    faults      exit codes; operating errors become lines on stderr, never tracebacks
    options     arguments that several commands share: the configuration, sizes
    init        a new cluster                    node        one node process
    up          all nodes of a cluster here      status      which nodes answer
    data        read and write                   transfer    the streaming under them
    forget      another node's lost directory    wait        until every node has all data
    replace     a node goes to another machine   bench       measure
    workload    the load under it                scrub       verify all copies
    damage      what is damaged, for people
    completion  shell completion
    health      well, degraded or critical       status_table  the nodes, for people
    members     nodes are added and removed      changing    what that asks of the nodes
    proposing   how a configuration is chosen    member_file what that does to cluster.toml
    recover     when a majority is lost          salvage     what is left then
    survey      what the nodes answer            status_watch, status_json  the same, again and again, for programs
    in_force    which nodes decide               answers     what a node says of itself
    in_sync     whose copies are complete        units       sizes and times for people
    console, notify, progress, standard_files  what the commands say and to whom
    owner       to act as the owner of a directory

A command is imported when it is called, so that a node does not wait for what only a table needs.
"""

from __future__ import annotations

from typing import NoReturn

import click

from dsreg.cli.faults import Commands
from dsreg.cli.standard_files import run_command
from dsreg.version import described_version


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]}, commands_at={
    "init": "dsreg.cli.init:init",
    "node": "dsreg.cli.node:node",
    "up": "dsreg.cli.up:up",
    "read": "dsreg.cli.data:read",
    "write": "dsreg.cli.data:write",
    "status": "dsreg.cli.status:status",
    "wait": "dsreg.cli.wait:wait",
    "replace": "dsreg.cli.replace:replace",
    "members": "dsreg.cli.members:members",
    "recover": "dsreg.cli.recover:recover",
    "scrub": "dsreg.cli.scrub:scrub",
    "forget": "dsreg.cli.forget:forget",
    "bench": "dsreg.cli.bench:bench",
    "completion": "dsreg.cli.completion:completion",
})
@click.version_option(described_version(), prog_name="dsreg")
def cli() -> None:
    """A replicated block device: every 4096-byte sector is kept by a majority of nodes.

    \b
    The configuration is the first of: the one named, $DSREG_CONFIG,
    ~/.config/dsreg/cluster.toml, /etc/dsreg/cluster.toml.

    \b
    Exit codes (status --check has its own):
      0    done
      1    the operation failed
      2    wrong usage, configuration or key
      3    no quorum: no majority of the nodes answered in time
      130  ended by Ctrl-C
    """


def main() -> NoReturn:
    """The entry point of `dsreg` and `python -m dsreg`."""
    run_command(cli, "dsreg")
