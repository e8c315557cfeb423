"""Authentic messages (the HMAC is right) with hostile content."""

from __future__ import annotations

import random
from collections.abc import Sequence

from dsreg.constants import MAX_MAP_CHUNKS, MAX_RUN_SECTORS, MAX_ZERO_CHUNKS, NO_OWNER, OWNER_SIZE, SECTOR_SIZE
from dsreg.protocol.codec import Bounds, Decoder, Encoder, Keys, Side
from dsreg.protocol.extents import map_command
from dsreg.protocol.messages import Ack, Command, CommandKind, Fenced, Message, ReadProc, Receipt, Value, WriteProc
from dsreg.protocol.tags import ATTACHED, MAX_EPOCH, pack_tag, restamped, ts_of
from dsreg.protocol.zeros import zero_command

KEYS = Keys(bytes(range(32)), bytes(range(64)))
ENCODER = Encoder(KEYS)
# Where limits are, or could be: one off on either side of each.
EDGES = sorted({edge + off for edge in (1, 1 << 32, 1 << 48, 1 << 49, 1 << 63, (1 << 64) - 2) for off in (-1, 0, 1)})
EPOCH_EDGES = sorted({edge + off for edge in (1, 1 << 16, MAX_EPOCH - 1) for off in (-1, 0, 1)})


