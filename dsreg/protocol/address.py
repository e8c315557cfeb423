"""At which address a node is, as nodes tell each other and clients: see dsreg.register.addresses.

As bytes, in messages and in the file `lives` alike:

    rank u8 | host bytes u8 | port u16 | pad[4] | life u64 | store id[16] | sequence u64 | host, UTF-8
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Final, NamedTuple

from dsreg.constants import MAX_HOST_BYTES, MAX_RANK
from dsreg.protocol.life import STORE_SIZE, Life

_ENTRY: Final = struct.Struct(f">BBH4xQ{STORE_SIZE}sQ")
MAX_ADDRESSES_BYTES: Final = MAX_RANK * (_ENTRY.size + MAX_HOST_BYTES)


class Place(NamedTuple):
    """Where one connects to. `host`: a name or an address without brackets, 1 to MAX_HOST_BYTES bytes of UTF-8.
    `port`: 1..65535."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Address(NamedTuple):
    """A node with the directory `life` is at `place`; of all that it has said in that life, this is number `sequence`,
    from 1 on."""

    life: Life
    sequence: int
    place: Place


def pack_addresses(addresses: Mapping[int, Address]) -> bytes:
    """By rank, ascending."""
    return b"".join(_packed(rank, address) for rank, address in sorted(addresses.items()))


def _packed(rank: int, address: Address) -> bytes:
    host = address.place.host.encode()
    return _ENTRY.pack(rank, len(host), address.place.port, *address.life, address.sequence) + host


def unpack_addresses(raw: bytes) -> dict[int, Address] | None:
    """None: it is not what `pack_addresses` gives, of some ranks in some order."""
    found: dict[int, Address] = {}
    at = 0
    while at < len(raw):
        if len(raw) < at + _ENTRY.size:
            return None
        rank, size, port, number, store, sequence = _ENTRY.unpack_from(raw, at)
        at += _ENTRY.size
        host = raw[at : at + size]
        at += size
        if len(host) != size or rank in found or not (1 <= rank <= MAX_RANK and size and port and number and sequence):
            return None
        try:
            place = Place(host.decode(), port)
        except UnicodeDecodeError:
            return None
        found[rank] = Address(Life(number, store), sequence, place)
    return found
