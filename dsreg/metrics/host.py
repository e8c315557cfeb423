"""Under which name a process's pages are asked for, where no token protects them: DNS rebinding.

A page of a stranger, in a browser on this host, may ask for the stranger's own name, which by then leads to 127.0.0.1:
to the browser what is served here is of that site, which may read it. The name stands in the request's header Host. An
address in its place is no name that could lead elsewhere, and `localhost` does so for nobody.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final

WRONG_HOST: Final = (
    b"without a token this is served to no one who asks for it under another name than localhost, an IP address, or "
    b"the one that it is told to listen at\n")
_PARTS = re.compile(r"(?:\[(?P<v6>[^\]]*)\]|(?P<name>[^:\[\]]*))(?::[0-9]*)?", re.ASCII)


def is_own(host: str, listens_at: str) -> bool:
    """Whether the header `host`, with or without a port, is an address, localhost or `listens_at`, a host."""
    parts = _PARTS.fullmatch(host.strip())
    if parts is None:
        return False
    name = parts["name"]
    if name is not None and name.lower() in ("localhost", listens_at.lower()):
        return True
    try:
        ipaddress.IPv6Address(parts["v6"]) if name is None else ipaddress.IPv4Address(name)
    except ipaddress.AddressValueError:
        return False
    return True
