"""Hosts on a network of their own: namespaces with an address each, on a bridge in another namespace.

Nothing of it touches the network of the machine. Links are cut in three ways:

    down       the host's port at the bridge is down: everything to and from it is lost
    pair       neither of two hosts reaches the other
    one way    one host does not reach another, which still reaches it

The last two give a host a wrong neighbour: a permanent entry with a link-layer address that nobody has, so that
frames vanish on the way without an error to anybody.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence

from tests.chaos.sweep import prefix

NOBODY = "02:00:00:00:00:fe"
_numbers = itertools.count(1)
_libc = ctypes.CDLL(None, use_errno=True)


class NoNetwork(Exception):
    """The kernel or the rights do not suffice."""


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise NoNetwork(f"ip {' '.join(words)}: {done.stderr.strip()}")


def why_no_namespaces() -> str | None:
    """The reason why this host cannot have such a network, None if it can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "ip is not installed (Debian: iproute2)"
    try:
        with Network(["probe"]):
            return None
    except NoNetwork as error:
        return str(error)


class Network:
    """Hosts by name, in the order given: the first is 10.0.0.1. A context manager that removes it all."""

    def __init__(self, hosts: Sequence[str]) -> None:
        self._base = f"{prefix()}{next(_numbers)}"
        self.addresses = {host: f"10.0.0.{number}" for number, host in enumerate(hosts, 1)}
        self._wrong: set[tuple[str, str]] = set()
        self._down: set[str] = set()

    def __enter__(self) -> Network:
        with contextlib.ExitStack() as undo:
            undo.callback(self.close)
            hub = self._space("hub")
            _ip("netns", "add", hub)
            _ip("-n", hub, "link", "add", "bridge", "type", "bridge")
            _ip("-n", hub, "link", "set", "bridge", "up")
            for number, (host, address) in enumerate(self.addresses.items(), 1):
                space = self._space(host)
                _ip("netns", "add", space)
                _ip("-n", hub, "link", "add", f"port{number}", "type", "veth", "peer", "name", "eth0", "netns", space)
                _ip("-n", hub, "link", "set", f"port{number}", "master", "bridge", "up")
                _ip("-n", space, "link", "set", "lo", "up")
                _ip("-n", space, "address", "add", f"{address}/24", "dev", "eth0")
                _ip("-n", space, "link", "set", "eth0", "up")
            undo.pop_all()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the namespaces, and with them all links. Nothing may fail here."""
        for name in (*self.addresses, "hub"):
            if os.path.exists(self._path(name)):
                subprocess.run(["ip", "netns", "del", self._space(name)], check=False)

    def _space(self, host: str) -> str:
        return f"{self._base}-{host}"

    def _path(self, host: str) -> str:
        return f"/run/netns/{self._space(host)}"

    @contextlib.contextmanager
    def inside(self, host: str) -> Iterator[None]:
        """Sockets made and processes started here by this thread belong to the host."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            space = os.open(self._path(host), os.O_RDONLY | os.O_CLOEXEC)
            try:
                _enter(space)
            finally:
                os.close(space)
            try:
                yield
            finally:
                _enter(home)
        finally:
            os.close(home)

    # --- cutting and healing ----------------------------------------------------------------------
    @property
    def is_whole(self) -> bool:
        return not self._wrong and not self._down

    def down(self, host: str) -> None:
        self._set_port(host, "down")
        self._down.add(host)

    def cut_one_way(self, source: str, target: str) -> None:
        """What `source` sends to `target` is lost from now on."""
        _ip("-n", self._space(source), "neigh", "replace", self.addresses[target], "lladdr", NOBODY, "dev", "eth0",
            "nud", "permanent")
        self._wrong.add((source, target))

    def cut_pair(self, one: str, other: str) -> None:
        self.cut_one_way(one, other)
        self.cut_one_way(other, one)

    def heal(self) -> None:
        for host in sorted(self._down):
            self._set_port(host, "up")
        for source, target in sorted(self._wrong):
            _ip("-n", self._space(source), "neigh", "del", self.addresses[target], "dev", "eth0")
        self._down.clear()
        self._wrong.clear()

    def _set_port(self, host: str, state: str) -> None:
        port = list(self.addresses).index(host) + 1
        _ip("-n", self._space("hub"), "link", "set", f"port{port}", state)


def _enter(space: int) -> None:
    """Move this thread into a network namespace, given as an open descriptor."""
    if _libc.setns(space, 0) != 0:
        code = ctypes.get_errno()
        raise NoNetwork(f"setns: {os.strerror(code)}")
