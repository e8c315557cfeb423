"""The test run itself: failures are printed when they happen, what hangs fails, and an ignored SIGINT is not handed
down to processes."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from pathlib import Path

PROJECT = Path(__file__).parent.parent

_SUITE = """
    import pathlib
    import signal
    import subprocess
    import sys

    import pytest

    @pytest.fixture
    def taken_down():
        yield
        assert False, "the teardown"

    def test_that_fails():
        print("the seed")
        assert 1 == 2

    def test_that_sees_it(capfd):
        sys.stdout.flush()
        text = pathlib.Path("output").read_text()
        assert "FAILED" in text and "assert 1 == 2" in text and "the seed" in text

    def test_with_a_bad_teardown(taken_down):
        pass

    def test_that_sees_that():
        assert "in the teardown" in pathlib.Path("output").read_text()

    @pytest.mark.timeout(1)
    def test_that_hangs():
        subprocess.run(["sleep", "1000"])

    def test_that_sees_where():
        assert "subprocess.run" in pathlib.Path("output").read_text()

    def test_a_process_can_be_interrupted():
        code = "import signal, sys; sys.exit(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)"
        assert subprocess.run([sys.executable, "-c", code]).returncode == 0
"""


def test_failures_show_at_once_and_sigint_is_heard_in_the_background(tmp_path: Path) -> None:
    """A suite of its own, started as a shell starts `make test &`. It reads its own output as it comes."""
    (tmp_path / "test_suite.py").write_text(textwrap.dedent(_SUITE))
    (tmp_path / "conftest.py").write_text((PROJECT / "tests/conftest.py").read_text())
    with open(tmp_path / "output", "wb") as output:
        subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "--color=no", "--rootdir", tmp_path, "test_suite.py"],
            cwd=tmp_path, stdout=output, stderr=output, timeout=120, env={"PYTHONPATH": str(PROJECT)},
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
        )
    text = (tmp_path / "output").read_text()
    assert "2 failed, 5 passed, 1 error" in text, text
