"""Machines with a Debian of their own: namespaces on a root that debootstrap has made."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.fuse.tools import wait_until

ROOT = Path(__file__).resolve().parents[2]
BOOT = Path(__file__).with_name("boot.sh")
# Where the cgroup v2 hierarchy is, alone or beside that of version 1.
CGROUPS = (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified"))
# How this site reaches its networks: the mirrors' settings come with it into the new root.
SITE_FILES = ("etc/resolv.conf", "etc/hosts", "etc/pip.conf", "etc/apt/apt.conf.d", "etc/ssl/certs/ca-certificates.crt")
# What belongs to the host's kernel, or to hardware.
MASKED = ("systemd-udevd.service", "systemd-modules-load.service", "systemd-binfmt.service", "systemd-sysctl.service",
          "proc-sys-fs-binfmt_misc.automount", "console-getty.service", "getty.target", "systemd-logind.service")


def make_debian(target: Path) -> None:
    """A Debian 12 with systemd and nothing that is ours, in the directory `target`; takes some minutes."""
    target.mkdir()
    subprocess.run(["debootstrap", "--variant=minbase", "--include=ca-certificates,systemd,systemd-sysv,dbus,mount",
                    "bookworm", str(target)], check=True, stdout=subprocess.DEVNULL, timeout=1800)
    for name in SITE_FILES:
        source = Path("/", name)
        if source.is_dir():
            shutil.copytree(source, target / name, dirs_exist_ok=True)
        elif source.exists():
            shutil.copyfile(source, target / name)
    for unit in MASKED:
        (target / "etc/systemd/system" / unit).symlink_to("/dev/null")


class Machine:
    """`base` is the root that it starts from, and does not change; `upper` takes the changes. It has the network of
    this process, or with `has_network` False one of its own with nothing in it. `init` is its first process."""

    def __init__(self, base: Path, upper: Path, *init: str, has_network: bool = True) -> None:
        self.name = upper.name
        self.files = upper / "data"  # what is not in `base`
        self._cgroup = next(path for path in reversed(CGROUPS) if (path / "cgroup.procs").exists() and
                            (path / "cgroup.controllers").exists()) / f"dsreg-test-{os.getpid()}-{upper.name}"
        upper.mkdir(parents=True)
        self._log = (upper / "console").open("wb")
        namespaces = ["--mount", "--propagation", "private", "--uts", "--ipc", *([] if has_network else ["--net"])]
        command = ["unshare", "--pid", "--fork", "--kill-child", *namespaces,
                   "bash", str(BOOT), str(base), str(upper), str(self._cgroup), *init]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log)
        self._init = Path(init[0]).name

    @property
    def pid(self) -> int:
        """Of its first process, as seen from here."""
        own = self._process.pid
        return int(Path(f"/proc/{own}/task/{own}/children").read_text().split()[0])

    def _command(self) -> str:
        return Path(f"/proc/{self.pid}/comm").read_text().strip()

    def enter(self, *command: str) -> list[str]:
        """The arguments that run `command` in it."""
        timeout = [f"{name}={value}" for name, value in os.environ.items() if name == "PIP_DEFAULT_TIMEOUT"]
        return ["nsenter", "-t", str(self.pid), "-m", "-u", "-i", "-n", "-p", "-C", "env", "-i", "HOME=/root",
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "TERM=dumb",
                *timeout, *command]

    def type_in(self, script: str, *, timeout_s: float = 600) -> str:
        """Run `script` with bash as somebody would who types it; what was printed. Fails with it if a line does."""
        done = subprocess.run(self.enter("bash", "-c", f"set -ex; exec 2>&1; cd /root\n{script}"),
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, timeout=timeout_s,
                              check=False)
        print(f"--- {self.name}\n{done.stdout}")
        assert done.returncode == 0, f"{self.name}: exit code {done.returncode}\n{done.stdout}"
        return done.stdout

    def _fuse_connections(self) -> list[Path]:
        """Of what is mounted in it. A process that serves a mount, and is the last one in the namespace of a file
        system on that, would wait for itself for ever, and with it every sync on this host."""
        try:
            mounts = Path(f"/proc/{self.pid}/mountinfo").read_text().splitlines()
        except (FileNotFoundError, IndexError):
            return []  # it has ended
        numbers = [line.split()[2].partition(":")[2] for line in mounts if " - fuse." in line or " - fuse " in line]
        return [Path("/sys/fs/fuse/connections", number) for number in numbers]

    def __enter__(self) -> Self:
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        wait_until(lambda: bool(children.read_text()) and self._command() == self._init, f"{self.name} runs")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        connections = self._fuse_connections()
        self._process.kill()  # and with it, by the kernel, all that runs in it
        self._process.wait()
        for connection in connections:
            with contextlib.suppress(FileNotFoundError):  # it is unmounted
                (connection / "abort").write_text("1")
        self._log.close()
        events = self._cgroup / "cgroup.events"
        wait_until(lambda: "populated 0" in events.read_text(), f"all processes of {self.name} are gone")
        for directory, _, _ in os.walk(self._cgroup, topdown=False):
            os.rmdir(directory)
