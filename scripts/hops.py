"""What the steps of an operation cost, one after the other in one process: `python -m scripts.hops`.

CPU microseconds, the median of several rounds, and the ratio to one HMAC-SHA256 of 4 KiB in the same run: the ratio
is what can be compared between machines, and between a busy and an idle one.
"""

from __future__ import annotations

import itertools
import os
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import click
import trio
from rich.console import Console
from rich.table import Table

from dsreg.constants import RECV_BYTES, SECTOR_SIZE
from dsreg.memory import keep_freed_memory
from dsreg.node.worker import Worker
from dsreg.protocol.codec import Bounds, Decoder, Encoder, Keys, Mac, Side
from dsreg.protocol.messages import Buffer, Command, CommandKind, Message, ReadProc, Response, WriteProc, owner_of
from dsreg.protocol.sealed import Opener, Sealer
from dsreg.protocol.tags import ATTACHED, pack_tag, ts_of
from dsreg.register.assembly import new_replica
from dsreg.register.effects import Again, Durable, Effect, Fence, Load, Persist, Reply, Reserve, Tell
from dsreg.register.now import Now
from dsreg.register.quorum import majority_of
from dsreg.storage import Identity, OsFiles, StableStorage
from dsreg.storage.checksum import crc32
from dsreg.testing.memory_storage import MemoryStorage

KEYS = Keys(b"c" * 32, b"s" * 64)
RANKS = (1, 2, 3)
VALUE = os.urandom(SECTOR_SIZE)
ROUNDS = 5


def cost_us(call: Callable[[], object], times: int) -> float:
    """CPU microseconds of one call: the median of ROUNDS rounds of `times` calls, after one that does not count."""
    rounds = []
    for _ in range(ROUNDS + 1):
        start = time.process_time()
        for _ in range(times):
            call()
        rounds.append((time.process_time() - start) / times * 1e6)
    return statistics.median(rounds[1:])


class Trio:
    """Three replicas and their codecs, wired in memory: no sockets, no disk, no waiting."""

    def __init__(self) -> None:
        self.storages = [MemoryStorage() for _ in RANKS]
        self.replicas = [
            new_replica(rank, majority_of(RANKS), storage, uuid_prefix=1, jitter=lambda: 1.0)
            for rank, storage in zip(RANKS, self.storages, strict=True)
        ]
        self.encoder = Encoder(KEYS)
        self.decoders = [node_decoder() for _ in RANKS]
        self.answer: Response | None = None
        self._wire: deque[tuple[int, int, bytes]] = deque()  # to, from, frame

    def run(self, command: Command, node: int = 0) -> Response:
        """Through one node, as an extension command."""
        frame = b"".join(self.encoder.encode(command))
        now = Now(0.0, time.time())
        for message in self.decoders[node].feed(frame):
            assert isinstance(message, Command)
            self._carry_out(node, self.replicas[node].command(self, message, now), now)
        while self._wire:
            to, sender, frame = self._wire.popleft()
            for message in self.decoders[to].feed(frame):
                self._carry_out(to, self.replicas[to].message(sender, message, now), now)  # type: ignore[arg-type]
        assert self.answer is not None
        return self.answer

    def _carry_out(self, index: int, effects: list[Effect], now: Now) -> None:
        todo = deque(effects)
        while todo:
            effect = todo.popleft()
            if isinstance(effect, Persist | Reserve | Fence):
                self.storages[index].queue(effect)
                self.storages[index].commit()
                todo.extend(effect.then)
            elif isinstance(effect, Again):
                todo.extend(self.replicas[index].again(effect, now))
            elif isinstance(effect, Durable):
                todo.extend(self.replicas[index].durable(effect.what, now))
            elif isinstance(effect, Load):
                loaded = self.storages[index].load(effect.question.first, effect.question.count)
                todo.extend(self.replicas[index].loaded(effect, *loaded, now))
            elif isinstance(effect, Tell):
                self._wire.append((effect.rank - 1, index, self._encode(effect.message)))
            elif isinstance(effect, Reply) and isinstance(effect.message, Response):
                self._encode(effect.message)
                self.answer = effect.message
            elif isinstance(effect, Reply) and isinstance(effect.connection, int):
                self._wire.append((effect.connection, index, self._encode(effect.message)))

    def _encode(self, message: Message) -> bytes:
        return b"".join(self.encoder.encode(message))


def node_decoder() -> Decoder:
    return Decoder(KEYS, bounds=Bounds(1 << 20, frozenset(RANKS)), side=Side.NODE, extended=True)


