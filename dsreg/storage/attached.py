"""How far the attachment in force has come with its writes, as far as this node has them: rebuilt at each start.

It goes through the tags once, and only if the disk was ever attached.
"""

from __future__ import annotations

from dsreg.constants import MAX_RUN_SECTORS
from dsreg.core.tags import ATTACHED, EPOCH_SIZE, attached_counter, iter_tags, rank_of
from dsreg.storage.layout import GROUP_SECTORS
from dsreg.storage.tags import TagTable


def highest_attached_counter(table: TagTable, epoch: int) -> int:
    """The highest counter of a write of the attachment of `epoch`; 0 if there is none."""
    if not epoch:
        return 0
    highest, mine = 0, epoch.to_bytes(EPOCH_SIZE) * 2
    for chunk in {group * GROUP_SECTORS // MAX_RUN_SECTORS for group in table.written_groups()}:
        tags = table.tags(chunk * MAX_RUN_SECTORS, MAX_RUN_SECTORS)
        if mine not in tags:
            continue
        last = max(iter_tags(tags))
        # Nearly always the newest write of all is one of the attachment.
        quick = last[-1] == ATTACHED and last.startswith(mine)
        highest = max(highest, rank_of(last)[2] if quick else attached_counter(tags, epoch))
    return highest
