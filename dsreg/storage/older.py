"""Gives up an older state of a directory that was put back: docs/lives.md, rule 18.

    lives           the life is given up, and the id of the next one
    identity.toml   this id, and every sector is unknown; in one step. What is stored stays, as a source

It is done when the directory is opened, before anybody is told anything. A crash in between leaves a directory whose
next opening goes on with it. The id is a new one as all that the others know by the one of before is of later states.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from dsreg.storage import identity as identity_file
from dsreg.storage import lives as lives_file
from dsreg.storage.directory import Directory


def give_up(directory: Directory, new_store: Callable[[], bytes], *, anew: bool) -> None:
    """Go through what is left of it; `anew`: from the beginning. `new_store` gives ids that no other has. Blocks.
    Raises OSError, DamagedStorage."""
    files, identity = directory.files, directory.recorded.identity
    if anew:
        lives_file.give_up(files, identity, new_store())
    given_up = lives_file.read(files, identity.salt).lives.get(lives_file.GIVEN_UP)
    if given_up is not None and given_up.store != directory.recorded.store:
        recorded = dataclasses.replace(directory.recorded, store=given_up.store, learning=new_store())
        identity_file.write(files, recorded)
        directory.recorded = recorded
