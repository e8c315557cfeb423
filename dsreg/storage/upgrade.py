"""Upgrade of a storage directory from an older format to the present one, in place.

A step takes a locked directory to the next format, with identity.toml still saying the old one; that is rewritten last.
So a crash anywhere in between is followed by the same steps from the beginning, and each has to bear that: it leaves
the directory such that it can be run again, whatever it has done of its work.

    2 -> 3   the directory gets an id, and the file `lives`; it counts as one that the node has served with
    3 -> 6   slots and journal may say that sectors are zeros; 4 and 5 were 3 with an entry more in identity.toml
    6 -> 7   the file `zeros`, and records of the journal of runs of chunks
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from dsreg.protocol.life import Life
from dsreg.storage import identity as identity_file
from dsreg.storage import lives, zeros_file
from dsreg.storage.files import Files
from dsreg.storage.identity import FORMAT, Recorded
from dsreg.storage.layout import ZEROS


def _begin_lives(files: Files, recorded: Recorded) -> None:
    # No peer knows an id that an attempt before a crash has left there: the node had not opened the directory yet.
    lives.write(files, {recorded.identity.rank: Life(1, recorded.store)}, recorded.identity.salt)


def _begin_zeros(files: Files, recorded: Recorded) -> None:
    file = files.open(ZEROS, create=True)
    try:
        zeros_file.begin(file, recorded.identity.salt)
    finally:
        file.close()
    files.sync_dir()  # it has to be there for good before identity.toml says so


# By the format that they start from. `recorded` has what identity.toml will say, the new id included.
STEPS: dict[int, tuple[Callable[[Files, Recorded], None], ...]] = {
    2: (_begin_lives,),
    3: (),
    6: (_begin_zeros,),
}


def upgrade(files: Files, recorded: Recorded, new_store: Callable[[], bytes]) -> Recorded:
    """Bring the directory, locked by the caller, to the present format; what identity.toml says from now on.
    Blocks. `new_store` gives the id, 16 random bytes, of a directory that has none."""
    if recorded.format == FORMAT:
        return recorded
    upgraded = dataclasses.replace(recorded, store=recorded.store or new_store(), format=FORMAT)
    for format_, steps in STEPS.items():
        for step in steps if format_ >= recorded.format else ():
            step(files, upgraded)
    identity_file.write(files, upgraded)
    return upgraded
