"""A process that commits row after row, and a file that says which: `python -m tests.chaos.commits KIND TARGET FILE`.

KIND "sqlite-wal" or "sqlite-delete": TARGET is the database file; "postgres": the directory of the server's socket.
Row N holds `content(N)`. FILE, which is not on the disk under test, gets a line "b N T" before the commit of row N and
"c N T" once it is acknowledged, at time T of CLOCK_MONOTONIC, in seconds. Goes on behind what FILE has, until it is
killed or the database fails (exit code 3).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

EXIT_FAILED = 3
TABLE = "CREATE TABLE IF NOT EXISTS rows (n INTEGER PRIMARY KEY, v TEXT NOT NULL)"


def content(number: int) -> str:
    """64 to 3,840 characters, different for each row, so that some rows need pages of their own."""
    return hashlib.sha256(str(number).encode()).hexdigest() * (1 + number % 60)


class Commit(NamedTuple):
    """Of row `number`, which was begun at the moment `begun_s`, and took so long. `took_s` is None if it was not
    acknowledged."""

    number: int
    begun_s: float
    took_s: float | None


def commits_in(path: Path) -> list[Commit]:
    """In the order in which they were begun. A killed process may leave half a line, which does not count."""
    begun: dict[int, float] = {}
    took: dict[int, float] = {}
    if path.exists():
        for line in path.read_text().splitlines(keepends=True):
            if line.endswith("\n") and len(words := line.split()) == 3:
                number, moment_s = int(words[1]), float(words[2])
                if words[0] == "b":
                    begun[number] = moment_s
                else:
                    took[number] = moment_s - begun[number]
    return [Commit(number, moment_s, took.get(number)) for number, moment_s in begun.items()]


def begun_and_committed(path: Path) -> tuple[int, set[int]]:
    """The highest number begun, and all that were acknowledged."""
    commits = commits_in(path)
    return (max((commit.number for commit in commits), default=0),
            {commit.number for commit in commits if commit.took_s is not None})


def open_sqlite(path: Path, mode: str) -> sqlite3.Connection:
    """The database with every commit durable; `mode`: wal or delete. EXTRA also syncs the directory after the
    rollback journal is deleted, without which a commit may be rolled back by a power cut."""
    connection = sqlite3.connect(path, isolation_level=None, timeout=30)
    connection.execute(f"PRAGMA journal_mode={mode}")
    connection.execute("PRAGMA synchronous=EXTRA")
    connection.execute("PRAGMA wal_autocheckpoint=50")
    return connection


@contextlib.contextmanager
def sqlite_commits(path: Path, mode: str) -> Iterator[Callable[[int], None]]:
    with contextlib.closing(open_sqlite(path, mode)) as connection:
        connection.execute(TABLE)
        yield lambda number: connection.execute("INSERT INTO rows VALUES (?, ?)", (number, content(number))) and None


@contextlib.contextmanager
def postgres_commits(directory: Path) -> Iterator[Callable[[int], None]]:
    """psql says "INSERT 0 1" once the server has said that the transaction is committed."""
    command = ["psql", "-X", "-h", str(directory), "-U", "postgres", "-v", "ON_ERROR_STOP=1", "postgres"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
    assert process.stdin is not None and process.stdout is not None
    stdin, stdout = process.stdin, process.stdout

    def execute(statement: str, expected: str) -> None:
        stdin.write(f"{statement};\n")
        stdin.flush()
        answer = stdout.readline().strip()
        if answer != expected:
            raise OSError(f"psql says {answer!r} to {statement[:80]!r}")

    try:
        execute(TABLE, "CREATE TABLE")
        yield lambda number: execute(f"INSERT INTO rows VALUES ({number}, '{content(number)}')", "INSERT 0 1")
    finally:
        process.kill()
        process.wait()


def main() -> int:
    kind, target, file = sys.argv[1:]
    begun, _ = begun_and_committed(Path(file))
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    if kind == "postgres":
        commits = postgres_commits(Path(target))
    else:
        commits = sqlite_commits(Path(target), kind.removeprefix("sqlite-"))
    number = begun + 1
    # Apart from what a line of a killed process may have left.
    os.write(descriptor, b"\n" if Path(file).read_bytes()[-1:] not in (b"", b"\n") else b"")
    try:
        with commits as commit:
            while True:
                os.write(descriptor, f"b {number} {time.monotonic()!r}\n".encode())
                commit(number)
                os.write(descriptor, f"c {number} {time.monotonic()!r}\n".encode())
                number += 1
    except (OSError, sqlite3.Error) as error:
        print(f"row {number}: {error}", file=sys.stderr)
        return EXIT_FAILED


if __name__ == "__main__":
    sys.exit(main())
