"""Absences: which nodes have been out of reach for long, and which of them are back, for warnings in the log."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from dsreg.register.quorum import Quorum, counted, mask

# A node that is restarted is back within a second or two; a machine that reboots, or has lost its network, is not.
LOST_AFTER_S = 10.0
# How often to look. A report comes at most this much late.
CHECK_INTERVAL_S = 1.0


class Absences:
    """Of the nodes `ranks`. Time is in seconds of any clock that does not go backwards; it begins at `now_s`."""

    def __init__(self, ranks: Iterable[int], now_s: float) -> None:
        self._reached_s = dict.fromkeys(ranks, now_s)
        self._lost: set[int] = set()
        self._before: Collection[int] = frozenset(self._reached_s)

    def watch(self, ranks: Iterable[int], now_s: float) -> None:
        """These are the nodes from now on."""
        self._reached_s = {rank: self._reached_s.get(rank, now_s) for rank in ranks}
        self._lost &= self._reached_s.keys()

    def check(self, reached: Collection[int], now_s: float) -> list[tuple[int, bool, float]]:
        """What has changed, with `reached` the nodes that are in reach now: (rank, whether it is back, seconds for
        which it was out of reach), each once.

        A node is in reach if it was at the last check as well: one that fails at each start has its port bound for a
        moment every time."""
        steady, self._before = set(reached).intersection(self._before), reached
        changes = []
        for rank, last_s in self._reached_s.items():
            absent_s = now_s - last_s
            if rank in steady:
                if rank in self._lost:
                    self._lost.discard(rank)
                    changes.append((rank, True, absent_s))
                self._reached_s[rank] = now_s
            elif rank not in reached and rank not in self._lost and absent_s >= LOST_AFTER_S:
                self._lost.add(rank)
                changes.append((rank, False, absent_s))
        return changes


def describe_absence(
    rank: int, address: str, is_back: bool, absent_s: float, reached: Collection[int], quorum: Quorum
) -> str:
    """One line for the log. `reached`: the ranks of the nodes that are in reach, with that of whoever looks if it is
    one. `quorum`: which of them it takes."""
    if is_back:
        return f"node {rank} ({address}) is in reach again, after {absent_s:.0f} s"
    counts = counted(quorum, mask(reached), "are in reach")
    state = f"{counts}: {'the disk goes on' if quorum.decided(mask(reached)) else 'reads and writes wait'}"
    return f"node {rank} ({address}) has been out of reach for {absent_s:.0f} s: is it up, and the network? {state}"
