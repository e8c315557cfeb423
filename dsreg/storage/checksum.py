"""CRC-32, the one of zlib and Ethernet, by the fastest code available on this machine.

ISA-L takes a twelfth of the time of the zlib that Debian's Python is linked with: at a megabyte, a quarter of a
millisecond less for each node that stores or reads it.
"""

from __future__ import annotations

from dsreg.constants import CRC_SIZE

try:
    from isal.isal_zlib import crc32
except ImportError:  # it exists for two kinds of machine: pyproject.toml
    from zlib import crc32

__all__ = ["crc32", "salted_crc"]


def salted_crc(body: bytes, salt: int) -> bytes:
    """The 4 bytes at the end of a file, or of a slot, that belongs to one node: the checksum is of the node's salt
    (Identity.salt) and of the body, so that what another node has written does not pass."""
    return crc32(body, crc32(salt.to_bytes(8))).to_bytes(CRC_SIZE)
