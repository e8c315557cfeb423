"""The command line, `dsreg`.

    faults      exit codes; operating errors become lines on stderr, never tracebacks
    options     arguments that several commands share: the configuration, sizes
    init        a new cluster                    node        one node process
    up          all nodes of a cluster here      status      which nodes answer
    data        read and write                   transfer    the streaming under them
    backup      the disk at one moment           holes, image  files that are sparse; files that are complete
    forget      another node's lost directory    wait        until every node has all data
    replace     a node goes to another machine   bench       measure
    workload    the load under it                scrub       verify all copies
    completion  shell completion                 health      well, degraded or critical
    status_table  the nodes, for people
    members     nodes are added and removed      changing    what that asks of the nodes
    proposing   how a configuration is chosen    member_file what that does to cluster.toml
    resize      a larger disk                    carry_out   a change that takes a while
    keys        a key is changed, step by step
    recover     when a majority is lost          salvage     what is left then
    survey      what the nodes answer            status_watch, status_json  the same, again and again, for programs
    top         what goes on, and for whom       top_round, top_view, top_screen  a look, as text, on a terminal
    staying     of commands that go on until they are ended
    console, notify, progress, standard_files  what the commands say and to whom
    upgrade     in which order nodes are upgraded
    debug, debug_parts  an archive for a report of a fault
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
    "backup": "dsreg.cli.backup:backup",
    "status": "dsreg.cli.status:status",
    "health": "dsreg.cli.health:health",
    "top": "dsreg.cli.top:top",
    "wait": "dsreg.cli.wait:wait",
    "replace": "dsreg.cli.replace:replace",
    "members": "dsreg.cli.members:members",
    "resize": "dsreg.cli.resize:resize",
    "recover": "dsreg.cli.recover:recover",
    "scrub": "dsreg.cli.scrub:scrub",
    "forget": "dsreg.cli.forget:forget",
    "keys": "dsreg.cli.keys:keys",
    "bench": "dsreg.cli.bench:bench",
    "upgrade": "dsreg.cli.upgrade:upgrade",
    "debug": "dsreg.cli.debug:debug",
    "completion": "dsreg.cli.completion:completion",
})
@click.version_option(described_version(), prog_name="dsreg")
def cli() -> None:
    """A replicated block device: every 4096-byte sector is kept by a majority of nodes.

    \b
    The configuration is the first of: the one named, $DSREG_CONFIG,
    ~/.config/dsreg/cluster.toml, /etc/dsreg/cluster.toml.

    \b
    Exit codes (dsreg health has its own):
      0    done
      1    the operation failed
      2    wrong usage, configuration or key
      3    no quorum: no majority of the nodes answered in time
      130  ended by Ctrl-C
    """


def main() -> NoReturn:
    """The entry point of `dsreg` and `python -m dsreg`."""
    run_command(cli, "dsreg")
