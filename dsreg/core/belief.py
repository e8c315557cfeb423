"""Which tags are believed: one bad message must not use up the range of ts, nor freeze a register.

The highest ts that is believed grows with the clock. Honest tags grow by single steps and never get near it;
what an absurd one raised a register to is left behind a moment later by tags that every node believes as well.
(A bound relative to what a node holds would not do: of a tag just within it, the next one is beyond the bound
of the nodes that have not heard of it, and they would refuse the honest writes of the one that has, for ever.)
"""

from __future__ import annotations

from dsreg.core.tags import highest_ts

# More writes of one sector than any disk does, and 2^63, half the range, is reached in the year 2106.
MAX_TS_PER_S = 1 << 31
# Believed whatever the clock says, as a machine may start in 1970: 890 years of 10,000 writes a second.
ALWAYS_BELIEVED_TS = 1 << 48


def is_believed(tags: bytes, unix_time_s: float) -> bool:
    """`unix_time_s`: seconds since 1970, as far as known."""
    return highest_ts(tags) <= max(ALWAYS_BELIEVED_TS, min(unix_time_s, 1 << 32) * MAX_TS_PER_S)
