"""What commands do to a disk in memory, and what they are answered with: no sockets."""

from __future__ import annotations

import errno
import random
import struct
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsreg.block_device import BlockDevice
from dsreg.cache import WritebackCache
from dsreg.constants import SECTOR_SIZE
from dsreg.errors import DsregError, NodesFull, OperationTimeout, Outcome
from dsreg.store import SETTLED, Buffer, Done, Submitted
from dsreg.testing.memory_store import MemoryStore
from dsreg.volume import Volume
from nbd_frontend.codec import MAX_PAYLOAD_BYTES, Request
from nbd_frontend.commands import MAX_IN_FLIGHT, MAX_IN_FLIGHT_BYTES, Commands
from nbd_frontend.negotiation import Terms
from nbd_frontend.numbers import Chunk, CommandFlag, CommandType, Error
from tests.nbd.client import Answer, answers

SECTORS = 64
SIZE = SECTORS * SECTOR_SIZE
MIB = 1 << 20
PLAIN = Terms(structured=False, has_allocation=False)
STRUCTURED = Terms(structured=True, has_allocation=True)
READ, WRITE, FLUSH, TRIM, CACHE, ZEROES, STATUS = (
    CommandType.READ, CommandType.WRITE, CommandType.FLUSH, CommandType.TRIM, CommandType.CACHE,
    CommandType.WRITE_ZEROES, CommandType.BLOCK_STATUS)


class FailingStore(MemoryStore):
    """`error`: how every run ends, if it is set."""

    error: DsregError | None = None

    def submit(self, first: int, count: int, data: bytes | None, done: Done) -> Submitted:
        if self.error is None:
            return super().submit(first, count, data, done)
        done(b"", self.error)
        return SETTLED


class Scene:
    """A client on a disk in memory."""

    def __init__(self, terms: Terms = PLAIN, is_read_only: bool = False, sectors: int = SECTORS, holds: bool = False
                 ) -> None:
        self.store = FailingStore(sectors, holds)
        self.device = BlockDevice(self.store)
        self.volume = Volume(self.device)
        self.sent: list[bytes] = []
        self.ends = 0
        self.commands = Commands(self.volume, terms, is_read_only, self._send, self._end)
        self._reads: dict[int, int] = {}
        self._cookie = 0

    def _send(self, buffers: Sequence[Buffer]) -> None:
        self.sent += map(bytes, buffers)

    def _end(self) -> None:
        self.ends += 1

    def take(self, kind: int, offset: int = 0, length: int = 0, *, flags: int = 0, data: bytes | None = b"") -> int:
        self._cookie += 1
        self._reads[self._cookie] = length if kind == READ else 0
        size = len(data) if data else length
        self.commands.take(Request(flags, kind, self._cookie, offset, size, data))
        return self._cookie

    def answers(self) -> list[Answer]:
        sent, self.sent = b"".join(self.sent), []
        return answers(sent, self._reads)

    def call(self, kind: int, offset: int = 0, length: int = 0, *, flags: int = 0, data: bytes | None = b"") -> Answer:
        cookie = self.take(kind, offset, length, flags=flags, data=data)
        [answer] = self.answers()
        assert answer.cookie == cookie
        return answer


@pytest.fixture(params=[PLAIN, STRUCTURED], ids=["simple", "structured"])
def scene(request: pytest.FixtureRequest) -> Scene:
    return Scene(request.param)


def test_writes_are_read_and_zeros_are_zeros(scene: Scene) -> None:
    assert scene.call(WRITE, 5000, data=b"hello")[1:3] == (0, b"")
    assert scene.call(READ, 4999, 7)[1:3] == (0, b"\0hello\0")
    for kind, offset in ((TRIM, 5001), (ZEROES, 5003)):
        assert scene.call(kind, offset, 1)[1:3] == (0, b"")
    assert scene.call(READ, 5000, 5)[1:3] == (0, b"h\0l\0o")
    for kind in (FLUSH, CACHE):
        assert scene.call(kind)[1:3] == (0, b"")
    assert (scene.commands.in_flight, scene.commands.in_flight_bytes) == (0, 0)


