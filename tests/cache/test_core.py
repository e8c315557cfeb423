"""The decisions of the cache, as plays: what comes, and what is then expected."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import dsreg.cache
from dsreg.cache.core import Flush, Limits, Run, WriteBuffer
from dsreg.cache.extents import Extent, join
from dsreg.cache.limits import RETRY_FIRST_S, RETRY_MAX_S
from dsreg.constants import SECTOR_SIZE
from dsreg.errors import ClientClosed, OperationTimeout, Outcome
from tests.test_layers import NOT_IN, imports

TIMEOUT = OperationTimeout("no majority", Outcome.MAY_HAVE_HAPPENED)
MANY = 1 << 30


def bounds(buffered: int = MANY, low_water: int = MANY, runs: int = 64, run_sectors: int = 2048) -> Limits:
    """Sizes in sectors."""
    return Limits(buffered * SECTOR_SIZE, low_water * SECTOR_SIZE, 1.0, runs, run_sectors * SECTOR_SIZE)


class Play:
    """A buffer whose sectors have one letter each."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.buffer = WriteBuffer(limits or bounds())
        self.now = 0.0

    def put(self, first: int, letters: str) -> None:
        data = b"".join(letter.encode() * SECTOR_SIZE for letter in letters)
        assert self.buffer.reserve(len(data))
        self.buffer.put(Extent.of(first, data, len(data)), self.now)

    def seen(self, first: int, stop: int) -> str:
        """What a read finds in the buffer, a dot for what it does not have."""
        letters = ["."] * (stop - first)
        for extent in self.buffer.buffered(first, stop):
            assert first <= extent.first and extent.stop <= stop
            for sector in range(extent.first, extent.stop):
                letters[sector - first] = letter_of(join([extent])[(sector - extent.first) * SECTOR_SIZE :])
        return "".join(letters)

    def next(self) -> tuple[Run, int, str]:
        ready = self.buffer.next(self.now)
        assert ready is not None
        run, data = ready
        assert len(data) == run.size
        return run, run.first, "".join(letter_of(data[at:]) for at in range(0, len(data), SECTOR_SIZE))

    def out(self) -> list[tuple[int, str]]:
        """All runs that are ready, which land at once."""
        runs = []
        while self.buffer.is_ready(self.now):
            run, first, letters = self.next()
            runs.append((first, letters))
            self.buffer.landed(run, self.now)
        return runs

    def is_idle(self) -> bool:
        return not self.buffer.is_ready(self.now) and self.buffer.next(self.now) is None


def letter_of(data: bytes) -> str:
    assert len(set(data[:SECTOR_SIZE])) == 1
    return chr(data[0])


# --- what goes out ------------------------------------------------------------------------------------
def test_what_is_contiguous_goes_out_together() -> None:
    play = Play()
    for first, letters in ((5, "b"), (4, "a"), (9, "x"), (6, "cd"), (7, "e")):
        play.put(first, letters)
    play.buffer.flush()
    assert play.out() == [(4, "abce"), (9, "x")]
    assert play.buffer.is_clean and play.buffer.used == 0


def test_runs_do_not_cross_chunks() -> None:
    play = Play()
    play.put(254, "ab")
    play.put(256, "cd")
    play.buffer.flush()
    assert play.out() == [(254, "ab"), (256, "cd")]


def test_a_full_chunk_goes_out_at_once() -> None:
    play = Play()
    play.put(256, "a" * 255)
    assert play.is_idle()
    play.put(511, "b")
    assert play.out() == [(256, "a" * 255 + "b")]


def test_a_chunk_that_is_full_again_waits_for_its_first_departure() -> None:
    play = Play()
    play.put(0, "a" * 256)
    run, *_ = play.next()
    play.put(0, "b" * 256)
    assert play.is_idle()
    play.buffer.landed(run, play.now)
    assert play.out() == [(0, "b" * 256)]


def test_age() -> None:
    play = Play()
    play.put(0, "a")
    play.now = 0.5
    play.put(300, "b")
    play.put(1, "c")
    play.now = 0.99
    assert play.is_idle()
    play.now = 1.0
    assert play.out() == [(0, "ac")]
    play.now = 1.5
    assert play.out() == [(300, "b")]


def test_age_counts_from_the_first_value_that_is_still_here() -> None:
    play = Play()
    play.put(0, "a")
    play.now = 0.9
    play.put(0, "b")
    play.now = 1.0
    run, _, letters = play.next()
    assert letters == "b"
    play.put(0, "c")
    play.now = 1.9
    play.buffer.landed(run, play.now)
    assert play.is_idle()
    play.now = 2.0
    assert play.out() == [(0, "c")]


