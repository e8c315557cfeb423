"""The server: listeners, connections, and the end at a signal."""

from __future__ import annotations

import errno
import logging
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Final

import trio

from dsreg.cli.faults import describe
from dsreg.client import Client
from dsreg.config import ClusterConfig
from dsreg.errors import ClientError, ConfigError, is_config_fault
from dsreg.transport import Transport
from dsreg.volume import VolumeOptions, run_nodes
from dsreg.volume.signals import say_what_is_left, signals_to_answer
from nbd_frontend.attachment import Attacher
from nbd_frontend.connection import ClientConnection, Service
from nbd_frontend.negotiation import Export, Tls
from nbd_frontend.sockets import name_of_peer

log = logging.getLogger(__name__)

# Connections at once; more wait in the kernel. One has the disk, or with --multi-conn as many as clients want, which
# open up to 16 each. Before it has the disk one costs some kilobytes.
MAX_CONNECTIONS: Final = 128
NO_DESCRIPTORS: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
NO_DESCRIPTORS_PAUSE_S: Final = 1.0


@dataclass(frozen=True)
class ServerOptions:
    """`tls`: for TCP; in a socket of the file system TLS is offered where there are `certificates`."""

    export: Export
    tls: Tls = Tls.NONE
    certificates: ssl.SSLContext | None = None


class Server:
    """Serves `volume` on `listeners` until SIGTERM or SIGINT. `on_up` is called when clients may connect."""

    def __init__(self, volume: VolumeOptions, options: ServerOptions) -> None:
        self._volume = volume
        self._options = options
        self._connections: set[ClientConnection] = set()
        self._places = trio.Semaphore(MAX_CONNECTIONS)
        self._stopped = trio.Event()

    async def serve(self, listeners: Sequence[socket.socket], on_up: Callable[[], None]) -> None:
        """Raises VolumeError if the nodes, where they are run here, do not start; ConfigError once they say that nobody
        gets the disk with this configuration."""
        with signals_to_answer() as signals:
            async with run_nodes(self._volume), trio.open_nursery() as nursery:
                async with trio.open_nursery() as clients:
                    attacher = Attacher(self._volume, self._options.export.is_multi_conn, clients)
                    nursery.start_soon(self._answer_signals, signals, attacher)
                    nursery.start_soon(_check_access, self._volume.config)
                    on_up()
                    await self._accept_all(listeners, attacher, clients)
                    for connection in self._connections:
                        clients.start_soon(connection.stop)
                nursery.cancel_scope.cancel()

    @property
    def held_bytes(self) -> int:
        """Of all connections."""
        return sum(connection.held_bytes for connection in self._connections)

    def stop(self) -> None:
        """End in order: what is in flight is answered, what is in a cache written back."""
        self._stopped.set()

    async def _answer_signals(self, signals: AsyncIterator[int], attacher: Attacher) -> None:
        async for signum in signals:
            if not self._stopped.is_set():
                log.info("%s: ending; %d clients are connected", signal.Signals(signum).name, len(self._connections))
                self.stop()
            elif attacher.buffered_bytes:
                say_what_is_left(signum, attacher.buffered_bytes)

    async def _accept_all(self, listeners: Sequence[socket.socket], attacher: Attacher, clients: trio.Nursery) -> None:
        """Until stopped."""
        async with trio.open_nursery() as nursery:
            for listener in listeners:
                nursery.start_soon(self._accept, listener, self._service(listener, attacher), clients)
            await self._stopped.wait()
            nursery.cancel_scope.cancel()

    def _service(self, listener: socket.socket, attacher: Attacher) -> Service:
        tls, certificates = self._options.tls, self._options.certificates
        if certificates is not None and listener.family == socket.AF_UNIX:
            tls = Tls.OFFERED
        return Service(self._options.export, attacher, tls, certificates)

    async def _accept(self, listener: socket.socket, service: Service, clients: trio.Nursery) -> None:
        while True:
            await self._places.acquire()
            clients.start_soon(self._serve_one, await self._accepted(listener), service)

    async def _accepted(self, listener: socket.socket) -> socket.socket:
        while True:
            await trio.lowlevel.wait_readable(listener)
            try:
                sock, _ = listener.accept()
                return sock
            except OSError as error:
                if error.errno in NO_DESCRIPTORS:
                    log.warning("no client can be accepted for the moment: %s", error.strerror)
                    await trio.sleep(NO_DESCRIPTORS_PAUSE_S)  # nothing tells when there are some again
                # Else it was gone before we looked.

    async def _serve_one(self, sock: socket.socket, service: Service) -> None:
        try:
            connection = ClientConnection(Transport(sock, name_of_peer(sock)), service)
        except OSError:
            sock.close()  # gone already
            self._places.release()
            return
        self._connections.add(connection)
        try:
            if not self._stopped.is_set():
                await connection.run()
        except Exception:
            log.exception("%s: a bug in this program; its connection is closed", connection.peer,
                          extra={"peer": connection.peer})
        finally:
            sock.close()
            self._connections.discard(connection)
            self._places.release()


async def _check_access(config: ClusterConfig) -> None:
    """Raises ConfigError if no node can be used with this key, or this size: else the first client would be the first
    to hear of it. Nodes that are not there yet are waited for, and clients may come meanwhile."""
    async with Client(config) as client:
        try:
            await client.read(0)
        except ClientError as error:
            if not is_config_fault(error):
                raise
            raise ConfigError(describe([error])) from None
