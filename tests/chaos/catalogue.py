"""All scenarios, with what they need and how long a round of each takes."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

from tests.chaos.database_rounds import DatabaseRound, run_database
from tests.chaos.databases import Postgres, Sqlite, why_no_postgres
from tests.chaos.full_disk import FullDiskScenario, why_no_small_disks
from tests.chaos.io_errors import IoErrorsScenario
from tests.chaos.loss_rounds import LossRound
from tests.chaos.maintenance import run_maintenance, why_no_maintenance
from tests.chaos.namespaces import why_no_namespaces
from tests.chaos.network import NetworkScenario
from tests.chaos.rounds import Run, run_registers
from tests.chaos.scenario import Scenario
from tests.conftest import why_no_fuse


@dataclasses.dataclass(frozen=True)
class Entry:
    """`seconds`: how long faults go on in a round; `small`: in one of `make test`, None: there is none. `why_not`: why
    this host cannot run it, None if it can."""

    name: str
    run: Run
    seconds: float
    small: float | None
    why_not: Callable[[], str | None]


def _always() -> str | None:
    return None


def _registers(kind: type[Scenario], why_not_: Callable[[], str | None]) -> Entry:
    return Entry(kind.name, functools.partial(run_registers, kind), 25.0, 3.0, why_not_)


def _database(
    name: str, kind: type[Sqlite] | type[Postgres], why_not_: Callable[[], str | None], small: float | None,
    cache: str = "none", sort: type[DatabaseRound] = DatabaseRound,
) -> Entry:
    return Entry(name, functools.partial(run_database, sort, kind, cache), 40.0, small, why_not_)


def why_no_disk() -> str | None:
    """The reason why this host cannot have ext4 on a loop device on a FUSE mount, None if it can."""
    return why_no_fuse() or why_no_small_disks()


def why_no_postgres_on_a_disk() -> str | None:
    return why_no_disk() or why_no_postgres()


SCENARIOS = {entry.name: entry for entry in (
    _registers(Scenario, _always),
    _registers(NetworkScenario, why_no_namespaces),
    _registers(FullDiskScenario, why_no_small_disks),
    _registers(IoErrorsScenario, why_no_fuse),
    _database("sqlite", Sqlite, why_no_disk, 2.0),
    _database("sqlite-cached", Sqlite, why_no_disk, 2.0, "writeback"),
    _database("postgres", Postgres, why_no_postgres_on_a_disk, 1.0),
    _database("sqlite-losses", Sqlite, why_no_disk, None, sort=LossRound),
    _database("sqlite-cached-losses", Sqlite, why_no_disk, None, "writeback", LossRound),
    _database("postgres-losses", Postgres, why_no_postgres_on_a_disk, None, sort=LossRound),
    Entry("maintenance", run_maintenance, 0.0, 0.0, lambda: why_no_disk() or why_no_maintenance()),
)}


def why_not(name: str) -> str | None:
    return SCENARIOS[name].why_not()
