"""How the parts of a node's core are put together, in one place, so that what the simulator and the tests run is put
together as in a real node: of which incarnation its read identifiers, message ids and tags are, and how it greets.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Final, Protocol

from dsreg.protocol.messages import (
    FEATURE_ADDRESSES,
    FEATURE_CLAIMS,
    FEATURE_CONFIGURATIONS,
    FEATURE_DIGESTS,
    FEATURE_LIVES,
    FEATURE_MAP,
    FEATURE_SEALED,
    FEATURE_SUMS,
    FEATURE_ZERO_CHUNKS,
    FEATURE_ZEROS,
    Hello,
)
from dsreg.protocol.wire import CLUSTER_SIZE
from dsreg.register.contract import Uuids
from dsreg.register.heal import INTERVAL_S, Heal
from dsreg.register.heal_work import HealView
from dsreg.register.links import RegisterClient
from dsreg.register.quorum import Quorum
from dsreg.register.replica import Replica
from dsreg.register.scrub import DAY_S, Scrub, ScrubView
from dsreg.register.tag_allocator import TagAllocator
from dsreg.register.tag_view import TagView
from dsreg.register.teachers import Teachers
from dsreg.register.throttle import Throttle

# Read identifiers of one incarnation: 2^39 operations, and as many questions of Heal, for each of 2^24 incarnations,
# never the same one twice.
RIDS_OF_AN_INCARNATION: Final = 1 << 40
_INCARNATIONS: Final = 1 << 24
_RIDS_OF_HEAL: Final = RIDS_OF_AN_INCARNATION >> 1
# A client does not know the cluster's identity: a node takes zeros from a client for "any".
_ANY_CLUSTER: Final = bytes(CLUSTER_SIZE)


class OpenedStorage(TagView, Protocol):
    """What a node's core needs of its storage once that has been opened: see StableStorage."""

    @property
    def incarnation(self) -> int: ...

    @property
    def ts_reserved(self) -> int: ...


class HealedStorage(HealView, Protocol):
    @property
    def incarnation(self) -> int: ...


def new_replica(
    rank: int,
    quorum: Quorum,
    storage: OpenedStorage,
    *,
    uuid_prefix: int,
    jitter: Callable[[], float],
    started_s: float = float("-inf"),
    store: bytes = b"",
    life: int = 1,
) -> Replica:
    """The replica of the node `rank` in the incarnation that `storage` has begun.

    `quorum`: of the nodes, this one among them. `uuid_prefix`: 32 random bits (see Uuids). `jitter`: see
    RegisterClient. `started_s`: see Replica. `store`: the id of the storage's directory, `life`: the number
    of its life.
    """
    return Replica(
        rank,
        quorum,
        storage,
        rids=itertools.count(first_rid(storage.incarnation, store)),
        uuids=Uuids(rank, uuid_prefix),
        allocator=TagAllocator(rank, storage.ts_reserved, storage.incarnation, life),
        links=RegisterClient(quorum.members, jitter=jitter),
        started_s=started_s,
    )


def new_heal(
    replica: Replica, quorum: Quorum, storage: HealedStorage, *, bytes_per_s: int = 0,
    interval_s: float = INTERVAL_S, store: bytes = b"", teachers: Teachers | None = None,
) -> Heal:
    """What heals the node of this replica. `bytes_per_s`: see Throttle; `interval_s`, `teachers`: see Heal; the others
    as above."""
    first = first_rid(storage.incarnation, store) + _RIDS_OF_HEAL
    heal = Heal(
        replica.rank, quorum, storage, replica.epochs, replica.allocator, itertools.count(first),
        throttle=Throttle(bytes_per_s), interval_s=interval_s,
        teachers=teachers,
    )
    replica.repairs.on_unknown = heal.hint
    return heal


def new_scrub(
    replica: Replica, heal: Heal, storage: ScrubView, *, days: float, place: float, started_s: float
) -> Scrub:
    """What verifies the copy of the node of this replica. `days`: a pass takes so long; 0: only when asked. The others:
    see Scrub."""
    return Scrub(replica.rank, storage, heal.throttle, period_s=days * DAY_S, place=place, started_s=started_s)


def is_of_heal(rid: int) -> bool:
    """Whether this node's question of that rid is one of Heal: the second half of the rids of an incarnation."""
    return bool(rid & _RIDS_OF_HEAL)


def first_rid(incarnation: int, store: bytes = b"") -> int:
    """The read identifier of the first operation that a node coordinates in this incarnation.

    A directory in place of a lost one counts its incarnations from 1 again. So that a late answer to an operation
    of the lost one counts for none of the new one, each directory
    begins at a place of its own among the 2^24, given by its id.
    """
    return (incarnation + int.from_bytes(store[:3])) % _INCARNATIONS * RIDS_OF_AN_INCARNATION + 1


def node_hello(
    rank: int, nodes: int, cluster: bytes, incarnation: int, sectors: int, *, seals: bool = True
) -> Hello:
    """What a node says first on a link, and answers with. `nodes`: how many the cluster has. `seals`: whether it can
    seal its connections."""
    features = nodes | FEATURE_LIVES | FEATURE_DIGESTS | FEATURE_CLAIMS | FEATURE_ADDRESSES | FEATURE_SUMS
    features |= FEATURE_CONFIGURATIONS | FEATURE_ZEROS | FEATURE_ZERO_CHUNKS | FEATURE_MAP
    features |= FEATURE_SEALED if seals else 0
    return Hello(rank, False, cluster, incarnation, sectors, features)


def client_hello(sectors: int, *, seals: bool = True) -> Hello:
    """What a client says first to a node."""
    features = FEATURE_LIVES | FEATURE_ADDRESSES | FEATURE_CONFIGURATIONS | FEATURE_ZEROS
    features |= FEATURE_SEALED if seals else 0
    return Hello(0, False, _ANY_CLUSTER, 0, sectors, features)
