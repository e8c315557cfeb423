"""Hosts as the runbook has them: each has an address, /etc/dsreg, /var/lib/dsreg, /opt/dsreg/bin and a unit for nodes.

A host is a namespace of the network (tests.chaos.namespaces) and one of mounts. It has no systemd: what `systemctl` is
told is done by the lines of deploy/systemd/dsreg-node@.service that say what to start, with which files. The units with
a systemd are tested by tests/system. The user dsreg is root here: others may not read the working tree.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.chaos.namespaces import Network
from tests.chaos.stack import COMMAND_S, UP_S
from tests.processes.cluster import ROOT, TIMEOUT_S, until
from tests.shell_blocks import commands

RUNBOOK = ROOT / "deploy" / "runbook.md"
UNIT = ROOT / "deploy" / "systemd" / "dsreg-node@.service"
# Where nodes tell that they are ready: a name of the host's network.
NOTIFY = "dsreg-unit"
# The first process of a host. $1 has the directories config, lib and bin, and an empty one for what only the host sees.
LAYOUT = r"""
set -e
# Copies of what others have mounted would outlive it, and keep their loop devices and FUSE connections.
awk '$0 ~ / - fuse\.| \/dev\/loop[0-9]+ / {print $5}' /proc/self/mountinfo | tac |
    while read -r place; do umount --lazy "$(printf %b "$place")" || true; done
mount -t tmpfs tmpfs "$1/own"
for place in etc opt var/lib; do
    mkdir -p "$1/own/$place" "$1/own/work/$place"
    mount -t overlay overlay -o "lowerdir=/$place,upperdir=$1/own/$place,workdir=$1/own/work/$place" "/$place"
