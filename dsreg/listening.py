"""Listening sockets, with nothing but the standard library: a node binds before it imports the rest."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import itertools
import random
import socket
from collections.abc import Sequence

# Connections that wait in the kernel while a node recovers, or has as many as it may have.
BACKLOG = 512


class OnlyThisHost(OSError):
    """What is to be bound for others as well cannot be reached by them."""


def loopback_meant(host: str, port: int) -> str:
    """The address that `host` stands for, if it is a name that this machine takes for itself alone; else "".

    Debian writes the machine's own name into /etc/hosts, as 127.0.1.1: a node that binds that is reached by nobody
    else. Raises OSError if there is no such name.
    """
    try:
        ipaddress.ip_address(host)
    except ValueError:
        pass
    else:
        return ""  # who writes an address means it
    found = [str(address[0]) for _, address in _distinct(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))]
    return found[0] if all(ipaddress.ip_address(address).is_loopback for address in found) else ""


def bind(host: str, port: int, *, for_others: bool = False) -> list[socket.socket]:
    """Listening, non-blocking sockets on every address of `host`; the address :: takes IPv4 as well. OSError if one of
    them cannot be bound, OnlyThisHost if they are `for_others` and none of them would hear of it."""
    if for_others and (meant := loopback_meant(host, port)):
        raise OnlyThisHost(
            errno.EADDRNOTAVAIL, f"{host} resolves to {meant} on this host (see /etc/hosts), where no other host can "
            f'reach it: write its address in place of its name, or listen = "0.0.0.0:{port}" beside it')
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
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, address[0] != "::")
        sock.bind(address)
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock


def is_free(host: str, port: int) -> bool:
    """Whether nobody listens there now."""
    try:
        socket.create_server((host, port)).close()
    except OSError:
        return False
    return True


def free_ports(ports: range, count: int) -> list[int]:
    """`count` different ones of `ports`, or fewer if there are no more, on which nobody listens at 127.0.0.1. Which is
    random: the nodes of others, which may be stopped now, have theirs for ever."""
    free = (port for port in random.sample(ports, len(ports)) if is_free("127.0.0.1", port))
    return list(itertools.islice(free, count))
