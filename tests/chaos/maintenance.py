"""What operators do to a cluster in use, by the commands of the runbook: a directory is lost and its node rejoins, a
machine is exchanged, two nodes are added, two are removed. Nothing else is restarted, and PostgreSQL goes on.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import random
import re
import shlex
import shutil
import signal
import socket
import statistics
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dsreg.register.quorum import mask
from tests.chaos.commits import commits_in
from tests.chaos.databases import Postgres, why_no_postgres
from tests.chaos.hosts import Host, Operator
from tests.chaos.namespaces import Network, why_no_namespaces
from tests.chaos.stack import COMMAND_S, Disk
from tests.chaos.truth import Decided, State, Truth, check_reports, is_late
from tests.chaos.writer import Writer
from tests.processes.cluster import TIMEOUT_S, until
from tests.soak.tally import Tally

PORT = 7001
# The first three have nodes 1 to 3. The desk has the mount, and is where commands are typed; the monitor has the file
# of the first day, and looks at status.
MACHINES = ("one", "two", "three", "four", "five", "six", "desk", "monitor")
# Commits with which a step begins and ends, and that a node misses.
SOME_COMMITS = 50
# Of status, that are looked at while nothing is done.
REPORTS = 3
# A commit that takes longer is no pause of a busy machine any more.
LONGEST_S = 5.0
_FAULT = re.compile(r" (ERROR|CRITICAL) |Traceback")


def why_no_maintenance() -> str | None:
    """The reason why this host cannot have it all, None if it can; without what is asked of a disk."""
    return why_no_namespaces() or why_no_postgres()


class Maintenance:
    """Everything random follows from `seed`: whose directory is lost, which machine is exchanged, who leaves."""

    def __init__(self, seed: int, directory: Path, stack: contextlib.ExitStack) -> None:
        self.rng = random.Random(f"maintenance {seed}")
        self.tally = Tally()
        self._directory = directory
        self._operator = Operator()
        self._phases: list[tuple[str, float]] = []
        self._network = stack.enter_context(Network(MACHINES))
        self._machines = {name: Host(name, directory / name, self._network, stack) for name in MACHINES}
        self._desk, self._monitor = self._machines["desk"], self._machines["monitor"]
        # By rank of the node that a machine has.
        self._of = {1: self._machines["one"], 2: self._machines["two"], 3: self._machines["three"]}
        self._create()
        self._disk = Disk(directory, self._desk.config / "cluster.toml", place=lambda: self._network.inside("desk"))
        stack.callback(self._disk.down)
        self._disk.attach()
        self._disk.format()
        self._disk.mount()
        self._database = Postgres(directory, self._disk.files, self.rng)
        self._writer = Writer(directory, self._database)
        stack.callback(self.end_of_everything)
        self._database.start()
        self._writer.start()
        self._writer.until_committed(SOME_COMMITS)
        self._type_in("dsreg wait --healed /etc/dsreg/cluster.toml")
        status = self._status()
        assert status["attached_by"].startswith(f"{socket.gethostname()}:")
        self._truth = Truth({1: Decided(mask(self._of))}, dict.fromkeys(self._of, State.UP), 1, status["attached_by"])
        self._watches = [self._watch(host) for host in (self._desk, self._monitor)]

    # --- the cluster ----------------------------------------------------------------------------------
    def _create(self) -> None:
        addresses = [self._machines[name].address for name in MACHINES[:3]]
        assert addresses == ["10.0.0.1", "10.0.0.2", "10.0.0.3"], "those of the runbook"
        line = self._operator.fill_in(
            "dsreg init /etc/dsreg --nodes 3 --size 100GiB --host 10.0.0.1 --host 10.0.0.2 --host 10.0.0.3")
        self._desk.type_in(line.replace("100GiB", f"{Postgres.size_bytes >> 20}MiB"))
        for host in (*self._of.values(), self._monitor):
            self._copy_files(host)
        for rank, host in self._of.items():
            host.type_in(self._operator.fill_in("systemctl enable --now dsreg-node@R", R=rank))

    def _copy_files(self, to: Host) -> None:
        """scp -p: cluster.toml, and the keys that the host needs."""
        keys = ("client.key",) if to is self._monitor else ("client.key", "system.key")
        for name in ("cluster.toml", *keys):
            shutil.copy2(self._desk.config / name, to.config / name)

    def _watch(self, host: Host) -> tuple[Path, float, subprocess.Popen[bytes]]:
        """`dsreg status` from now on: what it prints, when it began, and the process."""
        to = self._directory / f"status-{host.name}"
        line = self._operator.fill_in("dsreg status --watch /etc/dsreg/cluster.toml", "--json")
        return to, time.time(), host.begin(shlex.split(line), to=to)

    def _type_in(self, command: str, *more: object, at: Host | None = None, **words: object) -> str:
        """At the desk, unless it says where."""
        return (at or self._desk).type_in(self._operator.fill_in(command, *more, **words))

    def _status(self) -> dict[str, Any]:
        """Asked once."""
        status = json.loads(self._type_in("dsreg status /etc/dsreg/cluster.toml", "--json"))
        assert isinstance(status, dict)
        return status

    # --- the steps ------------------------------------------------------------------------------------
    def run(self) -> None:
        lost, exchanged = self.rng.sample(sorted(self._of), 2)
        self._quiet("before")
        self._lose(lost)
        self._quiet("after that")
        self._exchange(exchanged)
        self._quiet("after that")
        self._add()
        self._quiet("after that")
        # The file of the first day lists one more node that is where it says.
        stays = self.rng.choice([rank for rank in (1, 2, 3) if rank != exchanged])
        self._remove(*self.rng.sample([rank for rank in self._of if rank != stays], 2))
        self._quiet("in the end")

    @contextlib.contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        """Commits go on in it, and nothing is restarted that the step does not restart."""
        print(f"{name} ...", flush=True)
        self._phases.append((name, time.monotonic()))
        yield
        self._writer.until_committed(SOME_COMMITS)
        self._check_processes()

    def _quiet(self, name: str) -> None:
        """All is well, and status says so. Then what status says that can be lost is out of reach for a while."""
        with self._phase(f"nothing is done {name}"):
            self._truth.change(is_quiet=True)
            begun_s = self._truth.now.since_s
            until(lambda: all(_says_all(to, begun_s) for to, _, _ in self._watches), "status says how things are")
        with self._phase("as many nodes as may be lost are paused"):
            paused = self.rng.sample(sorted(self._of), self._status()["can_lose"])
            self._truth.change(dict.fromkeys(paused, State.UNSURE))
            for rank in paused:
                self._process(rank).send_signal(signal.SIGSTOP)
            self._writer.until_committed(SOME_COMMITS)
            for rank in paused:
                self._process(rank).send_signal(signal.SIGCONT)
            self._healed()
            self.tally.faults["maintenance nodes paused"] += len(paused)

    def _healed(self) -> None:
        self._type_in("dsreg wait --healed /etc/dsreg/cluster.toml")
        self._truth.change(dict.fromkeys(self._of, State.UP))

    def _lose(self, rank: int) -> None:
        host = self._of[rank]
        with self._phase(f"the directory of node {rank} is lost, and it rejoins"):
            self._truth.change({rank: State.UNSURE})
            host.loses(rank)
            self._truth.change({rank: State.DOWN})
            self._writer.until_committed(SOME_COMMITS)
            self._truth.change({rank: State.BACK})
            self._truth.starts[rank] += 2
            self._type_in("systemctl stop dsreg-node@R", at=host, R=rank)
            host.until_it_says(self._operator.fill_in(
                "/opt/dsreg/bin/dsreg node --config /etc/dsreg/cluster.toml --rank R --storage /var/lib/dsreg/node-R "
                "--rejoin", R=rank), "rejoins with")
            self._truth.change({rank: State.UNSURE})
            self._type_in("chown -R dsreg:dsreg /var/lib/dsreg/node-R && systemctl start dsreg-node@R", at=host, R=rank)
            self._healed()
        self.tally.faults["maintenance directory lost"] += 1

    def _exchange(self, rank: int) -> None:
        old, new = self._of[rank], self._machines["four"]
        with self._phase(f"the machine of node {rank} is exchanged"):
            self._type_in("dsreg wait --healed /etc/dsreg/cluster.toml")
            self._truth.change({rank: State.UNSURE})
            self._type_in("systemctl disable --now dsreg-node@R", at=old, R=rank)
            self._truth.change({rank: State.DOWN})
            self._network.down(old.name)
            self._type_in("dsreg replace /etc/dsreg/cluster.toml --rank R --address HOST:PORT", R=rank,
                          HOST=new.address, PORT=PORT)
            self._writer.until_committed(SOME_COMMITS)
            self._copy_files(new)
            shutil.move(old.directory_of(rank), new.directory_of(rank))
            self._of[rank] = new
            self._start_new(rank)
            self._healed()
        self.tally.faults["maintenance machine exchanged"] += 1

    def _start_new(self, rank: int) -> None:
        """A node's unit, where there was none before."""
        self._truth.change({rank: State.BACK})
        self._truth.starts[rank] += 1
        self._type_in("chown -R dsreg:dsreg /var/lib/dsreg/node-R && systemctl enable --now dsreg-node@R",
                      at=self._of[rank], R=rank)

    def _add(self) -> None:
        new = {4: self._machines["five"], 5: self._machines["six"]}
        before, later = mask(self._of), mask([*self._of, *new])
        self._truth.decided |= {2: Decided(before, later), 3: Decided(later)}
        with self._phase(f"nodes {' and '.join(map(str, new))} are added"):
            self._truth.change(dict.fromkeys(new, State.DOWN), (1, 2, 3))
            one, other = (f"{host.address}:{PORT}" for host in new.values())
            line = self._operator.fill_in("dsreg members add /etc/dsreg/cluster.toml --address HOST:PORT",
                                          f"--address {other}").replace("HOST:PORT", one)
            to = self._directory / "members-add"
            adding = self._desk.begin(shlex.split(line), to=to)
            for rank, host in new.items():
                start = f"--rank {rank} --storage DIR --join"
                until(lambda start=start: start in to.read_text(), "it says what to start")
                self._copy_files(host)
                self._truth.change({rank: State.UNSURE})
                self._truth.starts[rank] += 1
                host.until_it_says(self._operator.fill_in(
                    "/opt/dsreg/bin/dsreg node --config /etc/dsreg/cluster.toml --rank R --storage "
                    "/var/lib/dsreg/node-R --join", R=rank), "waits until it is made a member", "is a member")
                self._of[rank] = host
                self._start_new(rank)
            assert adding.wait(COMMAND_S) == 0, to.read_text()
            self._truth.change(numbers=(3,))
            self._healed()
        self.tally.faults["maintenance nodes added"] += len(new)

    def _remove(self, *ranks: int) -> None:
        before, later = mask(self._of), mask(rank for rank in self._of if rank not in ranks)
        self._truth.decided |= {4: Decided(before, later), 5: Decided(later)}
        with self._phase(f"nodes {' and '.join(map(str, ranks))} are removed"):
            self._truth.change(numbers=(3, 4, 5))
            one, other = ranks
            self._type_in("dsreg members remove /etc/dsreg/cluster.toml --rank R", f"--rank {other}", R=one)
            self._truth.change(dict.fromkeys(ranks, State.UNSURE), (5,))
            for rank in ranks:
                self._type_in("systemctl disable --now dsreg-node@R", at=self._of.pop(rank), R=rank)
            self._truth.change(dict.fromkeys(ranks, State.DOWN))
            self._healed()
        self.tally.faults["maintenance nodes removed"] += len(ranks)

    # --- the verdict ----------------------------------------------------------------------------------
    def _process(self, rank: int) -> subprocess.Popen[bytes]:
        return self._of[rank].nodes[rank]

    def _check_processes(self) -> None:
        """AssertionError if something has ended that is to run."""
        self._writer.check_runs()
        assert self._disk.frontend is not None and self._disk.frontend.poll() is None, self._disk.log.read_text()
        for host in self._machines.values():
            for rank, process in host.nodes.items():
                assert process.poll() is None, f"node {rank}: {host.log.read_text()}"
        for to, _, watch in self._watches:
            assert watch.poll() is None, to.read_text()

    def judge(self) -> None:
        """Every acknowledged commit is there, all that can be verified is whole, status was right, and no log has an
        error; and all that once more by as few nodes as may be."""
        self._phases.append(("", time.monotonic()))
        self._writer.kill()
        self._writer.wait()
        for to, began_s, watch in self._watches:
            watch.send_signal(signal.SIGINT)
            assert watch.wait(TIMEOUT_S) == 0, to.read_text()
            self.tally.counts.update({f"status: {what}": count for what, count in
                                      check_reports(self._truth, to, began_s).items()})
        self._judge_rows()
        for log in (self._disk.log, *(host.log for host in self._machines.values())):
            faults = [line for line in log.read_text().splitlines() if _FAULT.search(line)]
            assert not faults, f"{log}: {faults}"
        assert not (faults := self._database.faults()), faults
        for rank in self.rng.sample(sorted(self._of), (len(self._of) - 1) // 2):
            self._process(rank).kill()
        self._disk.mount()
        self._database.start()
        self.tally.counts["commits"] += self._judge_rows()
        self._judge_stalls()

    def _judge_rows(self) -> int:
        """PostgreSQL is stopped, and its file system unmounted, afterwards; how many commits were acknowledged."""
        acknowledged = self._writer.compare(self._database.rows())
        self._database.check_structures()
        self._database.stop()
        self._database.check_pages()
        self._disk.unmount()
        self._disk.look_at()
        return acknowledged

    def _judge_stalls(self) -> None:
        commits = commits_in(self._writer.record)
        for (name, start_s), (_, end_s) in itertools.pairwise(self._phases):
            took_s = [commit.took_s for commit in commits if start_s <= commit.begun_s < end_s and commit.took_s]
            print(f"{len(took_s):5} commits in {end_s - start_s:4.1f} s, median {1000 * statistics.median(took_s):.1f} "
                  f"ms, longest {1000 * max(took_s):.1f} ms: {name}", flush=True)
            assert max(took_s) < LONGEST_S, f"a commit took {max(took_s):.1f} s: {name}"

    def end_of_everything(self) -> None:
        """Nobody uses the files after this."""
        self._writer.kill()
        self._database.kill()
        if self._disk.frontend is not None:
            self._disk.frontend.kill()  # lets go whoever waits for the disk
            self._disk.frontend.wait()
        self._writer.wait()
        self._database.gone()


def _says_all(file: Path, since_s: float) -> bool:
    """Whether there is a report that was begun since then, and lacks nothing: it will be compared with what is so."""
    reports = [json.loads(line) for line in file.read_bytes().splitlines(keepends=True)[-REPORTS:]
               if line.endswith(b"\n")]
    return any(before["time"] >= since_s and not is_late(report) for before, report in itertools.pairwise(reports))


def run_maintenance(seed: int, seconds: float, directory: Path) -> Tally:
    """All of it once, whatever `seconds` is. Raises AssertionError."""
    with contextlib.ExitStack() as stack:
        maintenance = Maintenance(seed, directory, stack)
        maintenance.run()
        maintenance.judge()
    maintenance.tally.counts["chaos rounds"] = 1
    return maintenance.tally
