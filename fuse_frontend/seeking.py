"""lseek with SEEK_DATA and SEEK_HOLE: from one map of holes to the next, until one is found."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from dsreg.chunks import extents_of
from dsreg.store import Buffer, Map
from dsreg.volume import Volume
from fuse_frontend.requests import Seek

# The offset that was found, and 0; or 0 and an errno.
Found = Callable[[int, int], None]


def seek(volume: Volume, asked: Seek, answer: Found) -> None:
    """ENXIO where there is no data behind, and behind the end; the end is a hole."""
    if asked.whence not in (os.SEEK_DATA, os.SEEK_HOLE):
        answer(0, errno.EINVAL)
    elif asked.offset >= volume.size:
        answer(0, errno.ENXIO)
    else:
        _Seek(volume, asked.offset, asked.whence == os.SEEK_HOLE, answer).go_on()


class _Seek:
    """A loop, as each map may be there at once, and there may be hundreds."""

    __slots__ = ("_answer", "_for_hole", "_is_going", "_offset", "_volume", "_waits")

    def __init__(self, volume: Volume, offset: int, for_hole: bool, answer: Found) -> None:
        self._volume = volume
        self._offset = offset
        self._for_hole = for_hole
        self._answer = answer
        self._waits = self._is_going = False

    def go_on(self) -> None:
        if self._is_going:
            return
        self._is_going = True
        while not self._waits:
            length = self._volume.size - self._offset
            if length <= 0:
                self._end(self._offset, 0 if self._for_hole else errno.ENXIO)
                break
            self._waits = True
            self._volume.submit(Map(self._offset, length), self._told)
        self._is_going = False

    def _told(self, holes: Buffer, code: int) -> None:
        if code:
            self._end(0, code)
            return
        for length, is_hole in extents_of(bytes(holes), self._offset, self._volume.size - self._offset):
            if is_hole == self._for_hole:
                self._end(self._offset, 0)
                return
            self._offset += length
        self._waits = False
        self.go_on()

    def _end(self, offset: int, code: int) -> None:
        self._waits = True  # for nothing any more
        self._answer(0 if code else offset, code)
