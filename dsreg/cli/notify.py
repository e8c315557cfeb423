"""Notification that the process is ready, to whoever started it: systemd (Type=notify) or our own supervisor."""

from __future__ import annotations

import logging
import os
import socket

_log = logging.getLogger("dsreg.notify")


def notify(state: str) -> None:
    """Send `state`, such as READY=1, to $NOTIFY_SOCKET; without one there is nobody to tell."""
    name = os.environ.get("NOTIFY_SOCKET")
    if not name:
        return
    address = "\0" + name[1:] if name.startswith("@") else name
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.sendto(state.encode("ascii"), address)
    except OSError as error:
        _log.warning("cannot send %s to NOTIFY_SOCKET: %s", state, error)
