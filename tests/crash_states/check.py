"""One state: recover from it, compare it with what was acknowledged, use it, recover once more."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

from dsreg.constants import OWNER_SIZE, SECTOR_SIZE, TAG_SIZE, ZERO_TAG
from dsreg.errors import NoSpace
from dsreg.protocol.tags import pack_tag, tag_at
from dsreg.storage import StableStorage, Start
from dsreg.testing.memory_files import PAGE, Kind, MemoryFiles, Operation
from tests.crash_states.demands import Demands, Given, Kept, value
from tests.crash_states.image import Damage, Image, State
from tests.crash_states.workload import Profile, areas, identity, known_of, new_store, started

# Above any ts and number of a workload.
LATER_TS = 1 << 32
LATER_NUMBER = 1 << 32
LATER_EPOCH = 1 << 20
LATER_OWNER = b"\xff" * OWNER_SIZE
# Recoveries that are cut inside of recoveries that were cut.
DEPTH = 3


class Violation(AssertionError):
    """The storage broke its promise."""


def damaged(state: State, damage: Sequence[Damage]) -> State:
    """With garbage where something is damaged."""
    after = dict(state)
    for name, offset, size, _ in damage:
        if name in after and offset < after[name].size:
            content = after[name] = after[name].copy()
            end = min(offset + size, content.size)
            content.write(bytes(byte ^ 0xA5 for byte in content.read(end - offset, offset)), offset)
    return after


class Checker:
    """`all_unknown`: how a directory is made if there is none."""

    def __init__(self, profile: Profile, counts: Counter[str], all_unknown: bool = False) -> None:
        self._profile = profile
        self._counts = counts
        self._all_unknown = all_unknown

    def check(
        self, state: State, demands: Demands, rng: random.Random, depth: int = DEPTH, damage: Sequence[Damage] = ()
    ) -> None:
        """Raises Violation, or whatever the storage raised, which it must not."""
        state = damaged(state, damage)
        files = MemoryFiles.holding(state)
        for each in damage:
            self._counts["sectors damaged"] += 1
            if not each.readable:
                files.unreadable(each.name, each.offset // PAGE)
        demands = demands.copy()
        if rng.random() < 0.1:
            self._open_full(files, demands)
        begin = len(files.log)
        storage = self._open(files)
        found = self._compare(storage, demands)
        if depth and rng.random() < 0.25:
            upto = rng.randint(begin, len(files.log))
            self._cut_recovery(state, files.log[:upto], demands, rng, depth, damage)
        demands.take(started(storage, found, self._profile))
        self._use(storage, files, demands, rng)

    def _open(self, files: MemoryFiles) -> StableStorage:
        self._counts["recoveries"] += 1
        disk, size = identity(self._profile.sectors), self._profile.journal_bytes
        return StableStorage.open(files, disk, size, new_store, Start(all_unknown=self._all_unknown))

    def _open_full(self, files: MemoryFiles, demands: Demands) -> None:
        """A full disk may keep it from starting, and takes nothing away."""
        self._counts["recoveries on a full disk"] += 1
        files.capacity = files.used()
        try:
            storage = self._open(files)
        except NoSpace:
            self._counts["recoveries refused for want of space"] += 1
        else:
            found = self._compare(storage, demands)
            demands.take(started(storage, found, self._profile))
            storage.close()
        files.capacity = None

    def _compare(self, storage: StableStorage, demands: Demands) -> dict[int, bytes]:
        """The tags of all sectors, after comparing them and their values with what they may be."""
        found: dict[int, bytes] = {}
        for first, count in areas(self._profile):
            unknown = storage.unknown(first, count)
            if storage.missing(first, count) != unknown or storage.damaged_of(first, count):
                raise Violation(f"sectors {storage.damaged_of(first, count)} are damaged")
            loaded = storage.load(first, count, wait=True)
            assert loaded is not None, "no commit is under way"
            if list(loaded.missing) != unknown or len(loaded.tags) != count * TAG_SIZE:
                raise Violation(f"sectors {loaded.missing} are damaged, {unknown} are to be learned")
            for index in range(count):
                sector, tag = first + index, tag_at(loaded.tags, index)
                expected = demands.value(sector, tag)
                if expected is None:
                    low = demands.low.get(sector, ZERO_TAG)
                    raise Violation(f"sector {sector} has tag {tag.hex()}, below {low.hex()} or never given")
                if loaded.data[index * SECTOR_SIZE:(index + 1) * SECTOR_SIZE] != expected:
                    raise Violation(f"sector {sector} does not have the value of its tag {tag.hex()}")
                if tag != ZERO_TAG:
                    found[sector] = tag
        known = known_of(storage, self._profile)
        if not demands.known <= known <= demands.may_know:
            few, many = sorted(demands.known - known), sorted(known - demands.may_know)
            raise Violation(f"sectors {few} are not known any more, and {many} were not learned")
        if storage.sectors < demands.sectors:
            raise Violation(f"{storage.sectors} sectors; the disk had {demands.sectors}")
        if storage.incarnation <= demands.incarnation:
            raise Violation(f"incarnation {storage.incarnation} after {demands.incarnation}")
        if storage.ts_reserved < demands.ts_reserved:
            raise Violation(f"reserved ts {storage.ts_reserved}; {demands.ts_reserved} was promised")
        if (storage.epoch, storage.owner) < demands.fenced:
            raise Violation(f"epoch {storage.epoch} of {storage.owner.hex()}; {demands.fenced[0]} was promised")
        return found

    def _cut_recovery(
        self, state: State, log: list[Operation], demands: Demands, rng: random.Random, depth: int,
        damage: Sequence[Damage],
    ) -> None:
        """Cut the power after `log`, a part of the recovery from `state`, and recover from what that leaves."""
        self._counts["recoveries cut"] += 1
        image = Image(state)
        for operation in log:
            image.do(operation)
        choice = rng.choice(list(image.choices(rng, 8)))
        # What was written over as a whole can be read again; the writing may have been cut as well.
        written = {(each.name, each.offset) for each in log if each.kind is Kind.WRITE and len(each.data) >= PAGE}
        unreadable = [each for each in damage if not each.readable and (each.name, each.offset) not in written]
        self.check(image.choose(choice), demands, rng, depth - 1, [*unreadable, *image.damage(rng)])

    def _use(self, storage: StableStorage, files: MemoryFiles, demands: Demands, rng: random.Random) -> None:
        """Store something, close, open: all of it is there, and everything else as before."""
        first, length = rng.choice(list(areas(self._profile)))
        count = rng.randint(1, min(length, self._profile.longest_run))
        first += rng.randrange(length - count + 1)
        tag = pack_tag(LATER_TS, 1, 0, LATER_EPOCH)
        for sector in range(first, first + count):
            demands.take(Given(sector, tag, LATER_NUMBER + sector))
            demands.take(Kept(sector, tag))
        data = b"".join(value(sector, LATER_NUMBER + sector) for sector in range(first, first + count))
        tickets = [storage.persist(first, count, tag * count, data), storage.reserve(demands.ts_reserved + 1)]
        demands.ts_reserved += 1
        demands.fenced = (demands.fenced[0] + rng.randrange(2), LATER_OWNER)
        tickets.append(storage.fence(*demands.fenced))
        storage.close()
        if not all(ticket.done and ticket.ok for ticket in tickets):
            raise Violation("the recovered storage does not store")
        again = self._open(files)
        self._compare(again, demands)
        again.close()
