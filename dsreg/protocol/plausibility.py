"""Which tags and epochs are believed: one bad message must not use up their range, nor freeze a register.

The highest counter that is believed grows with the clock. Honest ones grow by single steps, or with the
microseconds since an attachment, and never get near it; what an absurd one raised a register to is left behind
a moment later by tags that every node believes as well. (A bound relative to what a node holds would not do: of
a tag just within it, the next one is beyond the bound of the nodes that have not heard of it, and they
would refuse the honest writes of the one that has, for ever.) The same holds for epochs, which an attachment
raises by one.
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
