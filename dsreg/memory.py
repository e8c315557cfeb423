"""A process that serves block I/O must not wait for memory that only its own I/O can free."""

from __future__ import annotations

import ctypes
import logging
import os
import resource
from pathlib import Path

log = logging.getLogger(__name__)

PR_SET_IO_FLUSHER = 57
MCL_CURRENT, MCL_FUTURE, MCL_ONFAULT = 1, 2, 4
CAP_IPC_LOCK = 14


def prepare_to_serve_block_io() -> None:
    """Keep the kernel from making this process wait for writes that it has to serve itself.

    For the frontend, and for nodes, which may stand on the host that uses the disk. Call it before any thread or
    child is started: both inherit the first setting. What is not permitted is logged and left.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    # Memory that this process asks for is not reclaimed through block or file I/O, and its own writes
    # are not throttled with the rest.
    if libc.prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0) != 0:
        log.info("PR_SET_IO_FLUSHER is not permitted (%s; it needs CAP_SYS_RESOURCE): under memory pressure "
                 "a disk used on this host may stall", os.strerror(ctypes.get_errno()))
    # With a limit, allocations would start to fail as soon as it is reached.
    if not _has_capability(CAP_IPC_LOCK) and resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] != resource.RLIM_INFINITY:
        log.info("memory is not locked (it needs CAP_IPC_LOCK or an unlimited RLIMIT_MEMLOCK): it may be swapped out")
    # ONFAULT: what has been touched stays; the untouched parts of thread stacks cost nothing.
    elif libc.mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) != 0:
        log.info("mlockall is not permitted (%s): memory may be swapped out", os.strerror(ctypes.get_errno()))


def _has_capability(number: int) -> bool:
    for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> number & 1)
    return False
