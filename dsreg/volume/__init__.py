"""A disk in use, as every edge needs it: assembled once, from a configuration to an attached block device.

    assemble    open_volume: client, attachment, cache, block device, and what is said about nodes and losses; or in two
                steps, run_nodes and connect, for an edge that attaches the disk more than once
    requests    Volume: a request to the disk -> what it came to, and the errno of a failure
    failures    the table of errnos, and log lines that do not flood
    slow        log lines of slow requests, with what they have waited for
    stall       says once when requests wait, and once when they go on
    metering    what an edge counts for metrics, and what it has in use; serving: where they are read
    signals     SIGTERM and SIGINT, answered in order
    embedded    the three-node cluster that is used when there is no configuration
"""

from __future__ import annotations

from dsreg.volume.assemble import Opening, VolumeOptions, connect, open_volume, run_nodes
from dsreg.volume.failures import VolumeError, errno_of
from dsreg.volume.metering import EdgeMeter
from dsreg.volume.requests import Answer, Disk, Volume

__all__ = ["Answer", "Disk", "EdgeMeter", "Opening", "Volume", "VolumeError", "VolumeOptions", "connect",
           "errno_of", "open_volume", "run_nodes"]
