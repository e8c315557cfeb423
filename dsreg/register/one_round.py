"""When a read is complete after one round: the rule, for all who count the answers, node or client."""

from __future__ import annotations

from dsreg.protocol.tags import is_restamped
from dsreg.register.quorum import Quorum


def may_return(quorum: Quorum, agreeing: int, tags: bytes, epoch: int) -> bool:
    """Whether the values under `tags` may be returned though nothing is stored again.

    `agreeing`: the mask of the nodes that have answered with this very vector, all of it durable. `epoch`: of the
    attachment that reads, under which they have answered; 0 for a reader that has not attached the disk.

    They must decide: then every later operation meets one of them. An attachment needs more. The tags must have been
    stored under its own epoch, or all nodes must have them: else a node that was not heard may hold a newer value
    of an older attachment, which comes up later.
    """
    return quorum.decided(agreeing) and (
        not epoch or is_restamped(tags, epoch) or quorum.all_answered(agreeing)
    )
