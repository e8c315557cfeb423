"""The client of a cluster: sectors in and out, whichever nodes are up.

    Client (client.py, trio)  <-  BlockingClient (blocking.py, a thread with Client in it)
        |
    Runner (runner.py, trio): tasks, clock, events to wait for
        |
    Engine (engine.py, pure): range_lock.py, one operation per sector at a time; admission.py, how many in all
        | run.py: what was submitted, until it is over
        | pieces.py: a zeroing of many chunks that one command did not do; events.py: events in, effects out
    ClientCore (core.py, pure): who is told of an event
        | access.py       by which right: attachment.py, the hold on the disk; guard.py, respect for that of another
        |                 (presence.py: is that one alive?)
        | replies.py      what an answer comes to
        | counting.py     steps of which the client counts the majority (quorum.py; mapping.py: which chunks are holes;
        |                 naming.py: the tags of a write)
        | dispatch.py     steps that are left to a node
        | operations.py   the operations under way; operation.py: what each waits for; metering.py: how long
        | node_selector.py, node_view.py, members.py, contract_nodes.py: the nodes, which to ask, which count
        |
    Connection (connection.py): one per node, as dsreg.link decides; what waits to be sent

limits.py has the numbers. How a write survives fail-over: docs/client.md.
"""

from __future__ import annotations

from dsreg.client.blocking import BlockingClient
from dsreg.client.client import Client
from dsreg.client.cluster import Attach
from dsreg.client.metering import Counters, Meter

__all__ = ["Attach", "BlockingClient", "Client", "Counters", "Meter"]
