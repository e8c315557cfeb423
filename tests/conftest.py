"""What holds for every test: no unexpected log records, seeds that are printed, skips with the reason, failures that
are printed at once, and what may run beside what.

A test marked `fuse` is skipped, with the reason, where FUSE cannot be mounted, and one marked `pure` on
the compiled build (`make compiled`). A test marked `allow_logs(regex, ...)`, or one that calls the
fixture of that name, expects warnings or errors to be logged. Random tests take their randomness from
the fixtures `seed` and `rng`.
"""

from __future__ import annotations

import logging
import os
import random
import re
import shutil
import signal
from collections.abc import Callable, Iterator

import hypothesis
import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from dsreg.version import is_compiled

SEED_VARIABLE = "DSREG_TEST_SEED"

# A deadline per example says more about the load of the machine than about the code.
hypothesis.settings.register_profile("dsreg", deadline=None, print_blob=True)
hypothesis.settings.load_profile("dsreg")


def pytest_configure(config: pytest.Config) -> None:
    marker = "allow_logs(*regexes): warnings and errors that the test expects to see logged; none given: any"
    config.addinivalue_line("markers", marker)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell without job control starts what is in the background with SIGINT ignored. Processes inherit that, and
        # those that tests interrupt would not hear it.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if not hasattr(config, "workerinput"):  # of several processes the one that reports
        config.pluginmanager.register(_Failures(config), "failures-at-once")


# --- several at a time ------------------------------------------------------------------------------
# These take loop devices, mounts and namespaces, which are the system's: one process runs them all. A namespace of
# mounts has a copy of all that is mounted when it is made: beside it umount leaves a device in use.
_ALONE = (
    "tests/fuse/", "tests/nbd/", "tests/chaos/", "tests/bench/", "tests/system/", "tests/test_readme",
    "tests/test_demo", "tests/cli/test_addresses", "tests/storage/test_file_systems", "tests/storage/test_faults",
    "tests/processes/test_disk",
)


class _Scheduling(LoadScopeScheduling):  # type: ignore[misc]  # it has no types
    """What is of one file runs in one process."""

    def _split_scope(self, nodeid: str) -> str:
        return "the system's" if nodeid.startswith(_ALONE) else nodeid.partition("::")[0]


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    return _Scheduling(config, log)


# --- failures -------------------------------------------------------------------------------------
class _Failures:
    """Prints a failure when it happens. At the end of a long run all are printed once more, in one place."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    @pytest.hookimpl(trylast=True)  # behind the letter that stands for the outcome
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if not report.failed:
            return
        where = "" if report.when == "call" else f", in the {report.when}"
        terminal = self._config.get_terminal_writer()  # is there only when all plugins are configured
        terminal.line()
        terminal.sep("_", f"FAILED {report.nodeid}{where}", red=True)
        report.toterminal(terminal)
        for title, text in report.sections:
            terminal.sep("-", title)
            terminal.line(text.rstrip("\n"))
        terminal.flush()


# --- FUSE ---------------------------------------------------------------------------------------
def why_no_fuse() -> str | None:
    """The reason why this host cannot mount FUSE for this user, None where it can."""
    if shutil.which("fusermount3") is None:
        return "fusermount3 is not installed"
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR))
    except OSError as error:
        return f"/dev/fuse cannot be opened: {error.strerror}"
    return None


def why_not_pure() -> str | None:
    return "changes code while it runs, which compiled code does not follow" if is_compiled() else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for name, why_not in (("fuse", why_no_fuse), ("pure", why_not_pure)):
        marked = [item for item in items if item.get_closest_marker(name)]
        if marked and (reason := why_not()) is not None:
            for item in marked:
                item.add_marker(pytest.mark.skip(reason=reason))


# --- logs ---------------------------------------------------------------------------------------
class _Collector(logging.Handler):
    """Keeps warnings and worse."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture(autouse=True)
def _check_logs(request: pytest.FixtureRequest) -> Iterator[list[str]]:
    """Fails the test on a logged warning or error that it did not announce."""
    allowed: list[str] = []
    for marker in request.node.iter_markers("allow_logs"):
        allowed += marker.args or (".*",)
    collector, root = _Collector(), logging.getLogger()
    level, handlers = root.level, [*root.handlers]  # a command that runs in this process has logs of its own
    root.addHandler(collector)
    try:
        yield allowed
    finally:
        root.setLevel(level)
        root.handlers[:] = handlers
    unexpected = [
        f"{record.levelname} {record.name}: {record.getMessage()}"
        for record in collector.records
        if not any(re.search(pattern, record.getMessage(), re.DOTALL) for pattern in allowed)
    ]
    if unexpected:
        pytest.fail("unexpected log records:\n" + "\n".join(unexpected), pytrace=False)


@pytest.fixture
def allow_logs(_check_logs: list[str]) -> Callable[[str], None]:
    """Call it with a regex to expect warnings or errors whose text it is found in."""
    return _check_logs.append


# --- randomness -----------------------------------------------------------------------------------
@pytest.fixture
def seed() -> int:
    """A fresh seed, or the one in $DSREG_TEST_SEED; printed, so that a failure shows it."""
    text = os.environ.get(SEED_VARIABLE)
    value = int(text) if text else random.SystemRandom().getrandbits(32)
    print(f"seed: {SEED_VARIABLE}={value}")
    return value


@pytest.fixture
def rng(seed: int) -> random.Random:
    """Randomness that follows from `seed` alone."""
    return random.Random(seed)