def test_above_low_water_the_oldest_goes_first() -> None:
    play = Play(bounds(low_water=3))
    for first, letter in ((600, "a"), (0, "b"), (300, "c")):
        play.put(first, letter)
        play.now += 0.1
    assert play.is_idle()
    play.put(1, "d")
    assert play.out() == [(600, "a")]
    play.put(2, "e")
    assert play.out() == [(0, "bde")]


def test_room() -> None:
    play = Play(bounds(buffered=4, low_water=4))
    play.put(0, "aaa")
    assert not play.buffer.reserve(2 * SECTOR_SIZE)
    run, _, letters = play.next()
    assert letters == "aaa", "somebody waits for room"
    assert not play.buffer.reserve(2 * SECTOR_SIZE)
    play.buffer.landed(run, play.now)
    assert play.buffer.reserve(9 * SECTOR_SIZE), "an empty buffer takes what would never fit"
    assert not play.buffer.reserve(SECTOR_SIZE)
    play.buffer.release(9 * SECTOR_SIZE)
    assert play.buffer.used == 0 and play.buffer.is_clean


def test_what_is_written_over_makes_room() -> None:
    play = Play(bounds(buffered=4))
    play.put(0, "ab")
    play.put(1, "c")
    assert play.buffer.used == 2 * SECTOR_SIZE
    assert play.seen(0, 3) == "ac."


def test_runs_and_bytes_under_way_are_bounded() -> None:
    play = Play(bounds(runs=3, run_sectors=5))
    for sector in range(0, 20, 2):
        play.put(sector, "a")
    play.buffer.flush()
    flying = [play.next()[0] for _ in range(3)]
    assert play.is_idle()
    play.buffer.landed(flying.pop(), play.now)
    flying.append(play.next()[0])
    assert play.is_idle()
    other = Play(bounds(runs=3, run_sectors=5))
    for sector in (0, 10, 20):
        other.put(sector, "aaa")
    other.put(30, "a" * 9)
    other.buffer.flush()
    run = other.next()[0]
    assert other.is_idle()
    for _ in range(3):
        other.buffer.landed(run, other.now)
        run = other.next()[0]
    assert run.size == 9 * SECTOR_SIZE, "alone it may be larger"


# --- the order of values --------------------------------------------------------------------------------
def test_a_sector_is_never_under_way_twice() -> None:
    play = Play()
    play.put(7, "a")
    play.buffer.flush()
    run, _, letters = play.next()
    play.put(7, "b")
    play.buffer.flush()
    play.now = 100.0
    assert letters == "a" and play.is_idle() and play.seen(7, 8) == "b"
    play.buffer.landed(run, play.now)
    assert play.out() == [(7, "b")]


def test_reads_see_the_newest() -> None:
    play = Play()
    play.put(0, "aaaa")
    play.buffer.flush()
    run, *_ = play.next()
    play.put(2, "bb")
    play.put(5, "c")
    assert play.seen(0, 8) == "aabb.c.."
    assert play.seen(1, 3) == "ab"
    play.buffer.landed(run, play.now)
    assert play.seen(0, 8) == "..bb.c.."


# --- flush ------------------------------------------------------------------------------------------------
def test_a_flush_of_nothing_is_over() -> None:
    assert Play().buffer.flush().is_over


def test_a_flush_waits_for_what_was_dirty_and_for_nothing_later() -> None:
    play = Play()
    play.put(0, "a")
    play.put(300, "b")
    flush = play.buffer.flush()
    play.put(1, "c")
    play.put(900, "d")
    first, *_ = play.next()
    second, *_ = play.next()
    assert play.is_idle()
    assert play.buffer.landed(second, play.now) == [] and not flush.is_over
    assert play.buffer.landed(first, play.now) == [flush]
    assert flush.is_over and flush.error is None and play.seen(1, 2) == "c"


def test_a_flush_waits_for_what_is_under_way_and_for_what_came_on_top_of_it() -> None:
    play = Play()
    play.put(0, "a")
    early = play.buffer.flush()
    run, *_ = play.next()
    play.put(0, "b")
    late = play.buffer.flush()
    assert play.buffer.landed(run, play.now) == [early]
    run, _, letters = play.next()
    assert letters == "b" and not late.is_over
    assert play.buffer.landed(run, play.now) == [late]


