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
# Between two looks at what the nodes have heard: marks are raised with commits.
LEAST_COMMITS = 5
# How long a node is down or paused while another one rejoins.
LONGEST_S = 1.0
# Others hear of a mark once in 10 s, and keep what they have heard once a minute: a few times that, on a busy machine.
HEARD_S = 60.0
KEPT_S = 180.0


class LossRound(DatabaseRound):
    """Each cycle is the loss of a directory or a machine, or an older state of a directory that is put back, what else
    happens until the node has learned everything, and a look at the rows with that node as one half of the majority.
    """

    kinds: tuple[str, ...] = (
        "directory deleted", "machine exchanged", "directory of 10 s ago", "directory of a minute ago",
    )

    def __init__(
        self, kind: type[Sqlite] | type[Postgres], seed: int, cache: str, directory: Path, stack: contextlib.ExitStack
    ) -> None:
        super().__init__(kind, seed, cache, directory, stack)
        self._losses = Losses(self.disk.cluster, self.rng)
        self._left: list[str] = []
        # Whether all others must not be killed before the node has noticed: they would forget what they have heard.
        self._must_notice = False

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
        if self._must_notice:
            self._losses.noticed()
        for _ in range(self.rng.choice((0, 1, 1, 2))):
            self._meanwhile(self.rng.choice(others))
        self._until_committed(1)
        self._losses.healed()
        self._look_without(self.rng.choice(others))

    def _lose(self, rank: int) -> None:
        """All kinds of losses in turn, in a random order."""
        if not self._left:
            self._left = self.rng.sample(self.kinds, len(self.kinds))
        kind = self._left.pop()
        self._must_notice = False
        if kind == "directory deleted":
            self._losses.delete(rank)
        elif kind == "machine exchanged":
            self._losses.exchange(rank)
        else:
            self._put_back(rank, is_kept=kind == "directory of a minute ago")
        self.tally.counts["kills"] += 1
        self.tally.counts["losses"] += 1
        self._count(kind)

    def _put_back(self, rank: int, *, is_kept: bool) -> None:
        """`is_kept`: the others still know, when they are killed, that there was a later state."""
        self._losses.copy(rank)
        is_known, within_s = (self._losses.is_kept, KEPT_S) if is_kept else (self._losses.is_older, HEARD_S)
        end_s = time.monotonic() + within_s
        self._until_committed(1)  # which the copy lacks, however soon
        while not is_known(rank):
            assert time.monotonic() < end_s, f"the others have not heard of a later state within {within_s:g} s"
            self._until_committed(LEAST_COMMITS)
        self._losses.put_back(rank)
        self._must_notice = not is_kept

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


class PutBackRound(LossRound):
    """A small one: an older state of a directory is put back, once."""

    kinds = ("directory of 10 s ago",)
