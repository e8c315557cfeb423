"""Linearizability of registers whose written values are unique, after Gibbons and Korach ("Testing shared
memories", SIAM J. Comput. 1997, section 4).

Each write and the reads of its value are a cluster. Let m be the first end and M the last start in it.

    m < M   forward zone [m, M]: one operation of the cluster was over before another began, so the register
            held this value from m to M without a break
    M <= m  backward zone [M, m]: all operations overlap somewhere in it, and any one moment there will do for all

A history of one register is linearizable if and only if

    C1  every value read was written, and no read of it ended before its write began
    C2  no two forward zones overlap
    C3  no backward zone lies inside a forward zone

Two operations that touch in one moment count as concurrent. Registers are independent of each other
(linearizability is local), so a history of many is checked register by register. O(n log n) in all.

Zeros are written more than once, and a register begins with them. Each write of them has a value of its own, from
ZEROED on, and all are read as INITIAL. Such a read is taken for one of the only write that it can have seen, where
there is only one; else it says nothing. So with zeros a history that is found wrong is wrong, and some that are wrong
are not found.
"""

from __future__ import annotations

import enum
import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import NamedTuple

# The value of a register nobody has written: zeros. No write may use it.
INITIAL = 0
OPEN = math.inf
# Values from here on are zeros.
ZEROED = 1 << 62


class Operation(NamedTuple):
    """One read or write of one sector, from its call to its return, in seconds or any unit that orders.

    `value`: what was written or read. `end`: OPEN if the outcome is unknown; an unknown read is best left out.
    `crashed`: when the client of an operation of unknown outcome died; OPEN if it lives.
    `label`: for people.
    """

    sector: int
    is_write: bool
    value: int
    start: float
    end: float = OPEN
    crashed: float = OPEN
    label: str = ""

    def __str__(self) -> str:
        kind = "write" if self.is_write else "read"
        end = "?" if self.end == OPEN else f"{self.end:.6f}"
        label = f" {self.label}" if self.label else ""
        return f"{kind} of {self.value} in [{self.start:.6f}, {end}]{label}"


class Fault(enum.Enum):
    """Which condition a violation breaks."""

    NEVER_WRITTEN = "a value was read that nobody wrote"
    WRITTEN_TWICE = "a value was written twice: the history cannot be checked"
    FROM_THE_FUTURE = "a read ended before the write of its value began"
    OVERLAP = "two values were each held throughout one and the same time"
    OVERWRITTEN = "a value came and went while another was held throughout"


class Violation(NamedTuple):
    """`operations`: those that contradict each other, enough to see it by."""

    sector: int
    fault: Fault
    operations: tuple[Operation, ...]

    def __str__(self) -> str:
        lines = [f"sector {self.sector}: {self.fault.value}", *(f"    {operation}" for operation in self.operations)]
        return "\n".join(lines)


class _Cluster:
    """A write, and the reads of its value. `first_end` and `last_start` are m and M of the module's text."""

    __slots__ = ("certain", "first_end", "last_start", "reads", "write")

    def __init__(self, write: Operation | None, certain: bool) -> None:
        self.write = write  # None: the initial value, written before everything
        self.certain = certain  # whether it is known that the write happened
        self.first_end = -math.inf if write is None else write.end
        self.last_start = -math.inf if write is None else write.start
        self.reads: list[Operation] = []

    def add(self, read: Operation) -> None:
        self.reads.append(read)
        if read.end < self.first_end:
            self.first_end = read.end
        if read.start > self.last_start:
            self.last_start = read.start

    def witnesses(self) -> tuple[Operation, ...]:
        """The write, the operation that ended first and the one that began last."""
        members = [*([] if self.write is None else [self.write]), *self.reads]
        first = min(members, key=lambda operation: operation.end)
        last = max(members, key=lambda operation: operation.start)
        return tuple(dict.fromkeys([*([] if self.write is None else [self.write]), first, last]))


def check(history: Iterable[Operation], *, strict: bool = False) -> list[Violation]:
    """What is wrong with the history: at most one violation per sector; [] if it is linearizable.

    A write of unknown outcome may take effect at any time after its start, or never. `strict`: if its
    client crashed, at any time before the crash, or never (strict linearizability, Aguilera and Frolund).
    """
    sectors: dict[int, list[Operation]] = {}
    for operation in history:
        known = sectors.get(operation.sector)
        if known is None:
            sectors[operation.sector] = [operation]
        else:
            known.append(operation)
    found = (_check_register(sector, operations, strict) for sector, operations in sectors.items())
    return [violation for violation in found if violation is not None]


def _check_register(sector: int, operations: Sequence[Operation], strict: bool) -> Violation | None:
    operations = _with_zeros_told_apart(operations)
    clusters: dict[int, _Cluster] = {INITIAL: _Cluster(None, False)}
    for operation in operations:
        if operation.is_write:
            if operation.value in clusters:
                other = clusters[operation.value].write
                return Violation(sector, Fault.WRITTEN_TWICE, (operation, *([] if other is None else [other])))
            write = operation
            if strict and write.end == OPEN:
                write = write._replace(end=write.crashed)
            clusters[write.value] = _Cluster(write, operation.end != OPEN)
    for operation in operations:
        if not operation.is_write:
            cluster = clusters.get(operation.value)
            if cluster is None:
                return Violation(sector, Fault.NEVER_WRITTEN, (operation,))
            if cluster.write is not None and operation.end < cluster.write.start:
                return Violation(sector, Fault.FROM_THE_FUTURE, (cluster.write, operation))
            cluster.add(operation)
    return _check_zones(sector, clusters.values())


def _with_zeros_told_apart(operations: Sequence[Operation]) -> Sequence[Operation]:
    """See the module: reads of zeros as reads of one write of them, or of INITIAL."""
    writes = [operation for operation in operations if operation.is_write]
    zeroed = [write for write in writes if write.value >= ZEROED]
    if not zeroed:
        return operations
    told: list[Operation] = []
    for operation in operations:
        if operation.is_write or operation.value != INITIAL:
            told.append(operation)
            continue
        # What was written wholly after a write, and wholly before the read, hides it.
        last = max((write.start for write in writes if write.end < operation.start), default=-math.inf)
        seen = [write.value for write in zeroed if write.start <= operation.end and write.end >= last]
        if last == -math.inf:
            seen.append(INITIAL)
        if len(seen) <= 1:  # none: it contradicts the write that hides all, as a read of INITIAL does
            told.append(operation._replace(value=seen[0] if seen else INITIAL))
    return told


def _check_zones(sector: int, clusters: Iterable[_Cluster]) -> Violation | None:
    forward: list[_Cluster] = []
    backward: list[_Cluster] = []
    for cluster in clusters:
        if cluster.first_end < cluster.last_start:
            forward.append(cluster)
        elif cluster.reads or cluster.certain:  # else it need not have happened
            backward.append(cluster)
    forward.sort(key=lambda cluster: cluster.first_end)
    for one, next_ in zip(forward, forward[1:], strict=False):
        if next_.first_end < one.last_start:
            return Violation(sector, Fault.OVERLAP, one.witnesses() + next_.witnesses())
    # The forward zones are disjoint by now, so only the last one that begins before the backward zone can hold it.
    begins = [cluster.first_end for cluster in forward]
    for cluster in backward:
        at = bisect_left(begins, cluster.last_start) - 1
        if at >= 0 and cluster.first_end < forward[at].last_start:
            return Violation(sector, Fault.OVERWRITTEN, forward[at].witnesses() + cluster.witnesses())
    return None

