"""CPU time and memory of processes, by pid, and of the whole machine, from /proc."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

PROC = Path("/proc")
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
# The fields of /proc/PID/stat after the name in parentheses, counted from 0.
_PPID, _UTIME, _STIME, _RSS = 1, 11, 12, 21
_IDLE, _IOWAIT, _STEAL = 3, 4, 7


def stat_fields(text: str) -> list[str]:
    """The fields of a /proc/PID/stat from the state on. A name may have blanks and parentheses of its own."""
    return text[text.rindex(")") + 2:].split()


def _fields(pid: int) -> list[str] | None:
    """None when there is no such process (any more)."""
    try:
        return stat_fields((PROC / str(pid) / "stat").read_text(errors="replace"))
    except OSError:
        return None


def tree(roots: Iterable[int]) -> set[int]:
    """`roots` and all their descendants that are alive."""
    children: dict[int, list[int]] = {}
    alive = set()
    for entry in PROC.iterdir():
        if entry.name.isdigit() and (fields := _fields(int(entry.name))) is not None:
            alive.add(int(entry.name))
            children.setdefault(int(fields[_PPID]), []).append(int(entry.name))
    found: set[int] = set()
    pending = [pid for pid in roots if pid in alive]
    while pending:
        pid = pending.pop()
        if pid not in found:
            found.add(pid)
            pending += children.get(pid, [])
    return found


def command_line(pid: int) -> list[str]:
    """The words of its command; none when there is no such process."""
    try:
        words = (PROC / str(pid) / "cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []
    return words[:-1]


def cpu_s(pids: Iterable[int]) -> dict[int, float]:
    """Seconds that each of `pids` has used until now, user and system, all threads."""
    used = {}
    for pid in pids:
        if (fields := _fields(pid)) is not None:
            used[pid] = (int(fields[_UTIME]) + int(fields[_STIME])) / _TICKS
    return used


def resident_bytes(pid: int) -> int:
    """0 when there is no such process."""
    fields = _fields(pid)
    return 0 if fields is None else int(fields[_RSS]) * _PAGE


def busy_s(text: str | None = None) -> float:
    """Seconds that all cores have worked until now, interrupts and kernel threads included (/proc/stat)."""
    line = (PROC / "stat").read_text() if text is None else text
    fields = [int(word) for word in line.split("\n", 1)[0].split()[1:9]]
    return (sum(fields) - fields[_IDLE] - fields[_IOWAIT] - fields[_STEAL]) / _TICKS


class CpuMeter:
    """What a set of processes, and the machine without us and our children, have used since the meter was made.

    Processes that end in between are lost to the first figure, so it is for jobs in which none does.
    """

    def __init__(self, roots: Iterable[int]) -> None:
        self._roots = list(roots)
        self._before = cpu_s(tree(self._roots))
        self._busy_s = busy_s()
        self._ours_s = _own_s()

    def read(self) -> tuple[float, float]:
        """(seconds of the processes, seconds of the machine less those of the load and of this program)."""
        after = cpu_s(tree(self._roots))
        processes_s = sum(after[pid] - self._before.get(pid, 0.0) for pid in after)
        return processes_s, max(0.0, busy_s() - self._busy_s - (_own_s() - self._ours_s))


def _own_s() -> float:
    """CPU of this process and of its children that have ended: the load generators."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
