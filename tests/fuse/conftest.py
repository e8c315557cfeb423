"""Mounts, and what stands for the kernel, that are gone after the test, however it ends."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fuse_frontend import bindings
from tests.fuse.kernel_end import KernelEnd
from tests.fuse.tools import Server, clean_up, leftovers, memory_server, run, why_no_loop

SIZE = 64 << 20


@pytest.fixture
def end() -> Iterator[KernelEnd]:
    """The kernel's end of a connection without a mount."""
    end = KernelEnd()
    yield end
    end.close()


@pytest.fixture
def loop_devices() -> None:
    """Skips the test, with the reason, where there are no loop devices."""
    if (reason := why_no_loop()) is not None:
        pytest.skip(reason)


@pytest.fixture
def servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Server]]:
    """Servers put into this list are taken down after the test, with all that stands on their mounts."""
    started: list[Server] = []
    yield started
    mounted = tmp_path / "files"
    if mounted.is_dir():
        run("umount", "-l", mounted, check=False)
    for server in started:
        clean_up(server.mountpoint)
        if server.process.poll() is None:
            server.process.terminate()
            try:
                server.wait()
            except subprocess.TimeoutExpired:
                pass
            finally:
                server.process.kill()
        if server.process.stdout is not None:
            server.process.stdout.close()
        print(f"--- log of {server.mountpoint}\n{server.log}")
    assert not leftovers(tmp_path)


@pytest.fixture
def fault(tmp_path: Path) -> Path:
    """Write the name of a fault into this file to let requests of the memory disk fail."""
    return tmp_path / "fault"


@pytest.fixture(params=[bindings.DIRECT, bindings.PYFUSE3])
def binding(request: pytest.FixtureRequest) -> str:
    """What is said of a mount holds whichever binding serves it."""
    return str(request.param)


@pytest.fixture
def memory(tmp_path: Path, servers: list[Server], fault: Path, binding: str) -> Callable[..., Server]:
    """`memory(*options, size=...)`: start a mount of a memory disk and wait until it is up."""

    def start(*options: str, size: int = SIZE, name: str = "disk") -> Server:
        mountpoint = tmp_path / name
        mountpoint.mkdir(exist_ok=True)
        if binding == bindings.PYFUSE3:
            options = (*options, "--pyfuse3")
        server = memory_server(mountpoint, size, fault, *options)
        servers.append(server)
        return server

    return start


@pytest.fixture
def mounted(memory: Callable[..., Server]) -> Server:
    """A mount of a 64 MiB disk in memory."""
    server = memory()
    assert server.line() == "up", server.log
    return server