def test_a_flush_is_not_put_off_by_those_who_go_on_writing() -> None:
    play = Play()
    play.put(0, "a")
    flush = play.buffer.flush()
    over: list[Flush] = []
    for _ in range(2):
        if play.buffer.is_ready(play.now):
            run, *_ = play.next()
            play.put(0, "b")
            over += play.buffer.landed(run, play.now)
    assert over == [flush]


# --- errors -----------------------------------------------------------------------------------------------
def test_what_failed_is_dirty_again_under_what_came_later() -> None:
    play = Play()
    play.put(0, "aaa")
    flush = play.buffer.flush()
    run, *_ = play.next()
    play.put(1, "b")
    assert play.buffer.used == 4 * SECTOR_SIZE
    assert play.buffer.failed(run, TIMEOUT, play.now) == [flush]
    assert flush.error is TIMEOUT and play.buffer.used == 3 * SECTOR_SIZE
    assert play.seen(0, 3) == "aba"
    again = play.buffer.flush()
    run, first, letters = play.next()
    assert (first, letters) == (0, "aba")
    assert play.buffer.landed(run, play.now) == [again] and again.error is None


def test_a_flush_after_a_failed_one_fails_as_long_as_its_data_does() -> None:
    play = Play()
    play.put(0, "a")
    for _ in range(3):
        flush = play.buffer.flush()
        run, *_ = play.next()
        assert play.buffer.failed(run, TIMEOUT, play.now) == [flush] and flush.error is TIMEOUT
    flush = play.buffer.flush()
    assert play.out() == [(0, "a")] and flush.is_over and flush.error is None


def test_one_run_of_several_fails() -> None:
    play = Play()
    play.put(0, "a")
    play.put(2, "b")
    flush = play.buffer.flush()
    first, *_ = play.next()
    second, *_ = play.next()
    assert play.buffer.failed(first, TIMEOUT, play.now) == [flush]
    later = play.buffer.flush()
    assert play.is_idle(), "the other one is still under way"
    assert play.buffer.landed(second, play.now) == []
    assert play.seen(0, 3) == "a.."
    assert play.out() == [(0, "a")] and later.is_over and later.error is None


def test_a_flush_during_a_failure_fails_with_it() -> None:
    play = Play()
    play.put(0, "a")
    play.buffer.flush()
    run, *_ = play.next()
    play.put(0, "b")
    late = play.buffer.flush()
    assert late in play.buffer.failed(run, TIMEOUT, play.now)
    assert late.error is TIMEOUT and play.seen(0, 1) == "b"
    assert play.is_idle(), "nobody waits any longer, and there is a pause"


def test_the_pause_after_failures_doubles_and_ends() -> None:
    play = Play()
    play.put(0, "a")
    play.now, pause_s = 1.0, RETRY_FIRST_S
    for _ in range(8):
        run, *_ = play.next()
        play.buffer.failed(run, TIMEOUT, play.now)
        play.now += pause_s - 0.01
        assert play.is_idle()
        play.now += 0.02
        pause_s = min(2 * pause_s, RETRY_MAX_S)
    assert play.out() == [(0, "a")]
    play.put(0, "b")
    play.now += 1.0
    assert play.out() == [(0, "b")]


def test_nothing_starts_by_itself_in_a_pause_however_full_it_is() -> None:
    play = Play(bounds(buffered=4, low_water=1))
    play.put(0, "aa")
    run, *_ = play.next()
    play.buffer.failed(run, TIMEOUT, play.now)
    assert not play.buffer.reserve(9 * SECTOR_SIZE)
    assert play.is_idle()
    play.buffer.flush()
    assert play.out() == [(0, "aa")]


def test_a_final_error_is_for_all() -> None:
    play = Play()
    closed = ClientClosed("closed", Outcome.DID_NOT_HAPPEN)
    play.put(0, "a")
    play.put(300, "b")
    first = play.buffer.flush()
    run, *_ = play.next()
    play.put(0, "c")
    second = play.buffer.flush()
    over = play.buffer.give_up(closed)
    assert sorted(map(id, over)) == sorted(map(id, (first, second)))
    assert play.buffer.failed(run, closed, play.now) == []
    assert {first.error, second.error, play.buffer.error} == {closed}
    assert play.is_idle() and play.seen(0, 1) == "c"


@pytest.mark.parametrize("name", ["core", "extents", "limits"])
def test_the_core_is_pure(name: str) -> None:
    path = Path(dsreg.cache.__file__).with_name(f"{name}.py")
    banned = NOT_IN["dsreg.register"] | {"dsreg.client", "dsreg.block_device"}
    assert not [
        module for module in imports(ast.parse(path.read_text()), "dsreg.cache")
        if any(module == one or module.startswith(one + ".") for one in banned)
    ]
