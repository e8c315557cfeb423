"""Requests that are taken back while they are being fetched, because the process that made them was killed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuse.tools import Server, connection_of, wait_until

pytestmark = pytest.mark.fuse


def test_a_request_taken_back_stops_nothing(tmp_path: Path, servers: list[Server], fault: Path) -> None:
    """Found by nodes that were killed on a FUSE disk, when the device was read by calls that wait: the answers to
    everybody else were held up with it, until one of them would have asked for something else."""
    mountpoint, hasty = tmp_path / "disk", Path(f"{fault}.hasty")
    mountpoint.mkdir()
    fault.touch()
    command = [sys.executable, "-m", "tests.fuse.hasty_mount", str(mountpoint), str(1 << 20), str(fault)]
    server = Server(mountpoint, command)
    servers.append(server)
    assert server.line() == "up", server.log
    waiting = connection_of(server) / "waiting"
    with server.image.open("rb", buffering=0) as image:
        for _ in range(3):
            image.seek(0)
            fault.write_text("hang")
            with subprocess.Popen(["head", "-c", "4096"], stdin=image, stdout=subprocess.DEVNULL) as reader:
                try:
                    wait_until(lambda: int(waiting.read_text()) > 0, "the read is under way")
                    hasty.touch()
                    wait_until(lambda: not hasty.exists(), "the next request is fetched hastily")
                    fault.write_text("")
                    wait_until(lambda: reader.poll() is not None, "the read is answered")
                except BaseException:
                    server.process.kill()  # or the reader could not even be killed, and would be waited for
                    raise
            assert reader.returncode == 0
