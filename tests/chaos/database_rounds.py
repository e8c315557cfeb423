"""A database on a dsreg disk that is torn away and recovered, again and again: every acknowledged commit is there."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.chaos.commits import EXIT_FAILED, begun_and_committed, content
from tests.chaos.databases import Database, Postgres, Sqlite
from tests.chaos.stack import UP_S, Stack
from tests.processes.cluster import ROOT, TIMEOUT_S, until
from tests.soak.tally import Tally

# Commits between two disasters, at least.
MOST_COMMITS = 60


class DatabaseRound:
    """`cache`: that of `dsreg-fuse`. `tally` counts; AssertionError on a commit that is lost, and on anything else that
    must not be."""

    least_cycles = 1

    def __init__(
        self, kind: type[Sqlite] | type[Postgres], seed: int, cache: str, directory: Path, stack: contextlib.ExitStack
    ) -> None:
        self.rng = random.Random(f"{kind.__name__} {seed}")
        self.tally = Tally()
        self._name = kind.__name__.lower()
        self._directory = directory
        self._record = directory / "commits"
        self._writer: subprocess.Popen[bytes] | None = None
        self.disk = Stack(directory, size_bytes=kind.size_bytes, cache=cache, stack=stack)
        self.database: Database = kind(directory, self.disk.files, self.rng)
        stack.callback(self._end_of_everything)
        self.database.start()
        self._start_writer()

    def cycle(self) -> None:
        """Some commits, a disaster, recovery, and a look at what is there."""
        disasters = (self.all_at_once, self.all_at_once, self.frontend, self.nodes_under_it, self.server)
        disaster = self.rng.choice(disasters)
        self._until_committed(self.rng.randint(1, MOST_COMMITS))
        # Anywhere in the work of the next ones.
        time.sleep(self.rng.uniform(0, 0.1))
        disaster()
        self.tally.faults[f"{self._name} {disaster.__name__.replace('_', ' ')}"] += 1
        self.check()
        self._start_writer()

    # --- disasters ----------------------------------------------------------------------------------
    def all_at_once(self) -> None:
        """Nodes, frontend, database and client, as in a power cut of everything."""
        self._kill(self.disk.signal_all)
        self._recover()

    def frontend(self) -> None:
        """The disk is gone under a database that goes on until it notices."""
        assert self.disk.frontend is not None
        self.disk.frontend.kill()
        self.tally.counts["kills"] += 1
        self._kill(lambda: 0)
        self._recover()

    def nodes_under_it(self) -> None:
        """All nodes are killed and come back: nobody above may see more of it than a pause."""
        cluster = self.disk.cluster
        self.tally.counts["kills"] += len(cluster.processes)
        cluster.kill()
        cluster.start()
        self._until_committed(1)
        self._kill_writer()

    def server(self) -> None:
        """The database alone: what it wrote and did not sync is still in the page cache."""
        self._kill(lambda: 0)
        self.database.gone()
        self.database.start()

    def _kill(self, more: Callable[[], int]) -> None:
        """SIGKILL to the rest of the stack, the database and its client; the client is waited for."""
        self.tally.counts["kills"] += more() + self.database.kill() + 1
        self._kill_writer()

    def _kill_writer(self) -> None:
        assert self._writer is not None
        self._writer.kill()
        # It may be in a system call that ends when the disk goes.
        if self.disk.frontend is not None and self.disk.frontend.poll() is not None:
            self.disk.frontend.wait()
        self._writer.wait(TIMEOUT_S)
        self._writer = None

    def _recover(self) -> None:
        self.database.gone()
        self.disk.down()
        self.disk.up(by_kernel=self.rng.random() < 0.5)
        self.database.start()

    # --- the verdict ----------------------------------------------------------------------------------
    def check(self) -> None:
        begun, committed = begun_and_committed(self._record)
        rows = self.database.rows()
        lost = sorted(committed - rows.keys())
        assert not lost, f"acknowledged commits are lost: {lost[:10]} of {len(committed)}"
        for number, digest in rows.items():
            assert number <= begun, f"row {number} was never written"
            assert digest == hashlib.md5(content(number).encode()).hexdigest(), f"row {number} is damaged"
        self.tally.counts["commits"] += len(committed)
        self.tally.counts["recoveries"] += 1

    # --- the client ---------------------------------------------------------------------------------
    def _until_committed(self, more: int) -> None:
        wanted = self._committed() + more
        until(lambda: self._writer_runs() and self._committed() >= wanted, f"{more} more commits", UP_S)

    def _committed(self) -> int:
        return len(begun_and_committed(self._record)[1])

    def _start_writer(self) -> None:
        with open(self._directory / "commits.log", "ab") as log:
            self._writer = subprocess.Popen(
                [sys.executable, "-m", "tests.chaos.commits", self.database.kind, str(self.database.target),
                 str(self._record)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self._directory,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )

    def _writer_runs(self) -> bool:
        assert self._writer is not None
        code = self._writer.poll()
        log = self._directory / "commits.log"
        what = "the database fails" if code == EXIT_FAILED else f"the client ended with {code}"
        assert code is None, f"{what} on a disk with a majority: {log.read_text()}"
        return True

    def _end_of_everything(self) -> None:
        """Nobody uses the files after this."""
        if self._writer is not None:
            self._writer.kill()
        self.database.kill()
        if self.disk.frontend is not None:
            self.disk.frontend.kill()  # lets go whoever waits for the disk
        if self._writer is not None:
            self._kill_writer()
        self.database.gone()


def run_database(
    sort: type[DatabaseRound], kind: type[Sqlite] | type[Postgres], cache: str, seed: int, seconds: float,
    directory: Path,
) -> Tally:
    """At least `sort.least_cycles`, and more as long as there is time. Raises AssertionError."""
    end_s = time.monotonic() + seconds
    with contextlib.ExitStack() as stack:
        test = sort(kind, seed, cache, directory, stack)
        cycles = 0
        while cycles < sort.least_cycles or time.monotonic() < end_s:
            test.cycle()
            cycles += 1
    test.tally.counts["chaos rounds"] = 1
    return test.tally
