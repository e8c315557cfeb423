"""SQLite and PostgreSQL, as the rounds of tests.chaos.database_rounds need them."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pwd
import random
import re
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from tests.chaos.commits import open_sqlite
from tests.chaos.stack import UP_S, run
from tests.processes.cluster import TIMEOUT_S, until

POSTGRES = "postgres"
# Whoever asks whether it is up is told so.
_FAULT = re.compile(r" (WARNING|ERROR|FATAL|PANIC): (?! *the database system is starting up)")


def _program(name: str) -> str:
    """Debian keeps most of PostgreSQL's programs out of PATH. FileNotFoundError if it is not there."""
    found = shutil.which(name) or max(map(str, Path("/usr/lib/postgresql").glob(f"*/bin/{name}")), default="")
    if not found:
        raise FileNotFoundError(f"{name} is not installed (Debian: postgresql)")
    return found


def why_no_postgres() -> str | None:
    """The reason why PostgreSQL cannot be run here, None if it can."""
    if os.geteuid() != 0:
        return "PostgreSQL runs as a user of its own, which takes root"
    try:
        pwd.getpwnam(POSTGRES)
        for name in ("postgres", "initdb", "psql", "pg_isready", "pg_amcheck", "pg_checksums"):
            _program(name)
    except KeyError:
        return f"there is no user {POSTGRES} (Debian: postgresql)"
    except FileNotFoundError as error:
        return str(error)
    return None


def _as_owner() -> dict[str, Any]:
    """The server refuses to run as root."""
    return {"user": POSTGRES, "group": POSTGRES, "extra_groups": []}


def _state(pid: int) -> str | None:
    """R, S, D, Z, ...; None if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return None


def _children(pid: int) -> Iterator[int]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # gone meanwhile
            if int(fields[1]) == pid:
                yield int(entry.name)


def kill_server(pid: int) -> set[int]:
    """SIGKILL to a server, of which we are the parent, and to all its children; their ids."""
    os.kill(pid, signal.SIGSTOP)  # so that it starts no more of them
    pids = {pid, *_children(pid)}
    for one in pids:
        os.kill(one, signal.SIGKILL)
    return pids


class Database(Protocol):
    """`kind` and `target` as tests.chaos.commits takes them."""

    size_bytes: int
    kind: str
    target: Path

    def start(self) -> None:
        """Until it takes commits, whatever recovery has to do."""

    def kill(self) -> int:
        """SIGKILL to what runs of it, at once; how many processes. They may end only once the disk is gone."""

    def gone(self) -> None:
        """Wait until they have."""

    def rows(self) -> dict[int, str]:
        """Number -> MD5 of the content. AssertionError if the database finds itself damaged."""


class Sqlite:
    size_bytes = 64 << 20

    def __init__(self, directory: Path, files: Path, rng: random.Random) -> None:
        self.kind = rng.choice(("sqlite-wal", "sqlite-delete"))
        self.target = files / "rows.sqlite"

    def start(self) -> None:
        pass  # there is no server

    def kill(self) -> int:
        return 0

    def gone(self) -> None:
        pass

    def rows(self) -> dict[int, str]:
        with contextlib.closing(open_sqlite(self.target, self.kind.removeprefix("sqlite-"))) as connection:
            (state,) = connection.execute("PRAGMA integrity_check").fetchone()
            assert state == "ok", state
            try:
                rows = connection.execute("SELECT n, v FROM rows").fetchall()
            except sqlite3.OperationalError as error:
                assert "no such table" in str(error), error
                return {}
            return {number: hashlib.md5(text.encode()).hexdigest() for number, text in rows}


class Postgres:
    size_bytes = 192 << 20

    def __init__(self, directory: Path, files: Path, rng: random.Random) -> None:
        self.kind = POSTGRES
        self.target = directory / "socket"
        self._log = directory / "postgres.log"
        self._data = files / "data"
        self._process: subprocess.Popen[bytes] | None = None
        self._pids: set[int] = set()
        owner = pwd.getpwnam(POSTGRES)
        directory.chmod(0o711)  # the server must get through to what is its own
        for path in (self.target, self._data):
            path.mkdir(mode=0o700)
            os.chown(path, owner.pw_uid, owner.pw_gid)
        self._run("initdb", "-D", self._data, "-A", "trust", "--data-checksums", "--wal-segsize=1", "--no-locale")

    def start(self) -> None:
        options = ["listen_addresses=", f"unix_socket_directories={self.target}", "shared_buffers=16MB",
                   "min_wal_size=4MB", "max_wal_size=16MB"]
        command = [_program("postgres"), "-D", str(self._data)]
        for option in options:
            command += ["-c", option]
        with open(self._log, "ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/",
                                             **_as_owner())
        until(self._is_ready, f"PostgreSQL is up, see {self._log}", UP_S)

    def _is_ready(self) -> bool:
        assert self._process is not None and self._process.poll() is None, self._log.read_text()
        command = [_program("pg_isready"), "-q", "-h", str(self.target), "-U", POSTGRES]
        return subprocess.run(command, check=False).returncode == 0

    def kill(self) -> int:
        if self._process is None:
            return 0
        self._pids = kill_server(self._process.pid)
        return len(self._pids)

    def gone(self) -> None:
        if self._process is not None:
            self._process.wait(TIMEOUT_S)
            until(lambda: all(_state(pid) in (None, "Z") for pid in self._pids), "PostgreSQL is gone")
            self._process = None

    def stop(self) -> None:
        """In order: what is in memory is written, and connections end."""
        assert self._process is not None
        self._process.send_signal(signal.SIGINT)
        assert self._process.wait(TIMEOUT_S) == 0, self._log.read_text()
        self._process = None

    def check_structures(self) -> None:
        """Indexes against tables, and tables by themselves. AssertionError if something does not fit."""
        run(_program("pg_amcheck"), "-h", self.target, "-U", POSTGRES, "--install-missing", "--heapallindexed",
            "--parent-check", POSTGRES)

    def check_pages(self) -> None:
        """The checksums of all pages of the server, which is stopped. AssertionError if one is wrong."""
        self._run("pg_checksums", "--check", "-D", self._data)

    def faults(self) -> list[str]:
        """The lines of the server's log that say that something has failed."""
        return [line for line in self._log.read_text().splitlines() if _FAULT.search(line)]

    def rows(self) -> dict[int, str]:
        if self._query("SELECT to_regclass('rows') IS NOT NULL") != "t":
            return {}
        lines = self._query("SELECT n, md5(v) FROM rows").splitlines()
        by_index = self._query("SET enable_seqscan = off; SELECT count(*) FROM rows WHERE n > 0")
        assert int(by_index) == len(lines), "the index and the table do not agree"
        return {int(number): digest for number, _, digest in (line.partition("|") for line in lines)}

    def _query(self, text: str) -> str:
        return run(_program("psql"), "-X", "-q", "-A", "-t", "-h", self.target, "-U", POSTGRES, "-c", text,
                   POSTGRES).strip()

    def _run(self, program: str, *arguments: str | Path) -> None:
        done = subprocess.run([_program(program), *map(str, arguments)], capture_output=True, text=True, check=False,
                              cwd="/", **_as_owner())
        assert done.returncode == 0, f"{program}: {done.stdout}{done.stderr}"
