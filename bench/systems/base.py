"""What is asked of a system under test."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import ClassVar

from bench.fio import missing_engine
from bench.jobs import Target, block_device
from bench.shell import missing_tools


class System(ABC):
    """One setup that serves a disk. Most do so as a block device, `device`, which is empty until `start` has returned;
    where `has_device` is not so, fio's I/O engine `engine` is the client, and `target` is overridden.

    `key` names it in the raw figures and its directory, `label` in tables and plots, `durable` says when a write
    is acknowledged. `replicas` is how many can be killed without losing the device, 0 where there are none.
    """

    tools: ClassVar[tuple[str, ...]] = ()
    packages: ClassVar[tuple[str, ...]] = ()  # of Debian, with those tools
    has_device: ClassVar[bool] = True
    engine: ClassVar[str] = "libaio"

    def __init__(self, key: str, label: str, durable: str) -> None:
        self.key = key
        self.label = label
        self.durable = durable
        self.device = ""
        self.replicas = 0

    def missing(self) -> str | None:
        """Why it cannot be measured here, None where it can."""
        lacking = missing_tools(*self.tools)
        return f"not installed: {', '.join(lacking)}" if lacking else missing_engine(self.engine)

    def target(self) -> Target:
        """What fio is told, once `start` has returned."""
        return block_device(self.device)

    @abstractmethod
    def start(self, directory: Path, size: int, stack: ExitStack) -> None:
        """Set up a disk of `size` bytes below `directory`, which is empty. What takes it down goes to `stack`,
        step by step, so that a start that fails half-way is undone, too. Raises BenchFailed."""

    @abstractmethod
    def roots(self) -> Sequence[int]:
        """The pids whose trees are this system's processes; empty where it is all in the kernel."""

    def version(self) -> str:
        """What was measured, in one line."""
        return ""

    def memory_pids(self) -> list[int]:
        """The process of each replica."""
        return []

    def kill_replica(self, number: int) -> None:
        """SIGKILL to replica `number`, counted from 0, of `replicas`."""
        raise NotImplementedError(f"{self.label} has no replicas")

    def restore(self) -> None:
        """Return when all replicas are back and have caught up. Raises BenchFailed."""
        raise NotImplementedError(f"{self.label} has no replicas")
