"""All scenarios, with what they need and how long a round of each takes."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

from tests.chaos.full_disk import FullDiskScenario, why_no_small_disks
from tests.chaos.io_errors import IoErrorsScenario
from tests.chaos.namespaces import why_no_namespaces
from tests.chaos.network import NetworkScenario
from tests.chaos.rounds import Run, run_registers
from tests.chaos.scenario import Scenario
from tests.conftest import why_no_fuse


@dataclasses.dataclass(frozen=True)
class Entry:
    """`seconds`: how long faults go on in a round; `small`: in one of `make test`. `why_not`: why this host cannot
    run it, None if it can."""

    name: str
    run: Run
    seconds: float
    small: float
    why_not: Callable[[], str | None]


def _always() -> str | None:
    return None


def _registers(kind: type[Scenario], why_not_: Callable[[], str | None]) -> Entry:
    return Entry(kind.name, functools.partial(run_registers, kind), 25.0, 5.0, why_not_)


SCENARIOS = {entry.name: entry for entry in (
    _registers(Scenario, _always),
    _registers(NetworkScenario, why_no_namespaces),
    _registers(FullDiskScenario, why_no_small_disks),
    _registers(IoErrorsScenario, why_no_fuse),
)}


def why_not(name: str) -> str | None:
    return SCENARIOS[name].why_not()
