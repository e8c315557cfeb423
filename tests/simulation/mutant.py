"""What a seeded bug is."""

from __future__ import annotations

from typing import NamedTuple


class Mutant(NamedTuple):
    """`old`, which stands in `module` exactly once, is replaced by `new`. `test`: what has to catch it, if that is not
    the simulator: a file of tests, or one of them."""

    name: str
    module: str
    old: str
    new: str
    test: str = ""
