"""Memory of a process that serves block I/O: it must not wait for memory that only its own I/O can free."""

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
# Of glibc's mallopt.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
# Freed memory that the process keeps at the end of its heap; and the size from which on blocks come straight from the
# kernel and go back to it. By default a megabyte is given back after each use, and to have it cleared and mapped again
# page by page costs several times what is done with it (docs/performance.md).
KEPT_BYTES = 16 << 20
MAPPED_BYTES = 4 << 20


def keep_freed_memory() -> None:
    """For a process through which megabytes pass: up to KEPT_BYTES of what it has freed stay at hand."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return  # another C library, with habits of its own
    mallopt(M_MMAP_THRESHOLD, MAPPED_BYTES)
    mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)


def prepare_to_serve_block_io() -> None:
    """Keep the kernel from making this process wait for writes that it has to serve itself.

    For the frontend, and for nodes, which may stand on the host that uses the disk. Call it before any thread or
    child is started: both inherit the first setting. What is not permitted is logged and left.
    """
    keep_freed_memory()
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
