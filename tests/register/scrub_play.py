"""A scrub to play with: the node is 1 of 3; its storage is in memory."""

from __future__ import annotations

from dsreg.constants import MAX_RUN_SECTORS
from dsreg.protocol.messages import Sums, SumsQuery
from dsreg.register.damage import Damage, Kind
from dsreg.register.effects import Effect, Persist, Verify
from dsreg.register.scrub import Scrub
from dsreg.register.throttle import Throttle
from dsreg.storage.checksum import crc32
from dsreg.testing.memory_storage import MemoryStorage
from tests.protocol.values import data, tags

SECTORS = 2 * MAX_RUN_SECTORS + 4
NAME = (5, 2)
TAG = tags(NAME)


class View(MemoryStorage):
    """`found`, `crcs`: what dsreg.storage.verify.CopyCheck has."""

    def __init__(self) -> None:
        super().__init__(SECTORS)
        self.found: list[Damage] = []

    @property
    def check(self) -> View:
        return self

    @property
    def sectors_written(self) -> int:
        return len(self._durable)

    def crcs(self, first: int, count: int) -> bytes:
        """As of what was stored, whatever has become of it."""
        stored = (self._durable.get(sector, (b"", b""))[1] for sector in range(first, first + count))
        return b"".join(crc32(value).to_bytes(4) if value else bytes(4) for value in stored)

    def lose(self, sector: int) -> None:
        """The disk has damaged it, which was found now."""
        self.damage(sector)
        self.found.append(Damage(Kind.VALUE, sector, 1))


class Play:
    def __init__(self, *compares: int, period_s: float = 0.0, place: float = 0.0) -> None:
        self.now = 100.0
        self.storage = View()
        self.throttle = Throttle()
        self.scrub = Scrub(1, self.storage, self.throttle, period_s=period_s, place=place, started_s=self.now)
        self.scrub.compares = lambda: list(compares)

    def have(self, *sectors: int, fill: int = 7) -> None:
        for sector in sectors:
            self.storage.queue(Persist(sector, 1, TAG, data(fill), ()))
            self.storage.commit()

    def tick(self, seconds: float = 0.0) -> list[Effect]:
        self.now += seconds
        return self.scrub.tick(self.now)

    def verified(self, effect: Effect, is_sure: bool = True) -> list[Effect]:
        assert isinstance(effect, Verify)
        return self.scrub.verified(effect, is_sure, self.now)

    @property
    def under_way(self) -> Verify:
        assert self.scrub._verifying is not None
        return self.scrub._verifying[1]

    def ask(self) -> list[Verify]:
        """All that a pass verifies that is asked for; what else it wants is left in `rest`."""
        self.scrub.ask(self.now)
        self.rest: list[Effect] = []
        seen: list[Verify] = []
        effects = self.tick()
        while effects:
            verifies = [effect for effect in effects if isinstance(effect, Verify)]
            self.rest += [effect for effect in effects if not isinstance(effect, Verify)]
            seen += verifies
            effects = self.verified(verifies[0]) if verifies else []
        return seen

    def sums(self, rank: int, query: SumsQuery, tag: bytes = TAG, fill: int = 7) -> list[Effect]:
        """The answer of that node: it has this in all of the run."""
        crc = crc32(data(fill)).to_bytes(4)
        return self.scrub.message(
            None, Sums(rank, query.rid, query.first, query.count, tag * query.count, crc * query.count), self.now
        )

    def found(self) -> dict[str, int]:
        return {kind.value: self.scrub.ledger.found[kind] for kind in Kind if self.scrub.ledger.found[kind]}