def test_random_commands_do_what_they_do_to_bytes(scene: Scene, rng: random.Random) -> None:
    model = bytearray(SIZE)
    for _ in range(300):
        offset = rng.randrange(SIZE)
        length = rng.randrange(0, min(SIZE - offset, 3 * SECTOR_SIZE) + 1)
        kind = rng.choice((READ, WRITE, TRIM, ZEROES))
        flags = rng.choice((0, CommandFlag.FUA))
        if kind == READ:
            answer = scene.call(READ, offset, length, flags=flags)
            assert answer[1:3] == (0, bytes(model[offset : offset + length]))
            continue
        data = rng.randbytes(length) if kind == WRITE else b""
        model[offset : offset + length] = data or bytes(length)
        assert scene.call(kind, offset, length, flags=flags, data=data)[1:3] == (0, b"")


def test_reads_are_one_chunk_where_replies_are_structured() -> None:
    scene = Scene(STRUCTURED)
    assert scene.call(READ, 0, SIZE).chunk == Chunk.OFFSET_DATA
    assert scene.call(READ, 0, 70000, flags=CommandFlag.DF).chunk == Chunk.OFFSET_DATA
    assert scene.call(READ, 0, 0).chunk == Chunk.NONE


@pytest.mark.parametrize("flags", [0, CommandFlag.REQ_ONE])
def test_all_is_allocated(flags: int) -> None:
    answer = Scene(STRUCTURED).call(STATUS, 512, 70000, flags=flags)
    assert (answer.chunk, answer.data) == (Chunk.BLOCK_STATUS, struct.pack(">III", 1, 70000, 0))


