"""Room under long runs of zeros that is given back later: docs/storage.md, "Room that is given back later"."""

from __future__ import annotations

import random

import pytest

from dsreg.constants import MAX_RUN_SECTORS
from dsreg.storage import StableStorage, Ticket, punching
from dsreg.storage.slots import CHUNK_SECTORS
from dsreg.testing.memory_files import MemoryFiles, drop_all, keep_all, random_chooser
from tests.storage.support import checkpoint_now, commit_all, contents, open_storage, store, stored, tag
from tests.storage.test_zeros import check, home_pages

SECTORS = 4 * CHUNK_SECTORS


def written() -> tuple[MemoryFiles, StableStorage]:
    """With 4 chunks of values."""
    files = MemoryFiles()
    storage = open_storage(files)
    for first in range(0, SECTORS, MAX_RUN_SECTORS):
        assert stored(storage, first, MAX_RUN_SECTORS, 1).ok
    checkpoint_now(storage)
    return files, storage


def one_commit(storage: StableStorage) -> None:
    commit = storage.next_commit()
    assert commit is not None
    commit.run()
    storage.finish_commit(commit)


def zeroed(storage: StableStorage, ts: int, chunks: int = 4) -> Ticket:
    """Acknowledged, and no room given back."""
    ticket = storage.zero(0, chunks * CHUNK_SECTORS, tag(ts))
    one_commit(storage)
    assert ticket.done and ticket.ok
    return ticket


def test_zeros_are_acknowledged_before_their_room_is_given_back() -> None:
    files, storage = written()
    zeroed(storage, 2)
    assert len(home_pages(files)) == SECTORS and not storage.has_work()
    check(storage, 0, [(2, True)] * MAX_RUN_SECTORS)
    assert storage.next_commit(punches=False) is None
    commit_all(storage)
    assert not home_pages(files) and storage.punching.is_over
    check(storage, 0, [(2, True)] * MAX_RUN_SECTORS)


@pytest.mark.parametrize("count", [1, 8, 64])
@pytest.mark.parametrize("chooser", [keep_all, drop_all])
def test_what_is_stored_meanwhile_is_not_punched(count: int, chooser: object) -> None:
    """1: in one commit with others, or alone, ordered and not, and written over once more."""
    files, storage = written()
    zeroed(storage, 2)
    store(storage, 10, count, 3)
    store(storage, 300, count, 3)
    one_commit(storage)
    store(storage, 700, count, 3)
    store(storage, 300, count, 4)
    commit_all(storage)
    for _ in range(2):
        assert contents(storage, 10, count) == contents(storage, 700, count) == [3] * count
        assert contents(storage, 300, count) == [4] * count
        assert home_pages(files) == {at + index for at in (10, 300, 700) for index in range(count)}
        files = files.crash(chooser)  # type: ignore[arg-type]
        storage = open_storage(files)


def test_a_store_between_two_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(punching, "PIECE_SECTORS", 100)
    files, storage = written()
    zeroed(storage, 2)
    one_commit(storage)
    assert home_pages(files) == set(range(100, SECTORS))
    store(storage, 90, 20, 3)
    one_commit(storage)  # what is to be stored comes first
    assert contents(storage, 90, 20) == [3] * 20
    one_commit(storage)
    assert home_pages(files) == {*range(90, 110), *range(210, SECTORS)}
    commit_all(storage)
    assert home_pages(files) == set(range(90, 110)) and contents(storage, 90, 20) == [3] * 20


@pytest.mark.parametrize("chooser", [keep_all, drop_all])
def test_a_crash_before_the_room_is_given_back(monkeypatch: pytest.MonkeyPatch, chooser: object) -> None:
    """2: the journal says what is to be punched until it has been, and so a start does it."""
    monkeypatch.setattr(punching, "PIECE_SECTORS", 100)
    files, storage = written()
    zeroed(storage, 2)
    one_commit(storage)
    assert not storage.checkpoint_due(idle=True) and storage.next_checkpoint() is None
    files = files.crash(chooser)  # type: ignore[arg-type]
    storage = open_storage(files)
    assert not home_pages(files)
    check(storage, 0, [(2, True)] * MAX_RUN_SECTORS)