done
mkdir -p /etc/dsreg /opt/dsreg/bin /var/lib/dsreg
mount --bind "$1/config" /etc/dsreg
mount --bind "$1/bin" /opt/dsreg/bin
mount --bind "$1/lib" /var/lib/dsreg
grep -q ^dsreg: /etc/group || echo dsreg:x:0: >>/etc/group
grep -q ^dsreg: /etc/passwd || echo dsreg:x:0:0::/:/usr/sbin/nologin >>/etc/passwd
echo ready
exec cat
"""
PROGRAM = """#!/bin/sh
PYTHONPATH={root} exec {python} -P -m dsreg "$@"
"""


class Host:
    """`address`; `config`: its /etc/dsreg, as seen from outside. `nodes`: the node processes that its unit has started
    and that are to run, by rank."""

    def __init__(self, name: str, directory: Path, network: Network, stack: contextlib.ExitStack) -> None:
        self.name = name
        self.address = network.addresses[name]
        self.config = directory / "config"
        self.log = directory / "log"
        self.nodes: dict[int, subprocess.Popen[bytes]] = {}
        self._directory = directory
        self._network = network
        self._all: list[subprocess.Popen[bytes]] = []
        for path in (directory, self.config, directory / "bin", directory / "lib", directory / "own"):
            path.mkdir()
        program = directory / "bin" / "dsreg"
        program.write_text(PROGRAM.format(root=shlex.quote(str(ROOT)), python=shlex.quote(sys.executable)))
        program.chmod(0o755)
        with network.inside(name), open(self.log, "ab") as log:
            self._first = subprocess.Popen(
                ["unshare", "--mount", "--propagation", "slave", "bash", "-c", LAYOUT, name, str(directory)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, cwd=directory,
            )
            self._notified = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            self._notified.bind(f"\0{NOTIFY}")
        stack.callback(self.close)
        assert self._first.stdout is not None
        assert self._first.stdout.readline() == b"ready\n", self.log.read_text()

    def close(self) -> None:
        """End what runs."""
        self._notified.close()
        for process in (*self._all, self._first):
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    stream.close()

    # --- what is typed there --------------------------------------------------------------------------
    def type_in(self, line: str) -> str:
        """What the commands of the line print. AssertionError if one fails, or takes too long."""
        said = ""
        for command in line.split(" && "):
            words = shlex.split(command)
            if words[0] == "systemctl":
                self._systemctl(words[1:])
                continue
            process = self.begin(words)
            try:
                output, errors = process.communicate(timeout=COMMAND_S)
            except subprocess.TimeoutExpired:
                raise AssertionError(f"{self.name}: {command}: not done within {COMMAND_S:.0f} s") from None
            assert process.returncode == 0, f"{self.name}: {command}: {process.returncode}\n{output!r}\n{errors!r}"
            said += output.decode()
        return said

    def begin(self, words: Sequence[str], *, to: Path | None = None) -> subprocess.Popen[bytes]:
        """A command that is not waited for; `to`: a file for what it prints."""
        if to is None:
            return self._start(words, subprocess.PIPE, subprocess.PIPE)
        with open(to, "ab") as file:
            return self._start(words, file.fileno(), file.fileno())

    def until_it_says(self, line: str, *texts: str) -> None:
        """Run a command in the foreground until it says one of these; then Ctrl-C."""
        to = self._directory / "foreground"
        to.unlink(missing_ok=True)
        process = self.begin(shlex.split(line), to=to)

        def has_said() -> bool:
            assert process.poll() is None, f"{self.name}: {line}: {process.returncode}\n{to.read_text()}"
            return any(text in to.read_text() for text in texts)

        until(has_said, f"{line} says {' or '.join(texts)}", UP_S)
        process.send_signal(signal.SIGINT)
        assert process.wait(TIMEOUT_S) == 0, to.read_text()

    def _start(
        self, words: Sequence[str], output: int, errors: int, environment: dict[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            ["nsenter", f"--target={self._first.pid}", "--mount", "--net", f"--wd={self._directory}", *words],
            stdin=subprocess.DEVNULL, stdout=output, stderr=errors,
            env={**os.environ, "PATH": f"/opt/dsreg/bin:{os.environ['PATH']}", **(environment or {})},
        )
        self._all.append(process)
        return process

    # --- the unit -------------------------------------------------------------------------------------
    def _systemctl(self, words: Sequence[str]) -> None:
        verb, unit = " ".join(words[:-1]), words[-1]
        [rank] = re.findall(r"^dsreg-node@(\d+)$", unit)
        if verb in ("start", "enable --now"):
            self._start_node(int(rank))
        else:
            assert verb in ("stop", "disable --now"), words
            self._stop_node(int(rank))

    def _start_node(self, rank: int) -> None:
        """Until it is ready."""
        unit = UNIT.read_text()
        credentials = self._directory / "credentials"
        shutil.rmtree(credentials, ignore_errors=True)
        credentials.mkdir(mode=0o700)
        for name, source in re.findall(r"^LoadCredential=(.+):/etc/dsreg/(.+)$", unit, re.MULTILINE):
            shutil.copy2(self.config / source, credentials / name)
        [command] = re.findall(r"^ExecStart=(.+)$", unit, re.MULTILINE)
        for specifier, value in {"%d": str(credentials), "%i": str(rank), "%S": "/var/lib"}.items():
            command = command.replace(specifier, value)
        with open(self.log, "ab") as log:
            process = self._start(shlex.split(command), log.fileno(), log.fileno(), {"NOTIFY_SOCKET": f"@{NOTIFY}"})
        until(lambda: process.poll() is not None or self._is_told("READY=1"), f"{command} is ready", UP_S)
        assert process.poll() is None, self.log.read_text()
        self.nodes[rank] = process

    def _stop_node(self, rank: int) -> None:
        """Nothing follows if it does not run: it was killed."""
        if (process := self.nodes.pop(rank, None)) is not None:
            process.terminate()
            assert process.wait(TIMEOUT_S) == 0, self.log.read_text()
            assert self._is_told("STOPPING=1")

    def _is_told(self, what: str) -> bool:
        try:
            return self._notified.recv(64).decode() == what
        except BlockingIOError:
            return False

    # --- what may happen to it ------------------------------------------------------------------------
    def loses(self, rank: int) -> None:
        """The node is killed, and its directory is deleted."""
        process = self.nodes.pop(rank)
        process.kill()
        process.wait()
        shutil.rmtree(self.directory_of(rank))

    def directory_of(self, rank: int) -> Path:
        return self._directory / "lib" / f"node-{rank}"


class Operator:
    """Types what stands in the runbook, and nothing else."""

    def __init__(self) -> None:
        self._commands = commands(RUNBOOK)

    def fill_in(self, command: str, *more: object, **words: object) -> str:
        """A command of the runbook, with words in the place of others, and `more` behind it. AssertionError if the
        runbook does not have it."""
        assert command in self._commands, f"the runbook does not say: {command}"
        for name, word in words.items():
            command, count = re.subn(rf"(?<! -)\b{name}\b", str(word), command)  # R, not -R
            assert count, f"no {name} in {command}"
        return " ".join([command, *map(str, more)])
