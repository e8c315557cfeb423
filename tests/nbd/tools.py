"""A server in this process, on real nodes; other people's clients, as processes beside it."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio

from dsreg.client import Attach
from dsreg.config import ClusterConfig
from dsreg.constants import SECTOR_SIZE
from dsreg.listening import bind
from dsreg.volume import VolumeOptions
from nbd_frontend.negotiation import Export, Tls
from nbd_frontend.server import Server, ServerOptions
from nbd_frontend.sockets import unix_socket
from tests.nbd.client import RawClient
from tests.test_volume import nodes

SECTORS = 16384
SIZE = SECTORS * SECTOR_SIZE
EXPORT = Export("disk", SIZE, "a disk")
# Above what anything takes here on a machine that has a lot to do.
LIMIT_S = 120.0


@dataclass
class Serving:
    """A server that runs: where it is, and what ends it in order."""

    config: ClusterConfig
    path: Path
    address: tuple[str, int]
    server: Server
    stop: Callable[[], None]
    streams: list[trio.abc.Stream] = field(default_factory=list)

    @property
    def uri(self) -> str:
        return f"nbd+unix:///?socket={self.path}"

    async def client(self, tcp: bool = False) -> RawClient:
        stream: trio.abc.Stream
        if tcp:
            stream = await trio.open_tcp_stream(*self.address)
        else:
            stream = await trio.open_unix_socket(str(self.path))
        self.streams.append(stream)
        return RawClient(stream)

    async def entered(self, tcp: bool = False, structured: bool = False, contexts: bool = False) -> RawClient:
        """A client that has the disk."""
        client = await self.client(tcp)
        reply = await client.go(structured=structured, contexts=contexts)
        assert reply.kind == 1, reply
        return client


@asynccontextmanager
async def serving(
    directory: Path, *, export: Export = EXPORT, tls: Tls = Tls.NONE,
    certificates: ssl.SSLContext | None = None, is_cached: bool = False, timeout_s: float | None = None,
    config: ClusterConfig | None = None, listener: socket.socket | None = None,
) -> AsyncIterator[Serving]:
    """A server on a unix socket and on TCP. `config`: of nodes that run already. `listener`: in place of TCP here."""
    async with AsyncExitStack() as stack:
        if config is None:
            config = await stack.enter_async_context(nodes(SECTORS, LIMIT_S))
        path = directory / "nbd.sock"
        tcp = bind("127.0.0.1", 0) if listener is None else [listener]
        listeners = [stack.enter_context(unix_socket(path)), *map(stack.enter_context, tcp)]
        volume = VolumeOptions(config, False, timeout_s, Attach(name="nbd"), is_cached)
        server = Server(volume, ServerOptions(export, tls, certificates))
        up = trio.Event()
        nursery = await stack.enter_async_context(trio.open_nursery())
        nursery.start_soon(server.serve, listeners, up.set)
        await up.wait()
        running = Serving(config, path, tcp[0].getsockname()[:2], server, server.stop)
        yield running
        for stream in running.streams:
            await trio.aclose_forcefully(stream)
        server.stop()


def needs(*programs: str) -> pytest.MarkDecorator:
    """Skips a test, with the reason, where one of the programs is missing; `make setup` installs them on Debian."""
    missing = [program for program in programs if shutil.which(program) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


async def run(*command: str | Path, check: bool = True, environment: dict[str, str] | None = None
              ) -> subprocess.CompletedProcess[str]:
    """Another program, beside the server of this process. An AssertionError with its output if it fails."""
    words = [str(word) for word in command]
    done = await trio.run_process(words, capture_stdout=True, capture_stderr=True, check=False,
                                  stdin=subprocess.DEVNULL, env={**os.environ, **(environment or {})})
    out, err = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
    assert not check or done.returncode == 0, f"{words}: {done.returncode}\n{out}{err}"
    return subprocess.CompletedProcess(words, done.returncode, out, err)


async def nbdsh(uri: str, script: str, check: bool = True) -> str:
    """Run `script` in libnbd's shell, connected to `uri` as `h`; what it prints."""
    # The module is Debian's, and for Debian's Python; another one may come first in the PATH.
    environment = {"PATH": f"/usr/bin:{os.environ['PATH']}"}
    done = await run("nbdsh", "-c", f"h.connect_uri({uri!r})" if uri else "pass", "-c", script, check=check,
                     environment=environment)
    return done.stdout + done.stderr
