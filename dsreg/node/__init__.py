"""A node: one process that holds one copy of the disk and serves clients and the other nodes.

    process        run_register_process: binds, opens the storage, runs the rest, drains
    server         accepted connections: frames in, events out
    dialer         the link to one other node, as dsreg.link decides; links: to which others there are links
    members        which directories stand behind the ranks; recording: what of that is made durable
    claiming       later lives, of others and of this node; marking: directories that are older states of themselves
    configuring    which nodes decide: what is told, heard, voted for; membership: whether this node is one of them
    interpreter    the one interpreter of the replica's effects
    metering       the same, counting; reporting, traffic: what STATUS tells; history: of ten minutes; figures: metrics
    disk           commits, cold reads and checkpoints, in threads (worker: the one for commits)

Events go server/dialer/disk -> interpreter -> replica; effects come back the same way.
"""

from __future__ import annotations

from dsreg.node.process import run_register_process

__all__ = ["run_register_process"]
