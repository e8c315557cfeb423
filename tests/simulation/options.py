"""What a seed stands for: the cluster, the clients, the timing and the faults of one run.

Each run enables only some of the faults, each at a rate of its own: a fault that occurs all the time hides
what would go wrong without it ("swarm testing").
"""

from __future__ import annotations

import dataclasses
import random

from dsreg.constants import MAX_RUN_SECTORS
from dsreg.register.tag_allocator import PROMISE_STEP
from tests.simulation.kinds import SWARM, directed
from tests.simulation.limits import smallest_journal

# Faults that the nemesis injects now and then, with how many runs in a hundred know them.
NEMESIS = {
    "kill": 50,  # the process is gone, the page cache stays
    "power": 50,  # everything not synced is gone, or torn
    "power_at_step": 45,  # the same, between two operations of a commit, a checkpoint or a recovery
    "blackout": 25,  # power, for all nodes at once
    "coordinator": 50,  # a node dies once one copy of what it has given a tag is durable, and that copy is hidden
    "stop": 15,  # SIGTERM, and a new start
    "sync_error": 15,  # fsync fails, once, and forgets some of what it should have written
    "write_error": 10,
    "read_error": 10,  # pages of the home file that cannot be read
    "damage_sector": 20,
    "damage_tags": 25,
    "damage_copy": 8,  # one of the two copies of the state or of a journal header
    "wipe": 20,  # the directory is deleted, and the node started again
    "disk_full": 15,
    "pause": 25,  # SIGSTOP, SIGCONT
    "slow_disk": 20,
    "slow_node": 15,
    "clock_jump": 15,
    "cut": 40,  # one connection
    "partition": 35,
    "one_way": 25,
    "isolate": 25,
    "rolling": 40,  # isolate one minority after the other, and do something else at each change
    "swizzle": 10,  # stop nodes one by one and revive them in another order
    "client_crash": 30,
    "client_pause": 30,
    "replay": 20,  # frames between nodes, recorded earlier
}
# The share of the runs where all clients attach in which one may be put back to an earlier state of its memory.
PUT_BACK = 0.3
# The share of the runs, of those that are not directed, in which nodes lose their directories and rejoin; nothing else
# is damaged in them, so that it may be any node.
REJOINS = 0.25
# The share of those in which there is time for copies of directories to be made, become old, and be put back.
OLDER = 0.5
# The share of the runs, of those that are not directed, in which members are changed; nothing is damaged in them, and
# no older directory is put back.
RECONFIGURES = 0.15
# The share of those in which the disk grows as well.
GROWS = 0.5
# How many nodes there are in these, and how many of them are no members at first.
CHANGING = {3: ((3, 0), (3, 1), (5, 2), (5, 2)), 5: ((5, 0), (5, 1), (5, 2)), 7: ((7, 0), (7, 2), (7, 4))}
# The share of the runs, of those that are not directed, in which clients begin runs that overlap their own.
OVERLAPS = 0.3
# The share of those in which there is a client with a write-back cache as well.
CACHED = 0.6
# How many of the writes are of zeros, in the runs that are not directed.
ZEROS = (0.0, 0.0, 0.2, 0.5)
# The share of the runs with zeros, of those that do not grow and have no cache, in which some are over many chunks; how
# large the disk is there, and which sectors clients use: those around the beginning of a chunk.
LONG_ZEROS = 0.2
LONG_SECTORS = 3 * MAX_RUN_SECTORS
LONG_WINDOW = range(MAX_RUN_SECTORS - 4, MAX_RUN_SECTORS + 4)
# What may happen to frames, with how many runs in a hundred know it: of those on a usual network, and on a bad one.
FRAMES = {"drop": (25, 60), "duplicate": (30, 60), "corrupt": (25, 50), "swap": (25, 60)}
# How many runs in a hundred have a bad network. Much else goes on as it should there only seldom.
BAD_NETWORK = 35
# The share of frames to which it happens. Each corrupted one costs its connection, which then shows little else.
SHARES = (0.002, 0.01, 0.04)
BAD_SHARES = {"drop": (0.04, 0.15), "duplicate": (0.04, 0.2), "corrupt": (0.01, 0.04), "swap": (0.04, 0.2)}
# Those that take away what was durable: never on more than a minority of the nodes.
DAMAGING = frozenset({"damage_sector", "damage_tags", "damage_copy", "read_error", "wipe"})
# Those that need more than one node to mean much.
BETWEEN_NODES = frozenset(
    {"partition", "one_way", "isolate", "rolling", "swizzle", "replay", "slow_node", "blackout", "coordinator"}
)


