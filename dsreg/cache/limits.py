"""The fixed numbers of the write-back cache, each with the reason for its value. Times in seconds."""

from __future__ import annotations

from typing import Final

from dsreg.constants import MAX_RUN_BYTES

# What may be buffered. It is written back within a few seconds even when all of it is single sectors (16384 of them),
# so that an fsync stays bearable, and it is small beside what a host that mounts a file system has.
BUFFER_BYTES: Final = 64 * MAX_RUN_BYTES
# From here on the oldest chunks go out without waiting for their age. The rest is room for writers meanwhile: they
# wait only when they are faster than the cluster for longer than it takes to fill it.
LOW_WATER_BYTES: Final = BUFFER_BYTES // 4
# Dirty for this long, it goes out. What a dead frontend takes with it is about this old at most; a file system's own
# cache, which writes after 5 to 30 s, gains nothing from more.
AGE_S: Final = 1.0
# How exact the age is, and how long a pause after an error. It ticks only while something is dirty.
TICK_S: Final = 0.1
# Runs under way at once. Single sectors reach their full rate at this depth; large runs need only some, and leave to
# reads a half of the 15 MiB that a client has under way.
MAX_RUNS: Final = 64
MAX_RUNS_BYTES: Final = 8 * MAX_RUN_BYTES
# After a failure nothing goes out by itself for this long, doubling up to the second figure. A flush does not wait.
RETRY_FIRST_S: Final = 0.5
RETRY_MAX_S: Final = 8.0
# What ends in an error waits this long for its last flush: long enough for a healthy cluster to take a full buffer.
END_IN_ERROR_S: Final = 30.0