def test_a_full_journal_is_free_again_once_the_room_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """3: stores go on through many segments, with zeros among them."""
    monkeypatch.setattr(punching, "PIECE_SECTORS", 100)
    files, storage = written()
    for ts in range(2, 60):
        zeros = storage.zero(0, SECTORS, tag(2 * ts))
        values = [store(storage, first, 8, 2 * ts + 1) for first in range(8, 808, 16)]
        values += [store(storage, SECTORS + 256 * each, 256, ts) for each in range(3)]
        commit_all(storage)
        assert zeros.ok and all(ticket.done and ticket.ok for ticket in values)
    assert storage.checkpoints > 3
    assert contents(storage, 8, 8) == [119] * 8
    assert len(home_pages(files)) == 50 * 8 + 3 * 256


@pytest.mark.parametrize("count", [1, 8, 64])
def test_a_store_that_finds_no_room_has_it_given_back(count: int) -> None:
    """4: a disk that is full of what was trimmed is not full."""
    files, storage = written()
    files.capacity = files.used()
    assert not stored(storage, 4096, count, 1).ok
    zeroed(storage, 2)
    tickets = [store(storage, 4096, count, 3), store(storage, 0, count, 3)]
    one_commit(storage)
    assert all(ticket.done and ticket.ok for ticket in tickets)
    assert storage.punching.is_over
    assert contents(storage, 4096, count) == contents(storage, 0, count) == [3] * count
    assert home_pages(files) == {at + index for at in (0, 4096) for index in range(count)}
    again = open_storage(files.crash(drop_all))
    assert contents(again, 4096, count) == contents(again, 0, count) == [3] * count


def test_with_too_much_to_punch_nothing_is_stored_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """5: memory has a bound."""
    monkeypatch.setattr(punching, "MAX_RANGES", 40)
    monkeypatch.setattr(punching, "PIECE_RANGES", 16)
    files, storage = written()
    for first in range(3, 400, 8):
        store(storage, first, 1, 5)
    commit_all(storage)
    zeroed(storage, 2)
    ticket = store(storage, 600, 1, 6)
    assert storage.next_commit(punches=False) is None
    one_commit(storage)
    assert not ticket.done
    one_commit(storage)
    assert ticket.done and ticket.ok and not storage.punching.is_over
    commit_all(storage)
    assert home_pages(files) == {600, *range(3, 400, 8)}
    assert contents(storage, 3, 1) == [5]


def test_any_commits_and_crashes_against_a_model(rng: random.Random, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commits one by one, so that what is punched later meets everything else."""
    monkeypatch.setattr(punching, "PIECE_SECTORS", 300)
    files, storage = written()
    model = [1] * SECTORS  # a ts; negative: zeros
    for ts in range(2, 150):
        if rng.random() < 0.3:
            chunk = rng.randrange(3)
            chunks = rng.randint(2, 4 - chunk)
            tickets = [storage.zero(chunk * CHUNK_SECTORS, chunks * CHUNK_SECTORS, tag(ts))]
            model[chunk * CHUNK_SECTORS:(chunk + chunks) * CHUNK_SECTORS] = [-ts] * (chunks * CHUNK_SECTORS)
        else:
            count = rng.choice((1, 3, 20, 100))
            first = rng.randrange(SECTORS - count)
            tickets = [store(storage, first, count, ts)]
            model[first:first + count] = [ts] * count
        while not all(ticket.done for ticket in tickets):
            if storage.checkpoint_due(idle=False):
                checkpoint_now(storage)
            else:
                one_commit(storage)
        if rng.random() < 0.1 and storage.checkpoint_due(idle=True):
            checkpoint_now(storage)
        if rng.random() < 0.1:
            files = files.crash(rng.choice((drop_all, keep_all, random_chooser(rng))))
            storage = open_storage(files)
        at = rng.randrange(SECTORS - 64)
        check(storage, at, [(abs(each), each < 0) for each in model[at:at + 64]])
    commit_all(storage)
    assert home_pages(files) == {sector for sector, ts in enumerate(model) if ts > 0}
