"""What is remembered of a mount: which process serves it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from fuse_frontend.state import start_time


def test_a_process_whose_name_is_not_utf8_is_recognized(tmp_path: Path) -> None:
    """Its number may have been that of a server."""
    sleep = shutil.which("sleep")
    assert sleep is not None
    program = tmp_path / os.fsdecode(b"\xff) S 1")
    shutil.copy(sleep, program)
    with subprocess.Popen([program, "60"]) as process:
        try:
            started = start_time(process.pid)
            assert started is not None and started == start_time(process.pid) >= (start_time(os.getpid()) or 0) > 0
        finally:
            process.kill()
