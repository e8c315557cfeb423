"""Plausibility: which tags and epochs are taken. One bad message must not use up their range, nor freeze a register.

The highest plausible counter grows with the clock. Counters of real writes grow by single steps, or with the
microseconds since an attachment, and never get near it. Whatever a forged counter set a register to is below the
bound, so that the next writes are plausible to every node a moment later. (A bound relative to what a node holds would
not do: the successor of a tag just within it would be beyond the bound of nodes that do not have that tag, and they
would refuse the writes of the one that has it for ever.) The same holds for epochs, which grow by one with each
attachment.
"""

from __future__ import annotations

from dsreg.constants import TAG_SIZE
from dsreg.protocol.tags import MAX_EPOCH, is_uniform, iter_tags, rank_of

# More writes of one sector than any disk does, and 16 times the microseconds of an attachment; 2^56 is the year 2106.
MAX_COUNTS_PER_S = 1 << 24
# Believed whatever the clock says, as a machine may start in 1970: 890 years of 10,000 writes a second.
ALWAYS_PLAUSIBLE_COUNTER = 1 << 48
# Epochs: one a minute since 14 November 2023, when the clock knows; else so many. 2^24 is reached in the year 2057.
FIRST_EPOCH_S = 1_700_000_000
S_PER_EPOCH = 64
ALWAYS_PLAUSIBLE_EPOCH = 1 << 16


def are_plausible(tags: bytes, unix_time_s: float) -> bool:
    """`unix_time_s`: seconds since 1970, as far as known. A copy is never of an older epoch than its write."""
    counter = max(ALWAYS_PLAUSIBLE_COUNTER, int(min(unix_time_s, (1 << 32) - 1) * MAX_COUNTS_PER_S))
    for epoch, written, count in map(rank_of, (tags[:TAG_SIZE],) if is_uniform(tags) else iter_tags(tags)):
        if count > counter or written > epoch:
            return False
    return True


def highest_plausible_epoch(unix_time_s: float) -> int:
    return max(ALWAYS_PLAUSIBLE_EPOCH, int(min((unix_time_s - FIRST_EPOCH_S) // S_PER_EPOCH, MAX_EPOCH)))
