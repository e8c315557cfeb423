"""A seeded life of a storage directory, and of it everything that a check needs to know.

It has several parts ("lives"): each starts from what a power cut in the one before left, so that recovery is
as much a part of the log as any commit.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count

from dsreg.constants import MIN_JOURNAL_BYTES, NO_OWNER, OWNER_SIZE, TAG_SIZE, ZERO_TAG
from dsreg.errors import NoSpace
from dsreg.protocol.configuration import Record
from dsreg.protocol.tags import iter_tags, pack_tag, tag_at
from dsreg.storage import Identity, StableStorage, Start, Ticket
from dsreg.storage.layout import GROUP_SECTORS
from dsreg.storage.slots import CHUNK_SECTORS
from dsreg.testing.memory_files import Kind, MemoryFiles, Operation
from tests.crash_states.demands import (
    NOTHING,
    Begins,
    Begun,
    Demands,
    Event,
    Fenced,
    Given,
    Grown,
    Kept,
    Learned,
    Recorded,
    Reserved,
    Started,
    value,
)
from tests.crash_states.image import Image, State

# A segment of this size is full after a few commits of short runs.
SMALL_JOURNAL_BYTES = 96 * 1024
CLUSTER = bytes(range(16))
RANKS = (1, 2, 3)


@dataclass(frozen=True)
class Profile:
    """`places`: sectors where the windows begin that are written to, of `window` sectors each."""

    name: str
    journal_bytes: int
    longest_run: int
    places: tuple[int, ...]
    window: int
    sectors: int
    steps: int


# Short runs with segments that fill at once; whole-megabyte runs with the smallest segments of the product.
SHORT = Profile("short", SMALL_JOURNAL_BYTES, 18, (0, 40, 5000), 28, 6000, 14)
LONG = Profile("long", MIN_JOURNAL_BYTES, 256, (0, 500), 280, 800, 6)


def identity(sectors: int) -> Identity:
    return Identity(CLUSTER, 1, RANKS, sectors)


def new_store() -> bytes:
    return CLUSTER[::-1]


def known_of(storage: StableStorage, profile: Profile) -> frozenset[int]:
    """Sectors of the windows of which it may say something."""
    return frozenset(
        sector for first, count in areas(profile)
        for sector in set(range(first, first + count)).difference(storage.unknown(first, count))
    )


class WorkFiles(MemoryFiles):
    """Calls `interrupt` once, before the operation that is `countdown` operations ahead."""

    def __init__(self) -> None:
        super().__init__()
        self._countdown = 0
        self._interrupt: Callable[[], None] | None = None

    def interrupt(self, countdown: int, what: Callable[[], None]) -> None:
        self._countdown, self._interrupt = countdown, what

    def inject(self, kind: Kind, name: str) -> None:
        self._countdown -= 1
        if self._interrupt is not None and self._countdown < 0:
            what, self._interrupt = self._interrupt, None
            what()
        super().inject(kind, name)


@dataclass
class Life:
    """One run of the storage from `base` on. An event with position p counts once p operations are done."""

    base: State
    before: Demands
    log: list[Operation]
    events: list[tuple[int, Event]] = field(default_factory=list)

    def image(self, upto: int) -> Image:
        image = Image(self.base)
        for operation in self.log[:upto]:
            image.do(operation)
        return image

    def demands(self, upto: int) -> Demands:
        demands = self.before.copy()
        for position, event in self.events:
            if position <= upto:
                demands.take(event)
        return demands


class Workload:
    """`lives` is filled by `run`."""

    def __init__(self, seed: int, profile: Profile) -> None:
        self.profile = profile
        self.lives: list[Life] = []
        self._rng = random.Random(f"workload {seed} {profile.name}")
        self._numbers = count(1)
        self._ts = 0
        self._epoch = 0
        self._copies_epoch = 0  # that of the copies which are stored now; has nothing to do with what is promised
        self._fences: dict[Ticket, set[Ticket]] = {}  # what was waiting when each was asked for
        self._waiting: dict[Ticket, list[Event]] = {}
        self._files = WorkFiles()
        self._demands = Demands()
        self.all_unknown = self._rng.random() < 0.3
        self._ids = random.Random(f"ids {seed}")  # none is given twice

    def run(self, lives: int = 3) -> None:
        everything = frozenset(s for first, count in areas(self.profile) for s in range(first, first + count))
        # What a crash leaves of its creation is not demanded to be known, and must not be if it is a new life.
        self._start({}, Demands(may_know=frozenset() if self.all_unknown else everything))
        for number in range(lives):
            for _ in range(self._rng.randint(2, self.profile.steps)):
                self._step()
            if number + 1 < lives:
                self._power_cut()

    # --- lives ------------------------------------------------------------------------------------
    def _start(self, base: State, before: Demands) -> None:
        self._files = WorkFiles.holding(base)
        self._demands = before.copy()
        self._life = Life(base, before, self._files.log)
        self.lives.append(self._life)
        self._open()

    def _power_cut(self) -> None:
        """At the end of the life, or some operations earlier: in the middle of a commit or checkpoint."""
        life = self._life
        upto = len(life.log) - self._rng.choice((0, 0, self._rng.randrange(12)))
        image = life.image(max(0, upto))
        choice = next(image.choices(self._rng, 1))
        self._waiting.clear()
        self._fences.clear()
        self._start(image.choose(choice), life.demands(upto))

    def _open(self) -> None:
        files, disk, size = self._files, identity(self.profile.sectors), self.profile.journal_bytes
        try:
            self._storage = StableStorage.open(files, disk, size, self._new_store, Start(all_unknown=self.all_unknown))
        except NoSpace:
            files.capacity = None
            self._storage = StableStorage.open(files, disk, size, self._new_store, Start(all_unknown=self.all_unknown))
        found = {
            sector: tag
            for first, length in areas(self.profile)
            for sector, tag in enumerate(iter_tags(self._storage.tags(first, length)), first)
            if tag != ZERO_TAG
        }
        self._note(started(self._storage, found, self.profile))

    def _new_store(self) -> bytes:
        return self._ids.randbytes(16)

    def _note(self, event: Event) -> None:
        self._life.events.append((len(self._files.log), event))
        self._demands.take(event)

    # --- steps ------------------------------------------------------------------------------------
    def _step(self) -> None:
        rng, files = self._rng, self._files
        for _ in range(rng.randint(1, 4)):
            if rng.random() < 0.12:
                self._zero()
            else:
                self._store()
        if rng.random() < 0.15:
            self._ts += rng.randrange(100)
            self._waiting[self._storage.reserve(self._ts)] = [Reserved(self._ts)]
        if rng.random() < 0.2:
            self._fence()
        if rng.random() < 0.2:
            files.capacity = files.used() + rng.choice((0, 0, 1, 3)) if files.capacity is None else None
        if rng.random() < 0.3:
            self._learn()
        what = rng.random()
        if what < 0.65:
            self._commits()
        elif what < 0.85:
            self._checkpoint()
        elif what < 0.92:
            self._restart()

    def _store(self) -> None:
        rng, profile = self._rng, self.profile
        place = rng.choice(profile.places)
        length = rng.randint(1, rng.choice((1, 3, profile.longest_run)))
        first = place + rng.randrange(profile.window - length + 1)
        self._ts += 1
        if rng.random() < 0.3:
            first, tags = self._raised(first, length)
            length = len(tags) // TAG_SIZE
        else:
            tags = self._tag() * length if rng.random() < 0.7 else b"".join(self._tag() for _ in range(length))
        zeros = rng.random() < 0.35
        parts, events = [], []
        for index in range(length):
            sector, tag = first + index, tag_at(tags, index)
            known = self._demands.given.get(sector, {}).get(tag)
            new = NOTHING if zeros or not tag[-1] else next(self._numbers)
            number = new if known is None else known
            self._note(Given(sector, tag, number))
            parts.append(value(sector, number))
            events.append(Kept(sector, tag))
        ticket = self._storage.persist(first, length, tags, b"".join(parts))
        self._waiting[ticket] = [*self._waiting.get(ticket, []), *events]
        self._settle([ticket])

    def _zero(self) -> None:
        """A run of whole chunks, by one command: newer than all before, or late."""
        rng, whole = self._rng, self.profile.sectors // CHUNK_SECTORS
        start = min(rng.choice(self.profile.places) // CHUNK_SECTORS, whole - 2)
        stop = rng.randint(start + 2, min(whole, start + 4))
        self._ts += rng.random() < 0.7 or not self._ts
        tag = self._tag()
        run = range(start * CHUNK_SECTORS, stop * CHUNK_SECTORS)
        touched = [s for first, count in areas(self.profile) for s in range(first, first + count) if s in run]
        if any(self._demands.given.get(sector, {}).get(tag, NOTHING) != NOTHING for sector in touched):
            return  # it is the tag of a value
        for sector in touched:
            self._note(Given(sector, tag, NOTHING))
        ticket = self._storage.zero(run.start, len(run), tag)
        self._waiting[ticket] = [*self._waiting.get(ticket, []), *(Kept(sector, tag) for sector in touched)]
        self._settle([ticket])

    def _raised(self, first: int, length: int) -> tuple[int, bytes]:
        """Where, and tags of sectors that were never written, restamped: often whole groups, and sometimes
        with written ones between them."""
        rng = self._rng
        self._copies_epoch += rng.random() < 0.2
        epoch = max(1, self._copies_epoch - (rng.random() < 0.2))
        end, start = first + length, -(-first // GROUP_SECTORS) * GROUP_SECTORS
        if rng.random() < 0.7 and start < end:
            first, length = start, (end - start) // GROUP_SECTORS * GROUP_SECTORS or end - start
        tags = [pack_tag(0, 0, 0, epoch)] * length
        if rng.random() < 0.2:
            tags = [tag if rng.random() < 0.6 else self._tag() for tag in tags]
        return first, b"".join(tags)

    def _learn(self) -> None:
        """Something, or all, or (as of an older directory) nothing from now on."""
        rng, learning = self._rng, self._storage.learning
        if rng.random() < 0.15 and self._files.capacity is None:
            self._storage.close()  # a node does so before it serves
            for ticket in list(self._waiting):
                self._settle([ticket])
            self._open()
            self._note(Begins())
            self._storage.learning.begin()
            self._note(Begun())
        elif learning.left:
            first = rng.choice(self.profile.places) + rng.randrange(self.profile.window)
            count = rng.randint(1, self.profile.window)
            if rng.random() < 0.3:
                first, count = 0, self._storage.sectors
            count = min(count, self._storage.sectors - first)
            self._note(Learned(frozenset(range(first, first + count))))
            assert learning.learned(first, count)

    def _fence(self) -> None:
        """A newer epoch, or the same one with its owner learnt later. Done means also: all from before is decided."""
        self._epoch += self._rng.randrange(2)
        owner = self._rng.choice((NO_OWNER, bytes([self._epoch % 256]) * OWNER_SIZE))
        waiting = {ticket for ticket, events in self._waiting.items() if isinstance(events[0], Kept)}  # the stores
        ticket = self._storage.fence(self._epoch, owner)
        self._fences[ticket] = waiting
        self._waiting[ticket] = [Fenced(self._epoch, owner)]
        self._settle([ticket])

    def _tag(self) -> bytes:
        """Mostly newer than all before; also older ones, some of them lost in a power cut."""
        ts = self._ts if self._rng.random() < 0.7 else self._rng.randint(max(1, self._ts - 12), self._ts)
        epoch = max(0, self._copies_epoch - (self._rng.random() < 0.2))
        return pack_tag(ts, self._rng.choice(RANKS), 0, epoch)

    def _settle(self, tickets: list[Ticket]) -> None:
        undecided = {ticket for ticket in self._waiting if not ticket.done}
        for ticket in tickets:
            if not ticket.done:
                continue
            assert not self._fences.pop(ticket, set()) & undecided, "a fence waits for the stores from before it"
            for event in self._waiting.pop(ticket, ()):
                if ticket.ok:
                    self._note(event)

    def _commits(self) -> None:
        """One or several; inside one of them a checkpoint may run, as in another thread."""
        for _ in range(self._rng.randint(1, 3)):
            if self._rng.random() < 0.3:
                self._files.interrupt(self._rng.randrange(6), self._run_checkpoint)
            self._run_commit()

    def _run_commit(self) -> None:
        commit = self._storage.next_commit()
        if commit is not None:
            commit.run()
            self._settle(self._storage.finish_commit(commit))

    def _checkpoint(self) -> None:
        """Commits may run inside it."""
        if self._rng.random() < 0.6:
            self._files.interrupt(self._rng.randrange(4), self._run_commit)
        self._run_checkpoint()

    def _run_checkpoint(self) -> None:
        known = known_of(self._storage, self.profile)
        checkpoint = self._storage.next_checkpoint()
        if checkpoint is not None:
            checkpoint.run()
            self._storage.finish_checkpoint(checkpoint)
            if checkpoint.recorded:
                self._note(Recorded(known))

    def _restart(self) -> None:
        """In order, perhaps after the disk has grown. What was refused meanwhile was told to nobody."""
        self._files.interrupt(0, lambda: None)
        self._storage.close()
        for ticket in list(self._waiting):
            self._settle([ticket])
        assert not self._waiting, "close stores or refuses everything"
        self._open()
        if self._rng.random() < 0.3:
            self._grow()

    def _grow(self) -> None:
        """By a configuration that was chosen."""
        storage = self._storage
        current = storage.configuration.record.current
        larger = current._replace(number=current.number + 1, sectors=current.sectors + 16)
        try:
            storage.configuration.remember(Record(larger))
        except NoSpace:
            return
        storage.grow(larger.sectors)
        self._note(Grown(larger.sectors))


def started(storage: StableStorage, found: dict[int, bytes], profile: Profile) -> Started:
    """The storage has been opened, with these tags."""
    return Started(storage.incarnation, found, known_of(storage, profile), storage.sectors)


def areas(profile: Profile) -> Iterator[tuple[int, int]]:
    """Everything that a workload writes to, in runs of at most 256 sectors (first, count)."""
    for place in profile.places:
        for first in range(place, place + profile.window, 256):
            yield first, min(256, place + profile.window - first)