@pytest.mark.parametrize(
    ("offset", "length", "flags", "expected"),
    [
        (0, 5 * MIB, 0, [(MIB, 3), (MIB, 0), (2 * MIB, 3)]),
        (0, 5 * MIB, CommandFlag.REQ_ONE, [(MIB, 3)]),
        (MIB - 512, 1024, 0, [(512, 3), (512, 0)]),
        (2 * MIB + 512, 512, 0, [(512, 3)]),
    ],
)
def test_holes_are_told(offset: int, length: int, flags: int, expected: list[tuple[int, int]]) -> None:
    """Whole chunks of 1 MiB. Of what is left at the end of the disk nothing is said: the client asks again."""
    scene = Scene(STRUCTURED, sectors=4 * 256 + 128)
    assert scene.call(WRITE, MIB + 4096, data=b"x").error == 0
    answer = scene.call(STATUS, offset, min(length, 4 * MIB + MIB // 2 - offset), flags=flags)
    assert answer.chunk == Chunk.BLOCK_STATUS
    assert answer.data == struct.pack(">I", 1) + b"".join(struct.pack(">II", *extent) for extent in expected)
    assert scene.commands.in_flight == 0


@pytest.mark.parametrize(
    ("offset", "length", "error"),
    [(0, 2 * MIB, 0), (MIB, 3 * MIB, 0), (0, MIB, Error.ENOTSUP), (512, 2 * MIB, Error.ENOTSUP),
     (0, 2 * MIB + 512, Error.ENOTSUP)],
)
def test_zeros_are_fast_where_they_are_whole_chunks(offset: int, length: int, error: int) -> None:
    scene = Scene(STRUCTURED, sectors=4 * 256)
    assert scene.call(WRITE, 0, data=b"x" * 4 * MIB).error == 0
    assert scene.call(ZEROES, offset, length, flags=CommandFlag.FAST_ZERO).error == error
    read = scene.call(READ, offset, length).data
    assert read == (b"x" if error else b"\0") * length


# --- what is refused --------------------------------------------------------------------------------
@pytest.mark.parametrize(("kind", "offset", "length", "flags", "error"), [
    (READ, SIZE - 1, 2, 0, Error.EINVAL),
    (READ, (1 << 64) - 1, 1, 0, Error.EINVAL),
    (TRIM, SIZE, 1, 0, Error.ENOSPC),
    (ZEROES, 1, SIZE, 0, Error.ENOSPC),
    (ZEROES, 0, 4096, CommandFlag.FAST_ZERO, Error.ENOTSUP),
    (CACHE, SIZE, 1, 0, Error.EINVAL),
    (STATUS, SIZE - 1, 2, 0, Error.EINVAL),
    (STATUS, 0, 0, 0, Error.EINVAL),
    (FLUSH, 1, 0, 0, Error.EINVAL),
    (FLUSH, 0, 1, 0, Error.EINVAL),
    (8, 0, 0, 0, Error.EINVAL),
    (0xFFFF, 0, 0, 0, Error.EINVAL),
    (READ, 0, 1, CommandFlag.NO_HOLE, Error.EINVAL),
    (READ, 0, 1, CommandFlag.REQ_ONE, Error.EINVAL),
    (TRIM, 0, 1, CommandFlag.FAST_ZERO, Error.EINVAL),
    (STATUS, 0, 1, CommandFlag.DF, Error.EINVAL),
    (READ, 0, 1, 1 << 5, Error.EINVAL),
    (ZEROES, 0, 1, 1 << 15, Error.EINVAL),
])
def test_refused(scene: Scene, kind: int, offset: int, length: int, flags: int, error: Error) -> None:
    assert scene.call(kind, offset, length, flags=flags).error == error
    assert scene.commands.in_flight == 0 and not scene.volume.stall_watch.started


def test_writes_that_are_refused(scene: Scene) -> None:
    assert scene.call(WRITE, SIZE - 1, data=b"ab").error == Error.ENOSPC
    assert scene.call(WRITE, 0, data=b"ab", flags=CommandFlag.DF).error == Error.EINVAL
    assert scene.call(WRITE, 0, MAX_PAYLOAD_BYTES + 1, data=None).error == Error.EINVAL
    assert scene.call(READ, 0, SIZE).data == bytes(SIZE)


def test_df_and_status_are_for_those_who_have_agreed_on_them() -> None:
    assert Scene(PLAIN).call(READ, 0, 1, flags=CommandFlag.DF).error == Error.EINVAL
    assert Scene(PLAIN).call(STATUS, 0, 1).error == Error.EINVAL
    assert Scene(STRUCTURED._replace(has_allocation=False)).call(STATUS, 0, 1).error == Error.EINVAL
    large = Scene(STRUCTURED, sectors=2 * MAX_PAYLOAD_BYTES // SECTOR_SIZE)
    assert large.call(READ, 0, MAX_PAYLOAD_BYTES + 1).error == Error.EINVAL
    assert large.call(READ, 0, MAX_PAYLOAD_BYTES + 1, flags=CommandFlag.DF).error == Error.EOVERFLOW
    assert large.call(READ, 0, MAX_PAYLOAD_BYTES, flags=CommandFlag.DF).error == 0


def test_a_read_only_export_is_not_changed() -> None:
    scene = Scene(is_read_only=True)
    assert scene.call(WRITE, 0, data=b"ab").error == Error.EPERM
    for kind in (TRIM, ZEROES):
        assert scene.call(kind, 0, 1).error == Error.EPERM
    assert [scene.call(kind, 0, 0).error for kind in (READ, FLUSH, CACHE)] == [0, 0, 0]


def test_a_server_that_ends_says_so(scene: Scene) -> None:
    scene.commands.is_stopping = True
    for kind in (READ, WRITE, FLUSH, TRIM, ZEROES):
        assert scene.call(kind, 0, 0).error == Error.ESHUTDOWN


@pytest.mark.parametrize(("failure", "error"), [
    (OperationTimeout("no majority", Outcome.MAY_HAVE_HAPPENED), Error.EIO),
    (NodesFull("no room", Outcome.DID_NOT_HAPPEN), Error.ENOSPC),
])
def test_errors_of_the_disk(
    scene: Scene, failure: DsregError, error: Error, allow_logs: Callable[[str], None]
) -> None:
    allow_logs(f"{type(failure).__name__}: .* -> {errno.errorcode[int(error)]}")
    scene.store.error = failure
    assert scene.call(READ, 0, 4096).error == error
    assert scene.call(WRITE, 0, data=bytes(4096)).error == error
    for kind in (TRIM, ZEROES):
        assert scene.call(kind, 0, 4096).error == error
    assert (scene.commands.in_flight, scene.commands.in_flight_bytes) == (0, 0)


# --- FUA --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", [WRITE, TRIM, ZEROES])
async def test_fua_is_durable_whatever_cache_there_is(kind: CommandType) -> None:
    """With a cache in front of the store, what has FUA is in the store when it is answered; what has not, is not."""
    store = MemoryStore(SECTORS)
    store.submit(0, 2, b"x" * (2 * SECTOR_SIZE), lambda data, error: None)
    async with WritebackCache(store) as cache:
        sent: list[bytes] = []
        commands = Commands(Volume(BlockDevice(cache)), PLAIN, False, lambda buffers: sent.extend(map(bytes, buffers)),
                            lambda: None)
        for sector, flags in ((0, 0), (1, CommandFlag.FUA)):
            data = b"\0" * SECTOR_SIZE if kind == WRITE else b""
            commands.take(Request(flags, kind, sector, sector * SECTOR_SIZE, SECTOR_SIZE, data))
            assert answers(b"".join(sent), {})[-1] == Answer(sector, 0, b"")
            if not sector:
                assert store.content[0] == b"x" * SECTOR_SIZE
        assert store.content[1] == bytes(SECTOR_SIZE)


async def test_a_flush_makes_durable_what_was_answered() -> None:
    store = MemoryStore(SECTORS)
    async with WritebackCache(store) as cache:
        sent: list[bytes] = []
        commands = Commands(Volume(BlockDevice(cache)), PLAIN, False, lambda buffers: sent.extend(map(bytes, buffers)),
                            lambda: None)
        commands.take(Request(0, WRITE, 1, 0, SECTOR_SIZE, b"x" * SECTOR_SIZE))
        assert not any(store.content.values())
        commands.take(Request(0, FLUSH, 2, 0, 0, b""))
        assert [answer.cookie for answer in answers(b"".join(sent), {})] == [1, 2]
        assert store.content[0] == b"x" * SECTOR_SIZE


# --- what is in flight --------------------------------------------------------------------------------
def test_what_is_in_flight_is_counted_until_it_is_answered() -> None:
    scene = Scene(holds=True)
    scene.take(READ, 0, 8192)
    scene.take(WRITE, 0, data=bytes(4096))
    scene.take(TRIM, 0, 4096)
    assert (scene.commands.in_flight, scene.commands.in_flight_bytes, scene.ends) == (3, 12288, 0)
    scene.volume.end_turn()
    assert len(scene.answers()) == scene.ends == 3
    assert (scene.commands.in_flight, scene.commands.in_flight_bytes) == (0, 0)


def test_there_is_room_up_to_a_number_and_a_size() -> None:
    scene = Scene(holds=True)
    small = Request(0, FLUSH, 1, 0, 0, b"")
    for count in range(MAX_IN_FLIGHT):
        assert scene.commands.has_room(small, 0), count
        scene.take(WRITE, 0, data=b"x")
    assert not scene.commands.has_room(small, 0)
    scene.volume.end_turn()
    largest = Request(0, READ, 1, 0, MAX_PAYLOAD_BYTES, b"")
    assert scene.commands.has_room(largest, 0)
    assert scene.commands.has_room(largest, MAX_IN_FLIGHT_BYTES - MAX_PAYLOAD_BYTES)
    assert not scene.commands.has_room(largest, MAX_IN_FLIGHT_BYTES - MAX_PAYLOAD_BYTES + 1)
    # One of a size that is refused in any case must not wait for room that never comes.
    assert scene.commands.has_room(largest._replace(length=(1 << 32) - 1), 0)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 2 * SIZE), st.integers(0, 2 * SIZE), st.integers(0, 63))),
       st.booleans())
def test_any_command_is_answered_once(requests: list[tuple[int, int, int, int]], structured: bool) -> None:
    scene = Scene(STRUCTURED if structured else PLAIN)
    for kind, offset, length, flags in requests:
        if kind == CommandType.DISC:
            continue
        data = bytes(length) if kind == WRITE else b""
        scene.take(kind, offset, length, flags=flags, data=data)
        assert len(scene.answers()) == 1
    assert (scene.commands.in_flight, scene.commands.in_flight_bytes) == (0, 0)
