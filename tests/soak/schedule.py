"""Jobs on all cores until the time is up."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.soak.job import AT
from tests.soak.parts import Part
from tests.soak.tally import Failure, Tally

ROOT = Path(__file__).resolve().parents[2]
POLL_S = 0.1
# How long after its time a job is taken for hung: liberal, as the machine may have other things to do.
GRACE_S = 240.0
# A job shorter than this is not worth the start.
SHORTEST_S = 2.0


@dataclasses.dataclass
class Job:
    part: Part
    seed: int
    seconds: float
    directory: Path
    process: subprocess.Popen[bytes]
    started_s: float

    @property
    def log(self) -> Path:
        return self.directory / "log"

    def last_command(self) -> str:
        """What it was at, as a command to do it again."""
        lines = self.log.read_text(errors="replace").splitlines()
        commands = [line.removeprefix(AT) for line in lines if line.startswith(AT)]
        whole = f"python -m tests.soak.job '{self.part.name}' {self.seed} {self.seconds:.0f} {self.directory}"
        return commands[-1] if commands else whole


class Soak:
    """Runs `parts` on `slots` processes for `minutes`; everything follows from `seed`, except how far each part gets.

    `directory` takes logs; those of jobs that found nothing are removed.
    """

    def __init__(self, parts: Sequence[Part], slots: int, minutes: float, seed: int, directory: Path) -> None:
        self.seed = seed
        self.slots = slots
        self.directory = directory
        self.tally = Tally()
        self.by_part: dict[str, Tally] = {part.name: Tally() for part in parts}
        # What has no share of the slots runs beside them.
        self._beside = [part for part in parts if not part.share]
        self._parts = [part for part in parts if part.share]
        self.started_s = time.monotonic()
        self.end_s = self.started_s + minutes * 60
        self.running: list[Job] = []
        self.interrupted = False
        self._made: Counter[str] = Counter()
        self._used_s: dict[str, float] = {}

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self.started_s

    def run(self, progress: Callable[[Soak], None]) -> None:
        """Until the time is up and the last jobs have ended, or `stop`."""
        try:
            while not self.interrupted:
                self._fill_slots()
                if not self.running:
                    break
                progress(self)
                time.sleep(POLL_S)
                for job in list(self.running):
                    self._look_at(job)
        finally:
            for job in self.running:
                self._kill(job)

    def stop(self) -> None:
        """The jobs under way are ended and not counted. May be called by a handler of signals."""
        self.interrupted = True

    # --- starting ---------------------------------------------------------------------------------
    def _fill_slots(self) -> None:
        left_s = self.end_s - time.monotonic()
        for part in self._beside:
            # Its jobs cannot be cut short.
            if part.job_s <= left_s and not any(job.part is part for job in self.running):
                self._start(part, part.job_s)
        while self._parts and left_s >= SHORTEST_S and self._in_slots() < self.slots:
            part = self._choose()
            self._start(part, min(part.job_s, left_s))

    def _in_slots(self) -> int:
        return sum(bool(job.part.share) for job in self.running)

    def _start(self, part: Part, seconds: float) -> None:
        number = self._made[part.name]
        self._made[part.name] += 1
        seed = self.seed + number * part.step
        directory = self.directory / f"{part.name.replace(' ', '-')}-{number}"
        directory.mkdir(parents=True)
        arguments = [part.name, str(seed), f"{seconds:.1f}", str(directory)]
        with open(directory / "log", "wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.soak.job", *arguments], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log,
                stderr=log, start_new_session=True,
            )
        self.running.append(Job(part, seed, seconds, directory, process, time.monotonic()))

    def _choose(self) -> Part:
        """The one that has had least of its share. What runs has had all of its time already."""
        used_s = dict(self._used_s)
        for job in self.running:
            used_s[job.part.name] = used_s.get(job.part.name, 0.0) + job.seconds
        return min(self._parts, key=lambda part: used_s.get(part.name, 0.0) / part.share)

    # --- ending -----------------------------------------------------------------------------------
    def _look_at(self, job: Job) -> None:
        code = job.process.poll()
        ran_s = time.monotonic() - job.started_s
        if code is None and ran_s < job.seconds + GRACE_S:
            return
        if code is None:
            self._kill(job)
        self.running.remove(job)
        self._used_s[job.part.name] = self._used_s.get(job.part.name, 0.0) + ran_s
        result = job.directory / "tally.json"
        if code == 0 and result.exists():
            tally = Tally.from_json(json.loads(result.read_text()))
        else:
            tally = Tally()
            what = f"no end after {ran_s:.0f} s" if code is None else f"ended with {code}"
            tally.fail(Failure(job.part.name, what, job.last_command(), str(job.log)))
        self.tally.add(tally)
        self.by_part[job.part.name].add(tally)
        if not tally.failed:
            shutil.rmtree(job.directory, ignore_errors=True)

    @staticmethod
    def _kill(job: Job) -> None:
        """The job and what it has started, which is in its session: first asked, so that it can clean up."""
        if job.process.poll() is not None:
            return
        os.killpg(job.process.pid, signal.SIGTERM)
        try:
            job.process.wait(GRACE_S / 8)
        except subprocess.TimeoutExpired:
            os.killpg(job.process.pid, signal.SIGKILL)
            job.process.wait()
