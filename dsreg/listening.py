"""Listening sockets, with nothing but the standard library: a node binds before it imports the rest."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Sequence

# Connections that wait in the kernel while a node recovers, or has as many as it may have.
BACKLOG = 512


def bind(host: str, port: int) -> list[socket.socket]:
    """Listening, non-blocking sockets on every address of `host`. OSError if one of them cannot be bound."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    with contextlib.ExitStack() as opened:
        listeners = [opened.enter_context(_listen(family, address)) for family, address in _distinct(found)]
        opened.pop_all()
    return listeners


def close_all(listeners: Sequence[socket.socket]) -> None:
    for listener in listeners:
        listener.close()


def _distinct(found: Sequence[tuple[object, ...]]) -> list[tuple[socket.AddressFamily, tuple[object, ...]]]:
    return list(dict.fromkeys((entry[0], entry[4]) for entry in found))  # type: ignore[misc]


def _listen(family: socket.AddressFamily, address: tuple[object, ...]) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock
