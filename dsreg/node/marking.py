"""Marking: raises the mark of this node's directory and keeps those of the others, so that an older state of a
directory that is put back is noticed. docs/lives.md, rule 18; the decisions: dsreg.register.marks.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

from dsreg.errors import OlderDirectory
from dsreg.node.interpreter import Interpreter
from dsreg.protocol.life import Life
from dsreg.protocol.messages import LivesReport
from dsreg.register.lives import Lives
from dsreg.register.marks import DirectoryCheck, Marks
from dsreg.register.quorum import Quorum
from dsreg.storage.lives import LivesFile
from dsreg.storage.marks import Heard
from dsreg.storage.state import first_mark

log = logging.getLogger("dsreg.node")

# The next mark goes with the first commit that comes so long after the last one: what is acknowledged meanwhile is what
# the directory may be older by without being noticed.
MARK_AFTER_S = 10.0
# What was heard of the others is written so long after the last time: after a restart it is what this node can tell.
KEEP_AFTER_S = 60.0


class Marking:
    """Of the node `rank`. `tell_nodes`: tells the other nodes what this one says of lives."""

    def __init__(
        self, rank: int, quorum: Quorum, lives: Lives, file: LivesFile, interpreter: Interpreter,
        tell_nodes: Callable[[], None],
    ) -> None:
        storage = interpreter.storage
        self.check = DirectoryCheck(rank, quorum, file.own, storage.promises.state.mark)
        self.marks = Marks(rank, storage.marks.heard)
        # Whether the directory has begun, and it is yet to be heard whether that is an older state. Not in a cluster of
        # one node, where there is nobody to ask.
        self.waits = file.begun and not self.check.is_passed
        self.on_keep: Callable[[Heard], None] = self._keep
        self.mark_after_s, self.keep_after_s = MARK_AFTER_S, KEEP_AFTER_S
        self._lives = lives
        self._file = file
        self._interpreter = interpreter
        self._tell_nodes = tell_nodes
        self._raising = 0  # the mark that is to become durable; 0: none is
        self._raise_s = math.inf  # when the next one is due
        self._keep_s = math.inf  # when what was heard is to be written
        self._is_kept = True  # whether all that was heard is in the file, or on its way there
        self._is_keeping = False

    # --- what is told and heard ---------------------------------------------------------------------
    @property
    def own(self) -> int:
        """The mark of this directory, as others may hear it: durable. 0 before the node has served with it."""
        return self.check.mark if self._file.begun else 0

    def told(self, report: LivesReport, *, configures: bool) -> None:
        """Another node has said this, and its lives are taken. `configures`: see DirectoryCheck. Raises
        OlderDirectory."""
        if self.marks.take(report, self._lives.known):
            self._keep_later()
        self.check.told(report, self._lives, configures=configures)
        if self.check.is_older:
            raise OlderDirectory(
                f"this directory is an older state of itself, put back from a copy, or a copy of it is in use: node "
                f"{report.rank} has heard of its mark {self.check.highest}, it has {self.check.mark}. What was "
                "acknowledged in between is not in it: the node takes the next life of its rank, and learns what the "
                "others have; what it has is kept as a source"
            )

    def reconfigured(self, quorum: Quorum) -> None:
        """This one is in force. An older state of this directory would not know of it."""
        self.check.reconfigured(quorum)
        if self._interpreter.started:
            self.raise_mark(urgent=True)

    def passes(self) -> bool:
        """Whether the node may begin to serve with a directory that has begun."""
        self.waits = not self.check.is_passed
        return not self.waits

    def rejoined(self, own: Life) -> None:
        """The node has this life, which is accepted: it has no earlier state."""
        self.check.claims(own)

    def begin(self) -> None:
        """The node begins to serve."""
        self.raise_mark(urgent=True)

    def raise_mark(self, *, urgent: bool) -> None:
        """With the next commit; `urgent`: with one of its own, if there is no other."""
        self._raise_s = math.inf
        if self.check.is_alone:
            return
        promises = self._interpreter.storage.promises
        self._raising = max(self.check.mark, self._raising, first_mark(promises.state.incarnation)) + 1
        self._interpreter.when_done(promises.mark(self._raising, urgent=urgent), self._raised)

    def _raised(self) -> None:
        mark = self._interpreter.storage.promises.state.mark
        if mark == self.check.mark:
            return  # two became durable together
        self.check.mark = mark
        if mark >= self._raising:
            self._raising = 0
            self._raise_s = self._interpreter.clock() + self.mark_after_s
        self._tell_nodes()

    def report(self) -> dict[str, object]:
        """For STATUS."""
        marks = self.marks.told(self._lives.known)
        return {"mark": self.own, "marks": {str(rank): mark for rank, mark in sorted(marks.items())}}

    # --- time ---------------------------------------------------------------------------------------
    @property
    def next_due(self) -> float:
        return min(self._raise_s, self._keep_s)

    def tick(self) -> None:
        now = self._interpreter.clock()
        if now >= self._raise_s:
            self.raise_mark(urgent=False)
        if now >= self._keep_s:
            self._keep_s = math.inf
            self._is_kept = self._is_keeping = True
            self.on_keep(dict(self.marks.heard))

    def _keep_later(self) -> None:
        self._is_kept = False
        if self._keep_s == math.inf and not self._is_keeping:
            self._keep_s = self._interpreter.clock() + self.keep_after_s

    def _keep(self, heard: Heard) -> None:
        self.kept(self._interpreter.storage.marks.write(heard))

    def kept(self, is_kept: bool) -> None:
        """What `on_keep` was given is written; or there was no room for that."""
        self._is_keeping = False
        if not (is_kept and self._is_kept):
            self._keep_later()

    def stop(self) -> None:
        """Write what is not kept yet, if there is room: who stops this node may go on with the others. Blocks. Raises
        SyncFailed."""
        if not self._is_kept:
            self._interpreter.storage.marks.write(self.marks.heard)
