"""Which binding serves a mount: what is chosen, what is said about it, and what the process has loaded."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
import trio.testing

from dsreg.volume import Volume
from fuse_frontend import bindings, state
from fuse_frontend.files import IMAGE_INODE, DiskFiles
from fuse_frontend.mounts import MountError
from tests.fuse.test_cluster import FUSE, mount
from tests.fuse.test_operations import Disk
from tests.fuse.tools import WAIT_S, Server, run

__all__ = ["mount"]


@pytest.mark.parametrize(
    ("wanted", "loop_device", "chosen"),
    [("auto", False, "pyfuse3"), ("auto", True, "direct"), ("pyfuse3", True, "pyfuse3"), ("direct", False, "direct")],
)
def test_what_is_chosen(wanted: str, loop_device: bool, chosen: str) -> None:
    assert bindings.choose(wanted, loop_device=loop_device) == chosen


def test_without_pyfuse3_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for wanted in ("auto", "pyfuse3"):
        with pytest.raises(MountError, match=r"pip install 'dsreg\[fuse\]'.*--binding=direct"):
            bindings.choose(wanted, loop_device=False)
    assert bindings.choose("auto", loop_device=True) == bindings.choose("direct", loop_device=False) == "direct"


@pytest.mark.fuse
@pytest.mark.parametrize(
    ("options", "name"),
    [((), "pyfuse3"), (("--attach",), "direct"), (("--binding=direct",), "direct"),
     (("--attach", "--binding=pyfuse3"), "pyfuse3")],
)
def test_what_serves_is_said_and_is_what_is_loaded(
    mount: Callable[..., Server], loop_devices: None, options: tuple[str, ...], name: str, tmp_path: Path
) -> None:
    server = mount("disk", *options, environment={"XDG_DATA_HOME": str(tmp_path / "data")})
    server.wait_for_log(f"(FUSE binding: {name})")
    serving = state.recall(server.mountpoint)
    assert serving is not None and serving.binding == name
    maps = Path(f"/proc/{serving.pid}/maps").read_text()
    assert ("pyfuse3" in maps and "libfuse3" in maps) == (name == "pyfuse3")


def test_the_help_names_them() -> None:
    shown = run(sys.executable, "-m", "fuse_frontend.cli", "--help").stdout
    assert "--binding [auto|pyfuse3|direct]" in shown


def test_a_state_file_of_before_is_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "runtime_directory", lambda: tmp_path)
    mountpoint = tmp_path / "disk"
    (tmp_path / state.file_name(mountpoint, ".json")).write_text(
        json.dumps({"mountpoint": str(mountpoint), "pid": 1, "started": 1}))
    serving = state.recall(mountpoint)
    assert serving is not None and serving.binding is None and FUSE


async def test_a_request_that_is_alone_is_sent() -> None:
    """The disk answers at the end of a turn: whatever is asked ends that turn, and waits for no other request."""
    from fuse_frontend.library import Operations, _Turns

    files = DiskFiles(Volume(Disk(holds=True)), 1000, 1001)
    turns = _Turns(files.end_turn)
    operations = Operations(files, turns.end_turn_soon)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(turns.run)
        with trio.fail_after(WAIT_S):
            assert await operations.write(IMAGE_INODE, 0, b"alone") == 5
            assert await operations.read(IMAGE_INODE, 0, 5) == b"alone"
            await operations.fsync(IMAGE_INODE, False)
        nursery.cancel_scope.cancel()


async def test_what_is_submitted_while_a_turn_ends_has_a_turn_of_its_own() -> None:
    """Else nobody sends it, and whoever asked for it waits for ever."""
    from fuse_frontend.library import _Turns

    ended = 0

    def end_turn() -> None:
        nonlocal ended
        ended += 1
        if ended == 1:
            turns.end_turn_soon()

    turns = _Turns(end_turn)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(turns.run)
        for expected in (2, 3):
            await trio.testing.wait_all_tasks_blocked()
            turns.end_turn_soon()
            turns.end_turn_soon()  # of another task: one turn serves both
            await trio.testing.wait_all_tasks_blocked()
            assert ended == expected
        nursery.cancel_scope.cancel()
