"""Seeded bugs of fallocate in the mount: what becomes zeros, how durable that is, and where the disk ends."""

from __future__ import annotations

from tests.simulation.mutant import Mutant

_FILES = "fuse_frontend.files"
_TEST = "tests/fuse/test_allocate.py"

HOLES = (
    Mutant("hole_reaches_past_the_end", _FILES, "length = min(asked.length, self.volume.size - asked.offset)",
           "length = asked.length", test=_TEST),
    Mutant("zeros_make_the_disk_larger", _FILES, "if length < asked.length and not (size and zeros):",
           "if length < asked.length and not zeros:", test=_TEST),
    Mutant("plain_allocation_makes_zeros", _FILES, "        elif length <= 0 or not zeros:\n",
           "        elif length <= 0:\n", test=_TEST),
    Mutant("hole_of_a_synchronous_file_is_not_durable", _FILES,
           "is_trim = zeros == PUNCH_HOLE and not is_synchronous", "is_trim = zeros == PUNCH_HOLE", test=_TEST),
    Mutant("zeros_of_a_synchronous_file_are_not_durable", _FILES, "Zero(asked.offset, length, is_synchronous)",
           "Zero(asked.offset, length)", test=_TEST),
    Mutant("unknown_allocations_are_taken_for_holes", _FILES,
           "if zeros not in (0, PUNCH_HOLE, ZERO_RANGE) or", "if zeros & ~0xff or", test=_TEST),
    Mutant("hole_leaves_the_times", _FILES, "        self._changed(code)\n        answer(b\"\", code)",
           "        answer(b\"\", code)", test=_TEST),
)
