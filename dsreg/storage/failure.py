"""The first fatal error of a storage; after it every call raises."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator

from dsreg.errors import NoSpace, SyncFailed

# Errors that say that there is no room now, and nothing else: the write is refused and nothing is lost. Not EFBIG,
# which never passes: whether the disk fits a file is found out at the start.
NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})


class Failure:
    """Shared by a storage and its jobs, which run in other threads.

    After a failed fsync nobody knows what is on disk: the kernel may have dropped the dirty pages and
    report success the next time. So nothing is retried and nothing answered; recovery finds out.
    """

    __slots__ = ("error",)

    def __init__(self) -> None:
        self.error: SyncFailed | None = None

    def fail(self, doing: str, cause: OSError) -> SyncFailed:
        """Record the failure; returns the error to raise."""
        error = SyncFailed(f"{doing}: {cause}")
        self.error = self.error or error
        return error

    def check(self) -> None:
        """Raise the error again if there was one."""
        if self.error is not None:
            raise self.error

    @contextlib.contextmanager
    def writing(self, doing: str) -> Iterator[None]:
        """Around the replacement of a small file. Raises NoSpace where there is no room for the new one, so that the
        old one is still there; SyncFailed for any other OSError, and before anything is done if there was one."""
        self.check()
        try:
            yield
        except OSError as error:
            if error.errno in NO_SPACE:
                raise NoSpace(f"{doing}: {error}") from error
            raise self.fail(doing, error) from error
