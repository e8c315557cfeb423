"""A database on a disk whose nodes lose their directories and machines: every acknowledged commit is there."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

from tests.chaos.database_rounds import MOST_COMMITS, DatabaseRound
from tests.chaos.databases import Postgres, Sqlite
from tests.chaos.losses import Losses

# Commits by the nodes that are left, while one has lost its directory and is down.
MOST_WITHOUT = 20
# How long a node is down or paused while another one rejoins.
LONGEST_S = 1.0


class LossRound(DatabaseRound):
    """Each cycle is the loss of a directory or a machine, what else happens until the node has learned everything, and
    a look at the rows with that node as one half of the majority."""

    least_cycles = 2  # a directory and a machine

    def __init__(
        self, kind: type[Sqlite] | type[Postgres], seed: int, cache: str, directory: Path, stack: contextlib.ExitStack
    ) -> None:
        super().__init__(kind, seed, cache, directory, stack)
        self._losses = Losses(self.disk.cluster, self.rng)
        self._left: list[Callable[[int], None]] = []

    def cycle(self) -> None:
        cluster = self.disk.cluster
        rank = self.rng.choice(cluster.ranks)
        others = [other for other in cluster.ranks if other != rank]
        self._losses.healed()
        self._until_committed(self.rng.randint(1, MOST_COMMITS))
        self._lose(rank)
        if self.rng.random() < 0.5:
            self._until_committed(self.rng.randint(1, MOST_WITHOUT))
        self._losses.rejoin()
        for _ in range(self.rng.choice((0, 1, 1, 2))):
            self._meanwhile(self.rng.choice(others))
        self._until_committed(1)
        self._losses.healed()
        self._look_without(self.rng.choice(others))

    def _lose(self, rank: int) -> None:
        """Both kinds of losses in turn, in a random order."""
        if not self._left:
            self._left = [self._losses.delete, self._losses.exchange]
            self.rng.shuffle(self._left)
        loss = self._left.pop()
        loss(rank)
        self.tally.counts["kills"] += 1
        self._count("directory deleted" if loss == self._losses.delete else "machine exchanged")

    def _meanwhile(self, other: int) -> None:
        """Something else, at any moment of the rejoining. No other directory is lost by it."""
        begun = self.rng.random() < 0.5
        if begun:
            self._losses.begun()
        time.sleep(self.rng.uniform(0, LONGEST_S))
        faults: dict[str, Callable[[], None]] = {
            "another killed": lambda: self._kill_for_a_while(other),
            "another paused": lambda: self._pause_for_a_while(other),
            "itself killed": lambda: self._kill_for_a_while(self._losses.rank),
            "all at once": lambda: self._recovered(self.all_at_once),
            "frontend": lambda: self._recovered(self.frontend),
            "all nodes": lambda: self._recovered(self.nodes_under_it),
        }
        if begun:
            # Not before its life is accepted: see "The same number twice" in docs/lives.md.
            faults["lost again"] = self._lose_again
        name = self.rng.choice(list(faults))
        faults[name]()
        self._count(f"{name} while it {'learns' if begun else 'rejoins'}")

    def _kill_for_a_while(self, rank: int) -> None:
        """Reads of what only this node has wait until it is back."""
        self.disk.cluster.kill(rank)
        self.tally.counts["kills"] += 1
        time.sleep(self.rng.uniform(0, LONGEST_S))
        self.disk.cluster.start(rank)

    def _pause_for_a_while(self, rank: int) -> None:
        self.disk.cluster.pause(rank)
        time.sleep(self.rng.uniform(0, LONGEST_S))
        self.disk.cluster.resume(rank)

    def _lose_again(self) -> None:
        self._losses.delete(self._losses.rank)
        self.tally.counts["kills"] += 1
        self._losses.rejoin()

    def _recovered(self, disaster: Callable[[], None]) -> None:
        disaster()
        self.check()
        self._start_writer()

    def _look_without(self, other: int) -> None:
        """Of what is read nothing was in a page cache, and all of it is at the nodes that are left."""
        if self.rng.random() < 0.5:
            self._kill(self.disk.signal_all)
        else:
            assert self.disk.frontend is not None
            self.disk.cluster.kill(other)
            self.disk.frontend.kill()
            self._kill(lambda: 2)
        self.database.gone()
        self.disk.down()
        self.disk.up(by_kernel=self.rng.random() < 0.5, without=other)
        self.database.start()
        self.check()
        self._start_writer()
        self._until_committed(1)
        self.disk.cluster.start(other)

    def _count(self, fault: str) -> None:
        self.tally.faults[f"{self._name} {fault}"] += 1
