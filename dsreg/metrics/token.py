"""The token that whoever reads a process's pages has to show, where others than its own host can reach them."""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
import socket
from collections.abc import Mapping, Sequence
from typing import Final

TOKEN_WANTED: Final = (
    b"a token is wanted: as `Authorization: Bearer TOKEN`, or as the password of any user (HTTP Basic)\n")


def is_shown(token: bytes, headers: Mapping[str, str]) -> bool:
    """Whether these headers of a request have it. How long that takes says nothing about the token."""
    scheme, _, shown = headers.get("authorization", "").strip().partition(" ")
    given = shown.strip().encode("latin-1")
    if scheme.lower() == "basic":
        try:
            given = base64.b64decode(given, validate=True).partition(b":")[2]
        except binascii.Error:
            return False
    elif scheme.lower() != "bearer":
        return False
    return hmac.compare_digest(given, token)


def are_for_this_host(listeners: Sequence[socket.socket]) -> bool:
    """Whether nobody on another host can connect to one of these."""
    addresses = [str(listener.getsockname()[0]).partition("%")[0] for listener in listeners]
    return all(ipaddress.ip_address(address).is_loopback for address in addresses)
