"""Pages served at an address for as long as a process lives, which goes on without them where that cannot be."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial

import trio

from dsreg.config import format_address
from dsreg.listening import bind, close_all
from dsreg.metrics.http import Make, Pages
from dsreg.metrics.token import are_for_this_host

# The address is tried again: a process that ends may have it still, and an interface may come up later.
RETRY_S = 10.0

log = logging.getLogger(__name__)


async def serve_pages(
    pages: Mapping[str, Make], address: tuple[str, int], task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
    *, token: bytes = b"",
) -> None:
    """Until it is cancelled. `task_status`: told the port. That an address cannot be bound is said once. `token`: what
    has to be shown; without one nothing is served where other hosts reach it, which is said as well."""
    named, is_said = format_address(*address), False
    while True:
        try:
            # A name may take longer to be resolved than whoever ends the process wants to wait.
            listeners = await trio.to_thread.run_sync(partial(bind, *address), abandon_on_cancel=True)
            break
        except OSError as error:
            if not is_said:
                log.warning("no metrics are served on %s: %s. All else goes on, and the address is tried again every "
                            "%.0f s", named, error.strerror, RETRY_S)
            is_said = True
        await trio.sleep(RETRY_S)
    try:
        if not token and not are_for_this_host(listeners):
            log.warning("no metrics are served on %s: other hosts can reach that, and there is no token for them to "
                        "show. All else goes on; set metrics_token_file, or --metrics-token-file", named)
            return
        if is_said:
            log.warning("metrics are served on %s now", named)
        task_status.started(listeners[0].getsockname()[1])
        await Pages(pages, address[0], token).serve(listeners)
    finally:
        close_all(listeners)
