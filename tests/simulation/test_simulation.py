"""The simulator: many seeds, the same run from the same seed, and what it is made of."""

from __future__ import annotations

import dataclasses
import errno
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dsreg.constants import SECTOR_SIZE, ZERO_SECTOR
from dsreg.testing.memory_files import Kind, keep_all
from tests.simulation.files import Crash, SimFiles
from tests.simulation.history import NO_VALUE, payload, value_of
from tests.simulation.kinds import KINDS, SWARM, TRAPS
from tests.simulation.loop import Loop
from tests.simulation.network import CLIENTS, Network, SimTransport
from tests.simulation.options import DAMAGING, FRAMES, NEMESIS, derive
from tests.simulation.simulation import simulate

ROOT = Path(__file__).resolve().parent.parent.parent
# How many seeds to run, from which on. `make test` takes always the same ones: it is about the change at hand.
SEEDS = os.environ.get("DSREG_SIMULATION_SEEDS", "1..160")

# Runs that have once shown a fault of the product, by what it was.
REGRESSIONS: dict[str, int] = {}


def run(*arguments: str, hash_seed: str = "random") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.simulation", *arguments]
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_seeds() -> None:
    done = run("--seeds", SEEDS)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    if SEEDS == "1..160":
        # The faults that the run is to stand up to have all occurred.
        occurred = set(re.findall(r"(\w+) \d+", done.stdout))
        others = {"client_put_back", "rejoin", "copy", "older", "reconfigure", "reconfigured", "went_on", "sealed",
                  "seal_broken"}
        assert occurred >= {*NEMESIS, *TRAPS, *(f"frame_{name}" for name in FRAMES), *others}


def test_regressions() -> None:
    for name, seed in REGRESSIONS.items():
        result = simulate(seed)
        assert not result.failure, f"{name}: {result.failure}"


# By nodes of the runs.
@pytest.mark.allow_logs("is not used", "is disconnected: data on its sealed", "was corrupted or reordered")
def test_one_seed_is_one_run() -> None:
    for seed in (2, 7, 15):
        first, again = simulate(seed), simulate(seed)
        assert first == again
        assert first.trace != simulate(seed + 1).trace
        listened: list[str] = []
        assert simulate(seed, listened.append).trace == first.trace
        assert listened


def test_the_trace_does_not_depend_on_the_process() -> None:
    seeds = [seed for seed in range(1, 40) if derive(seed).nodes > 1][:4]
    for seed in seeds:
        traces = {
            re.search(r"^trace (\w+)$", run("--seed", str(seed), hash_seed=hash_seed).stdout, re.MULTILINE)
            for hash_seed in ("0", "1", "random")
        }
        assert None not in traces
        assert len({match[1] for match in traces if match}) == 1, seed


def test_options_are_printed_whole() -> None:
    options = derive(5)
    for field in dataclasses.fields(options):
        assert f"{field.name}=" in str(options)


def test_options_cover_what_they_promise() -> None:
    drawn = [derive(seed) for seed in range(1, 400)]
    assert {options.nodes for options in drawn} == {1, 3, 5, 7}
    more = {"client_put_back", "rejoin", "older", "reconfigure"}
    assert {fault for options in drawn for fault in options.faults} == set(NEMESIS) | TRAPS | more
    assert {options.kind for options in drawn} == {SWARM, *KINDS}
    assert {name for options in drawn for name, _ in options.frames} == set(FRAMES)
    assert {options.sealed for options in drawn} == {0.0, 0.5, 1.0}
    assert any(options.require_sealed and options.nodes > 1 for options in drawn)
    assert any(options.contract_nodes and options.contract_clients and options.nodes > 1 for options in drawn)
    assert not any(DAMAGING & set(options.faults) for options in drawn if not options.minority)
    assert all(options.rejoins == ("rejoin" in options.faults) for options in drawn)
    assert all(options.reconfigures == ("reconfigure" in options.faults) for options in drawn)
    assert not any((options.rejoins or options.reconfigures) and DAMAGING & set(options.faults) for options in drawn)


# --- its parts ------------------------------------------------------------------------------------
def test_values_show_mixtures(rng: random.Random) -> None:
    one, other = payload(17), payload(18)
    assert (value_of(one), value_of(ZERO_SECTOR)) == (17, 0)
    for at in range(512, SECTOR_SIZE, 512):
        assert value_of(one[:at] + other[at:]) == NO_VALUE
    assert value_of(rng.randbytes(SECTOR_SIZE)) == NO_VALUE


def test_a_failed_sync_forgets_until_the_next_crash(seed: int) -> None:
    lost = 0
    for number in range(40):
        files = SimFiles(Loop(seed + number), 0.0)
        file = files.open("f", create=True)
        files.sync_dir()
        file.pwritev([b"x" * 512], 0)
        files.fail_next = Kind.SYNC
        with pytest.raises(OSError) as caught:
            file.fdatasync()
        assert caught.value.errno == errno.EIO
        file.fdatasync()
        assert file.pread(512, 0) == b"x" * 512
        after = files.after_power_loss(keep_all)
        lost += after.open("f").pread(512, 0) != b"x" * 512
    assert 0 < lost < 40


def test_power_fails_at_the_step(seed: int) -> None:
    for steps in range(1, 5):
        files = SimFiles(Loop(seed), 0.0)
        file = files.open("f", create=True)
        files.sync_dir()
        files.crash_in = steps
        done = 0
        with pytest.raises(Crash):
            for number in range(2):
                file.pwritev([b"x"], number)
                done += 1
                file.fdatasync()
                done += 1
        assert done == (steps - 1) // 2  # one step before and one after each operation


def test_handles_die_with_the_process_and_the_cache_does_not(seed: int) -> None:
    files = SimFiles(Loop(seed), 0.0)
    file = files.open("f", create=True)
    file.pwritev([b"x" * 512], 0)
    after = files.after_kill()
    with pytest.raises(OSError):
        file.pread(1, 0)
    assert after.open("f").pread(512, 0) == b"x" * 512


def test_what_is_sent_over_a_connection_arrives_in_order(rng: random.Random) -> None:
    """Also what is held up by an earlier one, and so is due at the same moment."""
    loop = Loop(rng.getrandbits(32))
    options = dataclasses.replace(derive(1), latency_s=0.003, tail=0.2, tail_s=2.0, split=0.0, frames=(), faults=())
    accepted: list[SimTransport] = []
    network = Network(loop, options, lambda rank: accepted.append)
    connected: list[SimTransport | None] = []
    network.meddles = False
    network.connect(CLIENTS, 1, False, connected.append)
    loop.run(0.1)
    network.meddles = True
    near, arrived = connected[0], []
    assert near is not None
    accepted[0].on_data = arrived.append
    sent = [number.to_bytes(4, "big") for number in range(2000)]
    for frame in sent:
        loop.run(loop.now_s + loop.between(0, 0.0005))
        near.put([frame])
        near.flush()
    loop.run(loop.now_s + 10.0)
    assert arrived == sent