class Hostile:
    """Makes messages for a cluster of `ranks` with `sectors` sectors. `limits`: further edges of what a counter may be;
    `epoch_limits`: and an epoch."""

    def __init__(
        self,
        rng: random.Random,
        ranks: Sequence[int],
        sectors: int,
        limits: Sequence[int] = (),
        epoch_limits: Sequence[int] = (),
    ) -> None:
        self.rids: list[int] = []  # of operations that were seen on the wire
        self.uuids: list[bytes] = []
        self.epochs: list[int] = [0, 0, 1, 2]  # likewise
        self._rng = rng
        self._ranks = ranks
        self._sectors = sectors
        self._edges = [*EDGES, *(limit + off for limit in limits for off in (-1, 0, 1))]
        self._epoch_edges = [*EPOCH_EDGES, *(limit + off for limit in epoch_limits for off in (-1, 0, 1))]

    def overheard(self, message: object) -> None:
        """Something that was really sent: its ids are what replays and forgeries are made of."""
        if isinstance(message, ReadProc | WriteProc | Value | Ack | Fenced):
            self.rids = [*self.rids[-31:], message.rid]
            if message.uuid:
                self.uuids = [*self.uuids[-31:], message.uuid]
        if isinstance(message, ReadProc | Value | Fenced):
            self.epochs = [*self.epochs[-31:], message.epoch]

    def message(self) -> Message:
        """One message, most of them with a field that no honest node or client would send."""
        rng = self._rng
        if rng.random() < 0.3:
            return self.command()
        rank = rng.choice((*self._ranks, *self._ranks, 254))
        rid = self._rid()
        uuid = rng.choice((b"", *self.uuids, bytes(16), rng.randbytes(16)))
        first, count = self._run(bool(uuid))
        epoch = 0 if uuid else self.epoch()
        match rng.randrange(7):
            case 0:
                return ReadProc(rank, rid, first, count, bool(uuid) or rng.random() < 0.5, uuid, epoch)
            case 1:
                return Ack(rank, rid, first, count, uuid)
            case 2:
                return Receipt(rank, rng.choice((3, 4, 5, 6)), uuid or bytes(16))
            case 3:
                return Fenced(rank, rid, first, count, self.epoch())
            case 4:
                tags = self._contract_tag() if uuid else self._tags(count, epoch)
                data = self._data(count) if uuid or rng.random() < 0.7 else None
                return Value(rank, rid, first, count, tags, data, uuid, epoch)
            case _:
                tags = self._contract_tag() if uuid else restamped(self._tags(count, epoch), epoch)
                return WriteProc(rank, rid, first, count, tags, self._data(count), uuid)

    def command(self) -> Command:
        """One of the extension."""
        rng = self._rng
        kind = rng.choice([kind for kind in CommandKind if kind is not CommandKind.WRITE])
        first, count = self._run(False)
        epoch = self.epoch()
        match kind:
            case CommandKind.ATTACH:
                owner = rng.choice((NO_OWNER, rng.randbytes(OWNER_SIZE), b"\xff" * OWNER_SIZE))
                return Command.attach(self._rid(), epoch, owner)
            case CommandKind.STORE:
                tags = self._tags(count, self.epoch())
                return Command(kind, self._rid(), first, count, tags, self._data(count), True, epoch)
            case CommandKind.PUT:
                tags = restamped(self._tag(epoch), rng.choice((epoch, epoch, self.epoch()))) * count
                return Command(kind, self._rid(), first, count, tags, self._data(count), True, epoch)
            case CommandKind.ZERO:
                chunk, chunks = rng.choice((0, 1, (1 << 56) - 1)), rng.choice((2, 3, MAX_ZERO_CHUNKS))
                tag = restamped(self._tag(epoch), rng.choice((epoch, epoch, self.epoch())))
                return zero_command(self._rid(), chunk * MAX_RUN_SECTORS, chunks * MAX_RUN_SECTORS, tag, epoch)
            case CommandKind.MAP:
                chunk, chunks = rng.choice((0, 1, (1 << 56) - 1)), rng.choice((1, 3, MAX_MAP_CHUNKS))
                return map_command(self._rid(), chunk * MAX_RUN_SECTORS, chunks * MAX_RUN_SECTORS, epoch)
        values = kind is CommandKind.GET and rng.random() < 0.5
        return Command(kind, self._rid(), first, count, b"", b"", True, epoch, values)

    def epoch(self) -> int:
        """Mostly one that was heard of, or one more."""
        rng = self._rng
        if rng.random() < 0.8:
            return min(rng.choice(self.epochs) + rng.choice((0, 0, 1)), MAX_EPOCH)
        return min(rng.choice(self._epoch_edges), MAX_EPOCH)

    def _rid(self) -> int:
        rng = self._rng
        return rng.choice((*self.rids, *self.rids, 0, 1, (1 << 64) - 1, rng.getrandbits(64)))

    def _run(self, single: bool) -> tuple[int, int]:
        rng = self._rng
        first = rng.choice((rng.randrange(self._sectors), self._sectors - 1, self._sectors, (1 << 64) - 1))
        count = 1 if single else rng.choice((1, 1, 1, 2, rng.randint(1, 8), 256))
        return first, count

    def _data(self, count: int) -> bytes:
        return self._rng.randbytes(16) * (count * SECTOR_SIZE // 16)

    def _tags(self, count: int, epoch: int) -> bytes:
        if self._rng.random() < 0.7:
            return self._tag(epoch) * count
        return b"".join(self._tag(epoch) for _ in range(count))

    def _tag(self, epoch: int) -> bytes:
        """Mostly of a write in `epoch`, or in an older one; stored under `epoch`, or under another."""
        rng = self._rng
        counter = min(self._counter(), (1 << 56) - 1)
        ts = ts_of(rng.choice((epoch, epoch, 0, self.epoch())), counter)
        return pack_tag(ts, self._wr(), rng.choice((0, 0, 1, 65535)), rng.choice((epoch, epoch, epoch, self.epoch())))

    def _contract_tag(self) -> bytes:
        return pack_tag(min(self._counter(), (1 << 64) - 1), self._wr())

    def _counter(self) -> int:
        return self._rng.choice((0, self._rng.randrange(1, 50), self._rng.choice(self._edges)))

    def _wr(self) -> int:
        return self._rng.choice((0, *self._ranks, *self._ranks, ATTACHED))


def through_the_wire(message: Message, ranks: Sequence[int], sectors: int) -> list[Message]:
    """What a node's decoder makes of it: what it drops needs no further defence."""
    decoder = Decoder(KEYS, bounds=Bounds(sectors, frozenset(ranks)), side=Side.NODE, extended=True)
    return decoder.feed(b"".join(ENCODER.encode(message)))
