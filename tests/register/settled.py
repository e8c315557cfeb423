"""What a replica may keep once its operations have finished: nothing."""

from __future__ import annotations

from dsreg.register.now import Now
from dsreg.register.replica import Replica


def is_busy(replica: Replica) -> bool:
    """Whether it has operations, repairs, or claims about which it asks the others, that time alone may bring on."""
    return bool(replica.unfinished() or replica.repairs.under_way or replica._attaching._leaps)


def assert_settled(replica: Replica, later: float) -> None:
    """Looks into the private tables. `later`: seconds, after the last retry of anything; nothing may happen then."""
    assert replica.tick(Now(later, 0.0)) == []
    assert replica.next_due() is None
    assert replica.unfinished() == 0
    coordinator = replica._coordinator
    assert not coordinator._executions
    assert not coordinator._ready
    assert not replica.repairs.under_way and not replica.repairs.wanted
    assert coordinator._refused.next_due() is None
    assert not coordinator._queue._entries and not coordinator._queue._chunks
    assert not replica._attaching._leaps
    assert len(replica._links) == 0 and not replica._links._alarms
    for rank, peer in replica._peers._contract.items():
        assert not peer._runs, f"of node {rank}"
