"""The order of a run: every system is up all the time, and each job goes from one to the next."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from bench import files, fio, machine, stall
from bench.jobs import CPU_JOB, JOBS, Job
from bench.processes import resident_bytes
from bench.progress import Bar
from bench.record import Run, Setup
from bench.settings import Settings
from bench.shell import BenchFailed
from bench.systems import System
from bench.systems.ours import NODES
from bench.tcp import TcpClusters, loads

FILES_JOB = "mkfs-copy-sync"
QUIET, KILLED = "none killed", "one killed"
T = TypeVar("T")
# A busy machine measures the others on it.
BUSY_LOAD_PER_CORE = 0.25


class Runner:
    """Measures `systems` by fio and the register over TCP, on each of `over_tcp`, into `run`.

    A system that cannot be started, or fails a job, is left out from then on; its setup says why.
    """

    def __init__(self, run: Run, settings: Settings, systems: list[System], over_tcp: Sequence[TcpClusters],
                 directory: Path) -> None:
        self._run = run
        self._settings = settings
        self._systems = systems
        self._over_tcp = over_tcp
        self._directory = directory
        self._tree = directory / "tree"
        self.failed = False  # whether anything is missing that was to be measured
        if os.getloadavg()[0] > BUSY_LOAD_PER_CORE * (os.cpu_count() or 1):
            run.notes.append("The machine was busy with other things when the run began (load above): "
                             "the figures are low and their order may be wrong.")

    def steps(self) -> int:
        """How many measurements there will be, for the bar."""
        replicated = sum(system.replicas > 1 for system in self._systems)
        with_device = sum(system.has_device for system in self._systems)
        a_round = len(self._systems) * len(JOBS) + with_device + 2 * replicated
        return self._settings.rounds * (a_round + len(self._over_tcp) * (len(loads(self._settings)) + 2))

    def measure(self, bar: Bar, stack: ExitStack) -> None:
        """Everything. What is set up is taken down by `stack`."""
        self._calibrate(bar, 0)
        if self._systems:
            tree = files.stage_tree(self._tree, self._settings.tree_files)
            self._run.notes.append(f"The tree that is copied: {tree}.")
            self._start_all(bar, stack)
            for number in range(self._settings.rounds):
                self._round(bar, number)
                self._calibrate(bar, number + 1)
            self._memory()
        if self._over_tcp:
            try:
                self._measure_over_tcp(bar, stack)
            except BenchFailed as error:
                self.failed = True
                self._run.notes.append(f"Over TCP not everything was measured: {error}")

    # --- by fio --------------------------------------------------------------------------------------
    def _start_all(self, bar: Bar, stack: ExitStack) -> None:
        for system in list(self._systems):
            bar.say(f"starting and filling {system.label}")
            directory = self._directory / system.key
            directory.mkdir()
            self._attempt(system, partial(self._start, system, directory, stack))

    def _start(self, system: System, directory: Path, stack: ExitStack) -> None:
        self._note(system, version=system.version())
        system.start(directory, self._settings.size, stack)
        fio.fill(system.target(), self._settings.size)

    def _round(self, bar: Bar, number: int) -> None:
        size, seconds = self._settings.size, self._settings.seconds
        for job in JOBS:
            for system in _turn(self._systems, number):
                bar.say(f"{job.title}: {system.label}")
                self._sample("fio", system, job.key, number,
                             partial(_run_job, job, system, size, seconds, self._directory))
                bar.step()
        for system in _turn(self._systems, number):
            if system.has_device:
                bar.say(f"mkfs, copy, sync: {system.label}")
                self._sample("files", system, FILES_JOB, number,
                             partial(files.mkfs_copy_sync, system.device, self._tree, self._directory / "mounted"))
                bar.step()
        for job_name in (QUIET, KILLED):
            for system in _turn(self._systems, number):
                if system.replicas > 1:
                    bar.say(f"longest stall, {job_name}: {system.label}")
                    self._sample("stall", system, job_name, number,
                                 partial(self._stall, system, number, job_name == KILLED))
                    bar.step()

    def _stall(self, system: System, number: int, with_kill: bool) -> dict[str, float]:
        kill = (lambda: system.kill_replica(number)) if with_kill else None
        figures = stall.run_stall(CPU_JOB, system.target(), self._settings.size, self._settings.stall_s, kill,
                                  self._directory)
        if with_kill:
            system.restore()
        return figures

    def _memory(self) -> None:
        for system in self._systems:
            sizes = [resident_bytes(pid) / 1e6 for pid in system.memory_pids()]
            if sizes:
                self._run.add("memory", system.key, "through the device", 0,
                              {"mean_MB": sum(sizes) / len(sizes), "max_MB": max(sizes)})

    # --- over TCP ------------------------------------------------------------------------------------
    def _measure_over_tcp(self, bar: Bar, stack: ExitStack) -> None:
        for clusters in self._over_tcp:
            for nodes in self._settings.tcp_nodes:
                bar.say(f"starting {nodes} nodes")
                clusters.start(nodes, self._directory, stack)
        for number in range(self._settings.rounds):
            for load in loads(self._settings):
                for clusters in _turn(self._over_tcp, number):
                    bar.say(f"over TCP, N={load.nodes}: {load.key}")
                    self._run.add("tcp", clusters.key(load.nodes), load.key, number, clusters.measure(load))
                    bar.step()
        for clusters in self._over_tcp:
            for nodes in clusters.started():
                self._run.add("memory", clusters.key(nodes), "over TCP", 0, clusters.memory(nodes))
        for number in range(self._settings.rounds):
            for name, rank in ((QUIET, None), (KILLED, number % NODES + 1)):
                for clusters in _turn(self._over_tcp, number):
                    bar.say(f"over TCP, longest stall, {name}")
                    self._run.add("tcp-stall", clusters.key(NODES), name, number, clusters.stall(rank))
                    bar.step()

    # --- small parts ---------------------------------------------------------------------------------
    def _calibrate(self, bar: Bar, number: int) -> None:
        bar.say("calibrating")
        self._run.add("calibration", "machine", "calibration", number, machine.calibrate(self._directory))

    def _sample(self, part: str, system: System, job: str, number: int, measure: Callable[[], dict[str, float]]
                ) -> None:
        self._attempt(system, lambda: self._run.add(part, system.key, job, number, measure()))

    def _attempt(self, system: System, action: Callable[[], None]) -> None:
        try:
            action()
        except BenchFailed as error:
            self.failed = True
            self._systems.remove(system)
            self._note(system, fault=str(error))

    def _note(self, system: System, version: str | None = None, fault: str | None = None) -> None:
        for index, setup in enumerate(self._run.setups):
            if setup.key == system.key:
                self._run.setups[index] = replace(
                    setup, version=setup.version if version is None else version,
                    fault=setup.fault if fault is None else fault)
                return
        raise AssertionError(f"{system.key} is not among the setups of the run")


def _turn(measured: Sequence[T], number: int) -> Sequence[T]:
    """Another one first in each round: none is always measured after the same other one."""
    start = number % max(1, len(measured))
    return [*measured[start:], *measured[:start]]


def _run_job(job: Job, system: System, size: int, seconds: float, directory: Path) -> dict[str, float]:
    return fio.run_job(job, system.target(), size, seconds, system.roots(), directory)


def setup_of(system: System) -> Setup:
    return Setup(system.key, system.label, system.durable)
