"""Authentic messages (the HMAC is right) with hostile content."""

from __future__ import annotations

import random
from collections.abc import Sequence

from dsreg.constants import SECTOR_SIZE
from dsreg.core.codec import Decoder, Encoder, Keys, Side
from dsreg.core.messages import Ack, Command, CommandKind, Message, ReadProc, Receipt, Value, WriteProc
from dsreg.core.tags import pack_tag

KEYS = Keys(bytes(range(32)), bytes(range(64)))
ENCODER = Encoder(KEYS)
# Where limits are, or could be: one off on either side of each.
EDGES = sorted({edge + off for edge in (1, 1 << 32, 1 << 48, 1 << 49, 1 << 63, (1 << 64) - 2) for off in (-1, 0, 1)})


class Hostile:
    """Makes messages for a cluster of `ranks` with `sectors` sectors. `limits`: further edges of what a ts may be."""

    def __init__(self, rng: random.Random, ranks: Sequence[int], sectors: int, limits: Sequence[int] = ()) -> None:
        self.rids: list[int] = []  # of operations that were seen on the wire
        self.uuids: list[bytes] = []
        self._rng = rng
        self._ranks = ranks
        self._sectors = sectors
        self._edges = [*EDGES, *(limit + off for limit in limits for off in (-1, 0, 1))]

    def overheard(self, message: object) -> None:
        """Something that was really sent: its ids are what replays and forgeries are made of."""
        if isinstance(message, ReadProc | WriteProc | Value | Ack):
            self.rids = [*self.rids[-31:], message.rid]
            if message.uuid:
                self.uuids = [*self.uuids[-31:], message.uuid]

    def message(self) -> Message:
        """One message, most of them with a field that no honest node would send."""
        rng = self._rng
        rank = rng.choice((*self._ranks, *self._ranks, 0, 254))
        rid = rng.choice((*self.rids, *self.rids, 0, 1, (1 << 64) - 1, rng.getrandbits(64)))
        uuid = rng.choice((b"", *self.uuids, bytes(16), rng.randbytes(16)))
        first, count = self._run(bool(uuid))
        kind = rng.randrange(7)
        if kind == 0:
            return ReadProc(rank or 1, rid, first, count, bool(uuid) or rng.random() < 0.5, uuid)
        if kind == 1:
            return Ack(rank or 1, rid, first, count, uuid)
        if kind == 2:
            return Receipt(rank or 1, rng.choice((3, 4, 5, 6)), uuid or bytes(16))
        tags = self._tags(count)
        data = rng.randbytes(16) * (count * SECTOR_SIZE // 16)
        if kind == 3:
            return Value(rank or 1, rid, first, count, tags, data if uuid or rng.random() < 0.7 else None, uuid)
        if kind in (4, 5):
            return WriteProc(rank or 1, rid, first, count, tags, data, uuid)
        return Command(CommandKind.STORE, rid, first, count, tags, data, True)

    def _run(self, single: bool) -> tuple[int, int]:
        rng = self._rng
        first = rng.choice((rng.randrange(self._sectors), self._sectors - 1, self._sectors, (1 << 64) - 1))
        count = 1 if single else rng.choice((1, 1, 1, 2, rng.randint(1, 8), 256))
        return first, count

    def _tags(self, count: int) -> bytes:
        rng = self._rng
        if rng.random() < 0.7:
            return self._tag() * count
        return b"".join(self._tag() for _ in range(count))

    def _tag(self) -> bytes:
        rng = self._rng
        ts = rng.choice((0, rng.randrange(1, 50), rng.choice(self._edges)))
        return pack_tag(ts, rng.choice((0, *self._ranks, *self._ranks, 255)))


def through_the_wire(message: Message, ranks: Sequence[int], sectors: int) -> list[Message]:
    """What a node's decoder makes of it: what it drops needs no further defence."""
    decoder = Decoder(KEYS, sectors=sectors, ranks=frozenset(ranks), side=Side.NODE, extended=True)
    return decoder.feed(b"".join(ENCODER.encode(message)))
