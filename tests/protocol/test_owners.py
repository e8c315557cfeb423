"""Names of those that attach a disk, in the 48 bytes that there are for one."""

from __future__ import annotations

import pytest

from dsreg.constants import OWNER_SIZE
from dsreg.protocol.messages import name_of_owner, owner_of


@pytest.mark.parametrize(("name", "expected"), [
    ("", ""),
    ("a", "a"),
    ("x" * 48, "x" * 48),
    ("storage-01.example.com:/mnt/disk, process 12345", "storage-01.example.com:/mnt/disk, process 12345"),
    ("storage-01.dc1.example.com:/mnt/a/disk, process 4194304", "storage-01.dc1.example.co...isk, process 4194304"),
    ("\N{SNOWMAN}" * 40, "\N{SNOWMAN}" * 8 + "..." + "\N{SNOWMAN}" * 6),
    ("x" + "\u00e9" * 30, "x" + "\u00e9" * 12 + "..." + "\u00e9" * 10),
    ("/mnt/\udcff" * 10, "/mnt/\\udcff/mnt/\\udcff/mn...nt/\\udcff/mnt/\\udcff"),
])
def test_a_name_that_is_too_long_keeps_its_end(name: str, expected: str) -> None:
    owner = owner_of(b"i" * 16, name)
    assert len(owner) == OWNER_SIZE and owner[:16] == b"i" * 16
    assert name_of_owner(owner) == expected
