"""The process that commits rows (tests.chaos.commits), and what it has recorded."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

from tests.chaos.commits import EXIT_FAILED, begun_and_committed, content
from tests.chaos.databases import Database
from tests.chaos.stack import UP_S
from tests.processes.cluster import ROOT, TIMEOUT_S, until


class Writer:
    """One at a time; each goes on behind what the one before has recorded. Its files are in `directory`."""

    def __init__(self, directory: Path, database: Database) -> None:
        self.record = directory / "commits"
        self._log = directory / "commits.log"
        self._database = database
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with open(self._log, "ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.chaos.commits", self._database.kind, str(self._database.target),
                 str(self.record)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self._log.parent,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )

    def kill(self) -> None:
        """It may be in a system call that ends when the disk goes: `wait` after that."""
        if self._process is not None:
            self._process.kill()

    def wait(self) -> None:
        if self._process is not None:
            self._process.wait(TIMEOUT_S)
            self._process = None

    def check_runs(self) -> None:
        """AssertionError if it has ended by itself."""
        assert self._process is not None
        code = self._process.poll()
        what = "the database fails" if code == EXIT_FAILED else f"the client ended with {code}"
        assert code is None, f"{what} on a disk with a majority: {self._log.read_text()}"

    def until_committed(self, more: int) -> None:
        """Until so many more rows are acknowledged."""
        wanted = self._acknowledged() + more

        def is_enough() -> bool:
            self.check_runs()
            return self._acknowledged() >= wanted

        until(is_enough, f"{more} more commits", UP_S)

    def _acknowledged(self) -> int:
        return self.record.read_bytes().count(b"\nc ") if self.record.exists() else 0

    def compare(self, rows: dict[int, str]) -> int:
        """AssertionError unless the rows, number -> MD5 of the content, have all that was acknowledged, and nothing
        that was never written; how many were acknowledged."""
        begun, committed = begun_and_committed(self.record)
        lost = sorted(committed - rows.keys())
        assert not lost, f"acknowledged commits are lost: {lost[:10]} of {len(committed)}"
        for number, digest in rows.items():
            assert number <= begun, f"row {number} was never written"
            assert digest == hashlib.md5(content(number).encode()).hexdigest(), f"row {number} is damaged"
        return len(committed)
