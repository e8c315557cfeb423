"""Addresses of nodes: `host:port` as people write it, parsed and checked."""

from __future__ import annotations

import ipaddress
import re

from dsreg.constants import MAX_HOST_BYTES


def parse_address(text: str) -> tuple[str, int]:
    """(host, port) of "name:7001", "10.0.0.1:7001" or "[fe80::1%eth0]:7001"; raises ValueError with a hint."""
    match = re.fullmatch(r"(?:\[([^\[\]\s]+)\]|([^\s:\[\]/]+)):([0-9]{1,5})", text)
    if match is None:
        hint = ", an IPv6 address in brackets: [::1]:7001" if text.count(":") > 1 else ""
        raise ValueError(f"{text!r} is not an address: write host:port{hint}")
    in_brackets, name, port = match[1], match[2], int(match[3])
    if not 1 <= port <= 65535:
        raise ValueError(f"{text!r}: port {port} is outside 1..65535")
    if len((in_brackets or name).encode()) > MAX_HOST_BYTES:
        raise ValueError(f"{text!r}: the host of an address has {MAX_HOST_BYTES} bytes at most")
    try:
        if in_brackets:
            ipaddress.IPv6Address(in_brackets)  # an interface may follow it, behind a %
        # A name does not end in a number: the system takes 10.1 for 10.0.0.1, and 010.0.0.1 for 8.0.0.1.
        elif re.fullmatch(r"(?:.*\.)?(?:[0-9]+|0[xX][0-9A-Fa-f]*)", name):
            ipaddress.IPv4Address(name)
    except ValueError:
        kind = "IPv6 address: write it like [2001:db8::1]" if in_brackets else "IPv4 address: write it like 10.0.0.1"
        raise ValueError(f"{text!r}: {in_brackets or name} is no {kind}:7001") from None
    return in_brackets or name, port


def format_address(host: str, port: int) -> str:
    """The reverse of parse_address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def canonical_host(host: str) -> str:
    """One spelling for all spellings of an address, or of a name."""
    literal = _literal(host)
    return host.lower() if literal is None else str(literal)


def is_local_only(host: str) -> bool:
    """Whether `host` says that it is for this machine alone."""
    literal = _literal(host)
    return host.lower() == "localhost" if literal is None else literal.is_loopback


def why_not_reachable(host: str) -> str:
    """Why nobody can connect to an address like `host`; "" if it may be possible."""
    literal = _literal(host)
    if isinstance(literal, ipaddress.IPv6Address) and literal.ipv4_mapped is not None:
        literal = literal.ipv4_mapped
    if literal is None:
        return ""
    if literal.is_unspecified:
        wildcard = f"[{host}]" if ":" in host else host
        return (f"{host} means all addresses of a host, and nobody can connect to it; give one that all nodes "
                f'and clients reach, and beside it listen = "{wildcard}:PORT" for a node that listens on all')
    if literal.is_multicast or literal == ipaddress.IPv4Address("255.255.255.255"):
        return f"{host} is the address of many hosts; give one of this node alone"
    return ""


def needs_interface(host: str) -> bool:
    """Whether `host` is link-local, which means nothing without the name of an interface (`fe80::1%eth0`)."""
    literal = _literal(host)
    return isinstance(literal, ipaddress.IPv6Address) and literal.is_link_local and literal.scope_id is None


def _literal(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
