"""The metrics of an edge, served over HTTP in its own process. Imported only where they are wanted: dsreg.metrics."""

from __future__ import annotations

import trio

from dsreg.metrics.of_edge import families
from dsreg.metrics.pages import pages
from dsreg.metrics.serving import serve_pages
from dsreg.volume.metering import EdgeMeter


async def serve_metrics(meter: EdgeMeter, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED) -> None:
    """Until it is cancelled; see serve_pages."""
    await serve_pages(pages(lambda: families(meter), meter.findings), meter.address, task_status,
                      token=meter.token)
