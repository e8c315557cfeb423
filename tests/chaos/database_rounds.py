"""A database on a dsreg disk that is torn away and recovered, again and again: every acknowledged commit is there."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable
from pathlib import Path

from tests.chaos.databases import Database, Postgres, Sqlite
from tests.chaos.stack import Stack
from tests.chaos.writer import Writer
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
        self.disk = Stack(directory, size_bytes=kind.size_bytes, cache=cache, stack=stack)
        self.database: Database = kind(directory, self.disk.files, self.rng)
        self._writer = Writer(directory, self.database)
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
        self._writer.kill()
        # It may be in a system call that ends when the disk goes.
        if self.disk.frontend is not None and self.disk.frontend.poll() is not None:
            self.disk.frontend.wait()
        self._writer.wait()

    def _recover(self) -> None:
        self.database.gone()
        self.disk.down()
        self.disk.up(by_kernel=self.rng.random() < 0.5)
        self.database.start()

    # --- the verdict ----------------------------------------------------------------------------------
    def check(self) -> None:
        self.tally.counts["commits"] += self._writer.compare(self.database.rows())
        self.tally.counts["recoveries"] += 1

    # --- the client ---------------------------------------------------------------------------------
    def _until_committed(self, more: int) -> None:
        self._writer.until_committed(more)

    def _start_writer(self) -> None:
        self._writer.start()

    def _end_of_everything(self) -> None:
        """Nobody uses the files after this."""
        self._writer.kill()
        self.database.kill()
        if self.disk.frontend is not None:
            self.disk.frontend.kill()  # lets go whoever waits for the disk
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