@dataclasses.dataclass(frozen=True)
class Options:
    """All times in seconds, all shares 0..1. `operations`: per client, in the safety phase. `sealed`: the share of
    nodes and clients that can seal. `skew`: how much slower than the others some directions between two hosts are.

    Of directed runs (kinds.py): `spread`: how much slower the longest distance is than none. `disk_spread`: how much
    slower some disks are, `checkpoint_factor`: how much slower than other jobs checkpoints. `clock_step_s`: the clocks
    of clients stand still for so long at a time. `promise_step`: how many tags a node promises at a time. `tries`: how
    often a frontend that was fenced, or refused, tries again. `attach_after_s`: when the first one attaches.
    `one_home`: all clients prefer the same node.

    Not in directed runs, where what is looked for would not last: `heal`: the nodes compare their copies. `scrub_s`: so
    long each takes to verify its copy once; 0: they do not. `rejoins`: a node whose directory is lost takes the next
    life of its rank. `reconfigures`: members are changed; `joiners`: so many of the `nodes`, the last ones, are none at
    first. `first_sectors`: the disk has so many at first, and may grow up to `sectors`; 0: it does not. `overlaps`:
    clients begin runs that overlap others of their own, and some with a time limit. `cached`: one more client has a
    write-back cache. `zeros`: the share of the writes of the others that are of zeros. `long_zeros`: the share of the
    operations that zero many chunks."""

    seed: int
    nodes: int
    sectors: int
    extension_clients: int
    contract_clients: int
    frontends: int
    operations: int
    depth: int
    max_run: int
    reads: float
    think_s: float
    abandon: float
    journal_bytes: int
    latency_s: float
    skew: float
    tail_s: float
    tail: float
    split: float
    disk_s: float
    interleave: float
    cold: float
    contract_nodes: float
    strict_start: bool
    sealed: float
    receipts: bool
    absent_at_end: int
    fault_interval_s: float
    max_faults: int
    power: str
    faults: tuple[str, ...]
    frames: tuple[tuple[str, float], ...]
    kind: str = SWARM
    spread: float = 1.0
    disk_spread: float = 1.0
    checkpoint_factor: float = 1.0
    clock_step_s: float = 0.0
    promise_step: int = PROMISE_STEP
    tries: int = 3
    attach_after_s: float = 0.0
    one_home: bool = False
    heal: bool = False
    rejoins: bool = False
    reconfigures: bool = False
    joiners: int = 0
    first_sectors: int = 0
    scrub_s: float = 0.0
    overlaps: bool = False
    cached: bool = False
    zeros: float = 0.0
    long_zeros: float = 0.0

    @property
    def window(self) -> range:
        """The sectors that clients use."""
        return LONG_WINDOW if self.long_zeros else range(self.sectors)

    @property
    def looked_at(self) -> tuple[int, ...]:
        """The sectors that the checks look at: of those that no client uses one of each chunk."""
        return (0, *LONG_WINDOW, LONG_SECTORS - 1) if self.long_zeros else tuple(range(self.sectors))

    @property
    def ranks(self) -> tuple[int, ...]:
        return tuple(range(1, self.nodes + 1))

    @property
    def first_ranks(self) -> tuple[int, ...]:
        """The members of the first configuration."""
        return self.ranks[: self.nodes - self.joiners]

    @property
    def created_sectors(self) -> int:
        """Of the first configuration."""
        return self.first_sectors or self.sectors

    @property
    def strict(self) -> bool:
        """Whether all clients attach: nothing that a dead one has left may come up once its successor has looked."""
        return self.frontends > 0 and self.extension_clients == self.contract_clients == 0

    @property
    def require_sealed(self) -> bool:
        """Whether nodes and clients talk over sealed connections only: where all can, in half of the runs."""
        return self.sealed == 1.0 and not self.contract_clients and not self.contract_nodes and self.seed % 2 == 0

    @property
    def minority(self) -> int:
        """How many nodes may be missing, as long as no members are changed."""
        return (self.nodes - self.joiners - 1) // 2

    def frame_share(self, name: str) -> float:
        return dict(self.frames).get(name, 0.0)

    def __str__(self) -> str:
        values = []
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, float):
                value = f"{value:.4g}"
            elif field.name == "frames":
                value = "+".join(f"{name}:{share:.3f}" for name, share in value) or "none"
            elif isinstance(value, tuple):
                value = "+".join(value) or "none"
            values.append(f"{field.name}={value}")
        return " ".join(values)


