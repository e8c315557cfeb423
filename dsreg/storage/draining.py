"""To carry out what a storage has queued, where nothing else drives it: at its end, or before it serves."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dsreg.storage.stable import StableStorage


def drain(storage: StableStorage, idle: bool) -> None:
    """Store all that is queued, and make every checkpoint that is due (`idle`: see checkpoint_due). Blocks. No commit
    or checkpoint may be under way. Raises SyncFailed."""
    while True:
        while (commit := storage.next_commit()) is not None:
            commit.run()
            storage.finish_commit(commit)
        checkpoint = storage.next_checkpoint() if storage.checkpoint_due(idle) else None
        if checkpoint is None:
            return
        checkpoint.run()
        storage.finish_checkpoint(checkpoint)
        if not checkpoint.frees and not checkpoint.recorded:
            return  # there is no room to record what was learned
