"""One short round of each scenario, and that the tools of the rounds do what they say.

These are small doses: `python -m tests.chaos --minutes 60` and `make soak` give more.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.chaos import sweep
from tests.chaos.catalogue import SCENARIOS
from tests.chaos.commits import Commit, begun_and_committed, commits_in
from tests.chaos.faulty_disk import obey
from tests.chaos.memory_disk import BLOCK, MemoryDisk
from tests.chaos.record import VALUES_PER_CLIENT, Recorder, operations
from tests.chaos.rounds import run_round
from tests.simulation.checker import OPEN, Fault, check
from tests.soak.tally import Tally


@pytest.mark.parametrize("name", [name for name, entry in SCENARIOS.items() if entry.small is not None])
def test_a_small_round(name: str, seed: int) -> None:
    scenario = SCENARIOS[name]
    if (reason := scenario.why_not()) is not None:
        pytest.skip(reason)
    assert scenario.small is not None
    tally = run_round(name, scenario.run, seed, scenario.small)
    print(tally)
    assert not tally.failed, f"{tally.failures[0].what}\n{tally.failures[0].replay}\nlogs in {tally.failures[0].log}"
    assert tally.counts["chaos operations"] > 100 or tally.counts["commits"] > 0


def test_a_round_that_fails_says_how_to_see_it_again() -> None:
    def fails(seed: int, seconds: float, directory: Path) -> Tally:
        raise AssertionError(f"not with {seed}")

    tally = run_round("tcp", fails, 17, 2.5)
    (failure,) = tally.failures
    assert failure.what == "AssertionError: not with 17"
    assert failure.replay == "python -m tests.chaos --only tcp --seed 17 --rounds 1 --seconds 2.5"
    assert "not with 17" in (Path(failure.log) / "failure.txt").read_text()
    (Path(failure.log) / "failure.txt").unlink()
    Path(failure.log).rmdir()


# --- records --------------------------------------------------------------------------------------
def test_records_become_operations(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "one", 3)
    write = recorder.began(True, 10, 2)
    read = recorder.began(False, 10, 1)
    unknown = recorder.began(True, 12, 1)
    refused = recorder.began(True, 13, 1)
    recorder.began(False, 14, 1)
    recorder.ended(read, [write.values[0]])
    recorder.ended(write)
    recorder.not_done(refused)
    recorder.close()
    found = list(operations(tmp_path / "one"))
    assert [(op.sector, op.is_write, op.value, op.end == OPEN) for op in found] == [
        (10, False, write.values[0], False), (10, True, write.values[0], False), (11, True, write.values[1], False),
        (12, True, unknown.values[0], True),
    ]
    assert write.values[0] == 3 * VALUES_PER_CLIENT and not check(found)


def test_an_old_value_in_the_records_is_found(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "one", 1)
    for _ in range(2):
        recorder.ended(recorder.began(True, 5, 1))
    recorder.ended(recorder.began(False, 5, 1), [VALUES_PER_CLIENT])
    recorder.close()
    assert [violation.fault for violation in check(operations(tmp_path / "one"))] == [Fault.OVERWRITTEN]


def test_half_a_line_of_a_commit_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "commits").write_text("b 1 1.0\nc 1 1.5\nb 2 1.5\nc 2 4\nb 3 5.0\nc 3 5")
    assert begun_and_committed(tmp_path / "commits") == (3, {1, 2})
    assert commits_in(tmp_path / "commits") == [Commit(1, 1.0, 0.5), Commit(2, 1.5, 2.5), Commit(3, 5.0, None)]


# --- the disk that forgets ------------------------------------------------------------------------
def disk_with_a_file(seed: int) -> MemoryDisk:
    disk = MemoryDisk(seed)
    content = disk.create(b"a")
    content.write(0, b"x" * 2000)
    disk.sync(content)
    disk.sync_names()
    return disk


def test_what_is_synced_survives_a_power_cut(rng: random.Random) -> None:
    disk = disk_with_a_file(rng.getrandbits(32))
    disk.cut_power()
    assert bytes(disk.names[b"a"].data) == b"x" * 2000


def test_what_is_not_synced_is_lost_in_pieces(rng: random.Random) -> None:
    seen = set()
    for _ in range(200):
        disk = disk_with_a_file(rng.getrandbits(32))
        disk.names[b"a"].write(0, b"y" * 2000)
        disk.cut_power()
        data = bytes(disk.names[b"a"].data)
        blocks = [data[at:at + BLOCK] for at in range(0, 2000, BLOCK)]
        assert all(block in (b"x" * len(block), b"y" * len(block)) for block in blocks)
        seen.add(data)
    assert b"x" * 2000 in seen and len(seen) > 3


def test_growth_and_names_that_are_not_synced_may_be_lost(rng: random.Random) -> None:
    sizes, names = set(), set()
    for _ in range(100):
        disk = disk_with_a_file(rng.getrandbits(32))
        disk.names[b"a"].truncate(5000)
        disk.rename(b"a", b"b")
        disk.cut_power()
        ((name, content),) = disk.names.items()
        sizes.add(len(content.data))
        names.add(name)
    assert sizes == {2000, 5000} and names == {b"a", b"b"}


def test_a_failed_sync_forgets_and_the_next_succeeds(rng: random.Random) -> None:
    lost = 0
    for _ in range(50):
        disk = disk_with_a_file(rng.getrandbits(32))
        content = disk.names[b"a"]
        content.write(0, b"y" * 2000)
        assert obey(disk, "fail sync 1") == "ok"
        with pytest.raises(OSError):
            disk.sync(content)
        assert obey(disk, "heal") == "ok sync=1"
        disk.sync(content)
        lost += content.data != b"y" * 2000
    assert lost


# --- remains --------------------------------------------------------------------------------------
def test_only_what_a_dead_process_made_is_left_over() -> None:
    assert not sweep.is_left_over(f"{sweep.prefix()}x")
    assert not sweep.is_left_over("somebody-elses")
    # No process can have this id: it is above the largest that the kernel allows.
    assert sweep.is_left_over("dsreg-chaos-999999999-x")