def derive(seed: int) -> Options:
    """The options of `seed`; nothing else has a say."""
    rng = random.Random(f"options {seed}")
    nodes = rng.choices((1, 3, 5, 7), (14, 62, 18, 6))[0]
    contract = rng.choice((0, 0, 1, 1, 2, 3))
    extension = rng.choice((1, 2, 3)) if contract else rng.choice((2, 3))
    sectors = rng.choice((1, 1, 2, 2, 4, 8, 16, 40))
    # With numbers of its own, so that the other runs stay what they were.
    attaching = random.Random(f"attachments {seed}")
    frontends = attaching.choice((0, 0, 0, 0, 1, 2, 2, 3))
    if frontends and attaching.random() < 0.6:
        extension = contract = 0
    quiet = rng.random() < 0.05
    faults = [] if quiet else [name for name, share in NEMESIS.items() if rng.random() * 100 < share]
    # Where others write as well, what they have written is not kept from a client whose clock was put back.
    if faults and frontends and not extension and not contract and attaching.random() < PUT_BACK:
        faults.append("client_put_back")
    bad = rng.random() * 100 < BAD_NETWORK
    frames = [
        (name, rng.choice(BAD_SHARES[name] if bad else SHARES))
        for name, shares in FRAMES.items()
        if not quiet and rng.random() * 100 < shares[bad]
    ]
    if nodes == 1 and not quiet:
        # No other node makes up for what this one loses: the place to look closely at its disk.
        unfit = DAMAGING | BETWEEN_NODES | {"power_at_step"}
        faults = [*(name for name in faults if name not in unfit), "power_at_step"]
    operations = rng.choice((12, 25, 40)) if nodes < 5 else 15
    interval_s, max_faults = rng.choice((0.02, 0.1, 0.5, 2.0)), rng.choice((5, 12, 30))
    return _with_more(directed(Options(
        seed=seed,
        nodes=nodes,
        sectors=sectors,
        extension_clients=extension,
        contract_clients=contract,
        frontends=frontends,
        operations=operations,
        depth=min(sectors, rng.choice((1, 2, 4, 8))),
        max_run=min(sectors, rng.choice((1, 1, 2, 4, 8))),
        reads=rng.choice((0.2, 0.5, 0.5, 0.7)),
        # The work shall last about as long as the faults.
        think_s=rng.choice((0.2, 1.0, 2.0)) * interval_s * max_faults / operations,
        abandon=rng.choice((0.0, 0.0, 0.05, 0.2)),
        journal_bytes=rng.choice((48, 64, 96, 256)) * 1024,
        latency_s=rng.choice((0.0001, 0.0005, 0.003)),
        skew=rng.choice((1.0, 1.0, 30.0, 300.0)),
        tail_s=rng.choice((0.01, 0.1, 2.0)),
        tail=rng.choice((0.0, 0.01, 0.1)),
        split=rng.choice((0.0, 0.0, 0.1, 0.5)),
        disk_s=rng.choice((0.0002, 0.001, 0.01)),
        interleave=rng.choice((0.0, 0.2, 1.0)),
        cold=rng.choice((0.0, 0.0, 0.2, 1.0)),
        # A node that speaks only the contract keeps no epochs.
        contract_nodes=rng.choice((0.0, 0.0, 0.0, 0.3, 1.0)) * (not frontends),
        strict_start=random.Random(f"strict start {seed}").random() < 0.5,
        sealed=random.Random(f"seals {seed}").choice((0.0, 0.0, 0.5, 1.0)),
        receipts=rng.random() < 0.2,
        absent_at_end=rng.randint(0, (nodes - 1) // 2),
        fault_interval_s=interval_s,
        max_faults=max_faults,
        power=rng.choice(("random", "random", "drop", "keep")),
        faults=tuple(faults),
        frames=tuple(frames),
    )))


def _with_more(drawn: Options) -> Options:
    """What came later has numbers of its own, so that the other runs stay what they were."""
    if drawn.kind != SWARM:
        return drawn
    heals = drawn.nodes > 1 and random.Random(f"heal {drawn.seed}").random() < 0.5
    scrub_s = random.Random(f"scrub {drawn.seed}").choice((0.0, 0.0, 0.5, 5.0))
    overlaps = random.Random(f"overlaps {drawn.seed}").random() < OVERLAPS
    # A client with a cache does not attach, so that what it leaves may come up.
    cached = overlaps and not drawn.strict and random.Random(f"cached {drawn.seed}").random() < CACHED
    # Who heals stores what it lacks in one run, and a cache what it has joined: a record of all sectors has to fit.
    least = smallest_journal(drawn.sectors) if heals or cached else 0
    rejoining = random.Random(f"rejoins {drawn.seed}")
    if rejoining.random() < REJOINS and drawn.minority and drawn.faults and not drawn.contract_nodes:
        drawn, heals = _rejoining(drawn, rejoining), True
        least = smallest_journal(drawn.sectors)
    reconfiguring = random.Random(f"reconfigures {drawn.seed}")
    if reconfiguring.random() < RECONFIGURES and drawn.minority and drawn.faults and not drawn.contract_nodes:
        drawn, heals = _reconfiguring(drawn, reconfiguring), True
        growing = random.Random(f"grows {drawn.seed}")
        if growing.random() < GROWS and not cached:
            drawn = dataclasses.replace(
                drawn, first_sectors=drawn.sectors, sectors=drawn.sectors + growing.choice((1, 3, 8))
            )
        least = smallest_journal(drawn.sectors)
    zeros = random.Random(f"zeros {drawn.seed}").choice(ZEROS)
    lengths = random.Random(f"long zeros {drawn.seed}")
    if zeros and not cached and not drawn.first_sectors and lengths.random() < LONG_ZEROS:
        drawn, least = dataclasses.replace(
            drawn, sectors=LONG_SECTORS, long_zeros=lengths.choice((0.05, 0.2)),
            depth=min(drawn.depth, len(LONG_WINDOW)), max_run=min(drawn.max_run, len(LONG_WINDOW)),
        ), smallest_journal(MAX_RUN_SECTORS)
    return dataclasses.replace(
        drawn, heal=heals, scrub_s=scrub_s, overlaps=overlaps, cached=cached, zeros=zeros,
        journal_bytes=max(drawn.journal_bytes, least),
    )


def _rejoining(drawn: Options, rng: random.Random) -> Options:
    others = [name for name in drawn.faults if name not in DAMAGING and name != "coordinator_lost"]
    rejoin, older = ("rejoin",) * rng.choice((1, 3, 10)), ("older",) * rng.choice((2, 6, 20))
    if rng.random() >= OLDER:
        return dataclasses.replace(drawn, rejoins=True, faults=(*others, *rejoin, *older))
    interval_s, max_faults = rng.choice((0.5, 1.0)), 40
    return dataclasses.replace(
        drawn, rejoins=True, faults=(*others, "rejoin", *("older",) * (len(others) + 1)), fault_interval_s=interval_s,
        max_faults=max_faults, think_s=interval_s * max_faults / drawn.operations,
    )


def _reconfiguring(drawn: Options, rng: random.Random) -> Options:
    """Two sets that are joint may need each of their members."""
    kept = [name for name in drawn.faults if name not in DAMAGING | {"coordinator_lost", "older"}]
    faults = (*kept, *("reconfigure",) * rng.choice((1, 3, 10)))
    nodes, joiners = rng.choice(CHANGING[drawn.nodes])
    return dataclasses.replace(
        drawn, nodes=nodes, joiners=joiners, reconfigures=True, absent_at_end=0, faults=faults,
    )
