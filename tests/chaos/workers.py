"""The client processes of a round, and what they saw."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from tests.chaos.record import operations
from tests.processes.cluster import ROOT, until
from tests.simulation.checker import Operation

# Once nothing is in their way any more, all operations end within this. TCP alone may take some seconds to notice.
LIVENESS_S = 60.0


class Workers:
    """`kinds`: of the first clients, as tests.chaos.worker has them. `place`: where they run, a context in which
    processes are started."""

    def __init__(
        self, config: Path, directory: Path, rng: random.Random, kinds: Sequence[str], sectors: int,
        place: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self._config = config
        self._directory = directory
        self._rng = rng
        self._sectors = sectors
        self._place = place
        self._records: list[Path] = []
        self.running: list[tuple[str, subprocess.Popen[bytes], Path]] = []
        for kind in kinds:
            self.start(kind)

    def start(self, kind: str) -> None:
        number = len(self._records) + 1
        record = self._directory / f"{kind}-{number}"
        arguments = [self._config, record, number, self._rng.getrandbits(32), kind, self._sectors]
        log = record.with_suffix(".log")
        with self._place(), open(log, "wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.chaos.worker", *map(str, arguments)], stdin=subprocess.DEVNULL,
                stdout=output, stderr=output, cwd=self._directory, env={**os.environ, "PYTHONPATH": str(ROOT)},
            )
        self._records.append(record)
        self.running.append((kind, process, log))

    def replace_one(self) -> None:
        """SIGKILL to a client; another one of its kind takes its place."""
        index = self._rng.randrange(len(self.running))
        kind, process, _ = self.running.pop(index)
        process.kill()
        process.wait()
        self.start(kind)

    def check(self) -> None:
        """AssertionError if a client ended by itself: it ran into something that no client may see."""
        for kind, process, log in self.running:
            assert process.poll() is None, f"a client ({kind}) ended with {process.returncode}:\n{log.read_text()}"

    def until_busy(self) -> None:
        """Until each has done something."""
        until(lambda: self.check() or all(self._done(record) for record in self._records), "the clients work")

    @staticmethod
    def _done(record: Path) -> bool:
        return record.exists() and b"\nd " in record.read_bytes()

    def finish(self) -> None:
        """All operations under way must end now. AssertionError says which clients' do not."""
        self.check()
        for _, process, _ in self.running:
            process.terminate()
        deadline = time.monotonic() + LIVENESS_S
        for kind, process, log in self.running:
            try:
                code = process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                raise AssertionError(
                    f"operations of a client ({kind}) are not done {LIVENESS_S:.0f} s after the faults stopped: {log}"
                ) from None
            # One that has just been started may not have come to handling signals yet.
            assert code in (0, -signal.SIGTERM), f"a client ({kind}) ended with {code}:\n{log.read_text()}"
        self.running.clear()

    def close(self) -> None:
        for _, process, _ in self.running:
            process.kill()
            process.wait()
        self.running.clear()

    def history(self) -> list[Operation]:
        return [operation for record in self._records if record.exists() for operation in operations(record)]
