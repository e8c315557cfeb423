"""At which address a node is, as nodes tell each other and clients: see dsreg.register.addresses.

As bytes, in messages and in the file `lives` alike:

    rank u8 | host bytes u8 | port u16 | pad[4] | life u64 | store id[16] | sequence u64 | host, UTF-8
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from dsreg.constants import MAX_RANK
from dsreg.protocol.life import STORE_SIZE, Life

_ENTRY: Final = struct.Struct(f">BBH4xQ{STORE_SIZE}sQ")
ENTRY_SIZE: Final = _ENTRY.size
# A name of the DNS has 253 at most, an IPv6 address with its interface fewer.
MAX_HOST_BYTES: Final = 255
MAX_ADDRESSES_BYTES: Final = MAX_RANK * (ENTRY_SIZE + MAX_HOST_BYTES)


class Place(NamedTuple):
    """Where one connects to. `host`: a name or an address without brackets."""

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


def is_sayable(place: Place) -> bool:
    """Whether it can be told and kept."""
    return 0 < len(place.host.encode()) <= MAX_HOST_BYTES and 0 < place.port <= 0xFFFF


def pack_addresses(addresses: Mapping[int, Address]) -> bytes:
    """By rank, ascending."""
    return b"".join(_packed(rank, address) for rank, address in sorted(addresses.items()))


def _packed(rank: int, address: Address) -> bytes:
    host = address.place.host.encode()
    return _ENTRY.pack(rank, len(host), address.place.port, *address.life, address.sequence) + host


def unpack_addresses(raw: bytes) -> dict[int, Address] | None:
    """None: it is not what `pack_addresses` gives, of some ranks in some order."""
    found: list[tuple[int, Address]] = []
    at = 0
    while at < len(raw):
        if len(raw) < at + ENTRY_SIZE:
            return None
        rank, size, port, number, store, sequence = _ENTRY.unpack_from(raw, at)
        host = raw[at + ENTRY_SIZE : at + ENTRY_SIZE + size]
        at += ENTRY_SIZE + size
        if len(host) != size or not (1 <= rank <= MAX_RANK and size and port and number and sequence):
            return None
        try:
            place = Place(host.decode(), port)
        except UnicodeDecodeError:
            return None
        found.append((rank, Address(Life(number, store), sequence, place)))
    return dict(found) if _differ(rank for rank, _ in found) else None


def _differ(ranks: Iterable[int]) -> bool:
    listed = list(ranks)
    return len(set(listed)) == len(listed)
