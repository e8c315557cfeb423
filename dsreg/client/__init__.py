"""The client of a cluster: sectors in and out, whichever nodes are up.

    Client (client.py, trio)  <-  BlockingClient (blocking.py, a thread with Client in it)
        | range_lock.py: one operation per sector at a time; admission.py: how many in all
        | events.py: events in, effects out
    ClientCore (core.py, pure): which node gets what, when it goes elsewhere, what is known at the end
        | steps.py: what is sent where; ring.py: the nodes; quorum.py: majorities that the client counts;
        | attachment.py: the hold on the disk; guard.py: respect for that of another
        |
    Connection (connection.py): one per node; queue, codec, socket, reconnecting

limits.py has the numbers. How a write survives fail-over: docs/client.md.
"""

from __future__ import annotations

from dsreg.client.blocking import BlockingClient
from dsreg.client.client import Client
from dsreg.client.cluster import Attach
from dsreg.client.state import Counters

__all__ = ["Attach", "BlockingClient", "Client", "Counters"]