def measure_core() -> dict[str, float]:
    encoder, decoder, three = Encoder(KEYS), node_decoder(), Trio()
    mac = Mac(KEYS.system)
    tag = pack_tag(1, 1)
    question = ReadProc(1, 1, 5, 1, values=False)
    store = WriteProc(1, 1, 5, 1, tag, VALUE)
    asked, stored = b"".join(encoder.encode(question)), b"".join(encoder.encode(store))
    requests = itertools.count(1)

    def write() -> None:
        sector = next(requests) % 1000
        tags = max(three.run(Command.tag(1, sector, 1, alone=True), node).tags for node in (0, 1))
        three.run(Command(CommandKind.STORE, 2, sector, 1, tags, VALUE, True))

    def read() -> None:
        three.run(Command(CommandKind.READ, 1, next(requests) % 1000, 1, extended=True))

    for node in range(len(RANKS)):
        three.run(Command.attach(1, 1, owner_of(bytes(16), "hops")), node)

    def put() -> None:
        number = next(requests)
        mine = pack_tag(ts_of(1, 10_000_000 + number), ATTACHED, 0, 1)
        for node in range(len(RANKS)):
            three.run(Command(CommandKind.PUT, 1, number % 1000, 1, mine, VALUE, True, 1), node)

    def get() -> None:
        sector = next(requests) % 1000
        for node in (0, 1):
            three.run(Command(CommandKind.GET, 1, sector, 1, extended=True, epoch=1, values=node == 0), node)

    return {
        "HMAC-SHA256 of 4 KiB": cost_us(lambda: mac.sign(VALUE), 2000),
        "CRC-32 of 4 KiB": cost_us(lambda: crc32(VALUE), 2000),
        "encode READ_PROC_RUN": cost_us(lambda: encoder.encode(question), 2000),
        "decode READ_PROC_RUN": cost_us(lambda: decoder.feed(asked), 2000),
        "encode WRITE_PROC_RUN, 4 KiB": cost_us(lambda: encoder.encode(store), 1000),
        "decode WRITE_PROC_RUN, 4 KiB": cost_us(lambda: decoder.feed(stored), 1000),
        "4 KiB write: codec and replicas of all 3 nodes": cost_us(write, 300),
        "4 KiB read: codec and replicas of all 3 nodes": cost_us(read, 300),
        "4 KiB write, attached: codec and replicas of all 3 nodes": cost_us(put, 300),
        "4 KiB read, by GET: codec and replicas of 2 nodes": cost_us(get, 300),
    }


def measure_seals() -> dict[str, float]:
    """Both ends of a sealed connection, against signing and verifying the same frame."""
    mac, costs = Mac(KEYS.system), {}
    for name, size, times in (("60 bytes", 60, 5000), ("4 KiB", 4136, 2000), ("1 MiB", 4136 + (1 << 20), 50)):
        frame: list[Buffer] = [os.urandom(40), os.urandom(size - 40)]
        signature = mac.sign(*frame)
        sealer, opener = Sealer(KEYS.client), Opener(KEYS.client)

        def seal_and_open(frame: list[Buffer] = frame, sealer: Sealer = sealer, opener: Opener = opener) -> None:
            record = b"".join(sealer.seal(frame))
            # As it comes from a socket: see RECV_BYTES.
            opened = [part for at in range(0, len(record), RECV_BYTES)
                      for part in opener.feed(record[at : at + RECV_BYTES])]
            assert len(opened) == 1

        def sign_and_verify(frame: list[Buffer] = frame, signature: bytes = signature) -> None:
            mac.sign(*frame)
            assert mac.verify(signature, *frame)

        costs[f"sign and verify {name}"] = cost_us(sign_and_verify, times)
        costs[f"seal and open {name}"] = cost_us(seal_and_open, times)
    return costs


def measure_storage(directory: Path) -> dict[str, float]:
    files = OsFiles(directory)
    storage = StableStorage.open(files, Identity(bytes(16), 1, RANKS, 1 << 20))
    counter = itertools.count(1)

    def batch(size: int, count: int) -> Callable[[], None]:
        data = VALUE * count

        def commit() -> None:
            for _ in range(size):
                ts = next(counter)
                storage.persist(ts * count % 4096, count, pack_tag(ts, 1) * count, data)
            while (work := storage.next_commit()) is not None:
                work.run()
                storage.finish_commit(work)
            while (checkpoint := storage.next_checkpoint() if storage.checkpoint_due(idle=False) else None) is not None:
                checkpoint.run()
                storage.finish_checkpoint(checkpoint)

        return commit

    try:
        return {
            "persist and commit 4 KiB, alone": cost_us(batch(1, 1), 100),
            "persist and commit 4 KiB, one of 64": cost_us(batch(64, 1), 10) / 64,
            "persist and commit 1 MiB": cost_us(batch(1, 256), 20),
            "load 4 KiB from the page cache": cost_us(lambda: storage.load(100, 1, wait=False), 2000),
            "load 1 MiB from the page cache": cost_us(lambda: storage.load(0, 256, wait=False), 50),
        }
    finally:
        storage.close()
        files.close()


async def measure_threads() -> dict[str, float]:
    """Handing a call to a thread and getting its result."""
    worker = Worker("hops")
    costs = {}
    try:
        for name, call in (("worker thread", worker.run), ("trio.to_thread", trio.to_thread.run_sync)):
            rounds = []
            for _ in range(ROUNDS):
                start = time.process_time()
                for _ in range(500):
                    await call(int)
                rounds.append((time.process_time() - start) / 500 * 1e6)
            costs[f"a call in a {name}"] = statistics.median(rounds)
    finally:
        worker.close()
    return costs


@click.command(help=__doc__)
@click.option("--directory", type=click.Path(file_okay=False, exists=True, path_type=Path),
              help="Where the storage is measured.  [default: the directory for temporary files]")
def main(directory: Path | None) -> None:
    keep_freed_memory()  # as nodes and the frontend do
    costs = measure_core() | measure_seals()
    with tempfile.TemporaryDirectory(dir=directory) as scratch:
        costs.update(measure_storage(Path(scratch)))
    costs.update(trio.run(measure_threads))
    show(costs)


def show(costs: dict[str, float]) -> None:
    """A table of the costs, in CPU microseconds by the name of the step."""
    unit = costs["HMAC-SHA256 of 4 KiB"]
    table = Table("step", "CPU us", "HMACs of 4 KiB")
    for name, cost in costs.items():
        table.add_row(name, f"{cost:.1f}", f"{cost / unit:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
