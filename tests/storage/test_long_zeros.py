"""Zeros over many chunks by one command: one record, no slot, and whatever has a higher tag stays.

docs/storage.md, "Long runs of zeros".
"""

from __future__ import annotations

import random
import tracemalloc

import pytest

from dsreg.constants import SECTOR_SIZE, ZERO_TAG
from dsreg.errors import DamagedStorage
from dsreg.protocol.tags import ATTACHED, pack_tag, ts_of
from dsreg.register.digests import TagDigests
from dsreg.storage import Identity, Refusal, StableStorage, Ticket, index_file, journal, zeros_file
from dsreg.storage.layout import TAGS, ZEROS
from dsreg.storage.slots import CHUNK_SECTORS
from dsreg.testing.memory_files import Chooser, Kind, MemoryFiles, drop_all, keep_all, random_chooser
from tests.storage.support import checkpoint_now, commit_all, contents, open_storage, store, stored, tag, values
from tests.storage.support import ts_of as tss_of
from tests.storage.test_zeros import check, compare, compare_all, home_pages, is_zero_ts

TIB = Identity(bytes(range(16)), 1, (1, 2, 3), (1 << 40) // SECTOR_SIZE)
GIB_SECTORS = (1 << 30) // SECTOR_SIZE


def zeroed(storage: StableStorage, chunk: int, chunks: int, ts: int) -> Ticket:
    ticket = storage.zero(chunk * CHUNK_SECTORS, chunks * CHUNK_SECTORS, tag(ts))
    commit_all(storage)
    assert ticket.done
    return ticket


# --- stores -----------------------------------------------------------------------------------------
def test_any_runs_against_a_model(rng: random.Random) -> None:
    files = MemoryFiles()
    storage = open_storage(files)
    model: dict[int, bytes] = {}
    area = 6 * CHUNK_SECTORS
    for step in range(1, 150):
        epoch, ts = step // 40, rng.choice((3 * step, 3 * step + 1, max(3, 3 * step - 30)))
        one = pack_tag(ts, 1, 0, epoch)
        if rng.random() < 0.4:
            first = rng.randrange(5) * CHUNK_SECTORS
            count = rng.randint(2, 6 - first // CHUNK_SECTORS) * CHUNK_SECTORS
            one = pack_tag(ts - ts % 3, 1, 0, epoch)
            storage.zero(first, count, one)
        else:
            count = rng.choice((1, 3, 8, 100, 256))
            first = rng.randrange(area - count + 1)
            data = bytes(count * SECTOR_SIZE) if is_zero_ts(ts) else values(first, count, ts)
            storage.persist(first, count, one * count, data)
        for sector in range(first, first + count):
            model[sector] = max(model.get(sector, ZERO_TAG), one)
        assert tss_of(storage.latest_tags(first, 1)) == tss_of(model[first])
        if rng.random() < 0.6:
            commit_all(storage)
            compare(storage, model, max(0, min(first, area - 256)), 256)
            if rng.random() < 0.2 and storage.journal_used:
                checkpoint_now(storage)
        if rng.random() < 0.1:
            commit_all(storage)
            files = files.crash(rng.choice((drop_all, keep_all, random_chooser(rng))))
            storage = open_storage(files)
    commit_all(storage)
    compare_all(storage, model, area)
    assert storage.sectors_written == sum(not is_zero_ts(ts) for each in model.values() for ts in tss_of(each))
    storage.close()
    again = open_storage(files)
    compare_all(again, model, area)
    for number in home_pages(files):
        (ts,) = tss_of(model[number])
        assert not is_zero_ts(ts), "what is zeros takes no room"


@pytest.mark.parametrize("order", ["zeros first", "value first"])
@pytest.mark.parametrize("ts", [2, 4])
@pytest.mark.parametrize("count", [1, 24])
@pytest.mark.parametrize("before", ["nothing", "values"])
def test_a_value_and_zeros_in_one_commit(order: str, ts: int, count: int, before: str) -> None:
    """The higher tag wins, whichever came first, and the home of a value that counts is never punched."""
    files = MemoryFiles()
    storage = open_storage(files)
    if before == "values":
        stored(storage, 250, 40, 1)
        checkpoint_now(storage)

    def store() -> Ticket:
        return storage.persist(250, count, tag(ts) * count, values(250, count, ts))

    tickets = [store()] if order == "value first" else []
    tickets.append(storage.zero(0, 512, tag(3)))
    if order == "zeros first":
        tickets.append(store())
    commit = storage.next_commit()
    assert commit is not None
    commit.run()
    storage.finish_commit(commit)
    assert all(ticket.done and ticket.ok for ticket in tickets) and not storage.has_work()
    commit_all(storage)  # it gives room back
    expected = [(4, False) if ts == 4 and index < count else (3, True) for index in range(40)]
    check(storage, 250, expected)
    assert home_pages(files) == {250 + index for index, (_, zeros) in enumerate(expected) if not zeros}
    for chooser in (keep_all, drop_all):
        check(open_storage(files.crash(chooser)), 250, expected)


def test_late_zeros_leave_what_is_newer() -> None:
    """In the middle of the run, at its ends, in a later run, and after a start that does not know the newest tag."""
    files = MemoryFiles()
    storage = open_storage(files)
    stored(storage, 0, 256, 1)
    stored(storage, 300, 2, 7)
    stored(storage, 1023, 2, 7)
    assert zeroed(storage, 2, 1 + 1, 6).ok
    for _ in range(2):
        assert zeroed(storage, 0, 4, 5).ok
        check(storage, 0, [(5, True)] * 256)
        check(storage, 299, [(5, True), (7, False), (7, False), (5, True)])
        check(storage, 300, [(7, False)] * 2)
        check(storage, 512, [(6, True)] * 256)
        check(storage, 1022, [(6, True), (7, False), (7, False)])
        assert home_pages(files) == {300, 301, 1023, 1024}
        files = files.crash(keep_all)
        storage = open_storage(files)
        storage._table.newest = journal.NEWEST_UNSAID


def test_a_start_by_the_index_knows_that_there_is_something_newer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_file, "is_due", lambda slots, indexed: slots > indexed)
    files = MemoryFiles()
    storage = open_storage(files)
    stored(storage, 300, 2, 7)
    storage.close()
    for _ in range(2):
        storage = open_storage(files)
        assert storage._indexed and storage._table.newest >= tag(7)
        assert zeroed(storage, 0, 2, 6).ok
        check(storage, 299, [(6, True), (7, False), (7, False), (6, True)])
        storage.close()


def test_overwriting_a_run_on_a_full_disk_is_refused_and_loses_nothing() -> None:
    files = MemoryFiles()
    storage = open_storage(files)
    for first in range(0, 512, 64):
        stored(storage, first, 64, 1)
    zeroed(storage, 0, 2, 2)
    checkpoint_now(storage)
    files.capacity = files.used()
    for count in (1, 8, 64):
        refused = stored(storage, 8, count, 3)
        assert not refused.ok and refused.refusal is Refusal.NO_SPACE
    check(storage, 0, [(2, True)] * 256)
    files.capacity = None
    assert stored(storage, 8, 8, 3).ok
    check(storage, 0, [(2, True)] * 8 + [(3, False)] * 8 + [(2, True)] * 200)


def test_a_crash_at_every_step_leaves_the_old_values_or_zeros() -> None:
    files = MemoryFiles()
    storage = open_storage(files)
    stored(storage, 0, 256, 1)
    stored(storage, 600, 8, 1)
    checkpoint_now(storage)
    begin = len(files.log)
    zeroed(storage, 0, 4, 2)
    acknowledged = len(files.log)
    checkpoint_now(storage)
    stored(storage, 256, 1, 3)
    for upto in range(begin, len(files.log) + 1):
        for chooser in (keep_all, drop_all):
            again = open_storage(MemoryFiles.from_log(files.log[:upto]).crash(chooser))
            (ts,) = tss_of(again.tags(0, 1))
            assert ts == 2 or ts == 1 and upto < acknowledged
            check(again, 0, [(ts, ts == 2)] * 256)
            check(again, 600, [(ts, ts == 2)] * 8)


def test_an_empty_tebibyte_takes_little_of_anything() -> None:
    files = MemoryFiles()
    storage = StableStorage.open(files, TIB)
    tracemalloc.start()
    try:
        for step, first in enumerate(range(0, TIB.sectors, GIB_SECTORS), 1):
            storage.zero(first, GIB_SECTORS, tag(step))
            if step % 16 == 0:
                commit_all(storage)
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert storage.journal_used == 1024 * journal.ZEROS_BYTES and storage._table.slots == 0
    assert taken < 4 << 20
    files = files.crash(drop_all)
    for _ in range(2):
        storage = StableStorage.open(files, TIB)
        assert len(storage._table.runs) == 1024
        check(storage, TIB.sectors - 3, [(1024, True)] * 3)
        check(storage, 5 * GIB_SECTORS - 1, [(5, True), (6, True)])
        checkpoint = storage.next_checkpoint()
        assert checkpoint is None, "a start has written it all"
        storage.close()


def test_one_commit_gives_no_more_back_than_one_command_is_for() -> None:
    storage = StableStorage.open(MemoryFiles(), TIB)
    stored(storage, 5 * GIB_SECTORS, 1, 1)
    tickets = [storage.zero(number * GIB_SECTORS, GIB_SECTORS, tag(2)) for number in (0, 1, 7, 8, 2)]
    last = store(storage, 3, 1, 3)
    sizes = []
    while (commit := storage.next_commit(punches=False)) is not None:
        sizes.append(len(commit.records))
        commit.run()
        storage.finish_commit(commit)
    assert sizes == [1, 3, 2], "beyond the end of the file there is nothing to give back"
    assert all(ticket.ok for ticket in tickets) and last.ok
    check(storage, 2, [(2, True), (3, False), (2, True)])


def test_zeros_on_a_full_disk_give_their_room() -> None:
    files = MemoryFiles()
    storage = open_storage(files)
    for first in range(0, 1024, 64):
        assert stored(storage, first, 64, 1).ok
    checkpoint_now(storage)
    files.capacity = files.used()
    assert not stored(storage, 4096, 64, 1).ok, "it is full"
    assert zeroed(storage, 0, 4, 2).ok
    for first in range(4096, 4096 + 512, 64):
        assert stored(storage, first, 64, 3).ok
    checkpoint_now(storage)
    files = files.crash(drop_all)
    storage = open_storage(files)
    check(storage, 0, [(2, True)] * 256)
    check(storage, 4096, [(3, False)] * 256)


def test_no_room_for_more_runs_refuses_them_alone() -> None:
    files = MemoryFiles()
    storage = open_storage(files)
    files.capacity = files.used()
    tickets = [storage.zero(chunk * 256, 512, tag(chunk)) for chunk in range(1, 4000, 3)]
    other = storage.reserve(5)
    commit_all(storage)
    assert other.ok and all(ticket.done for ticket in tickets)
    assert {ticket.refusal for ticket in tickets if not ticket.ok} == {Refusal.NO_SPACE}
    kept = [chunk for chunk, ticket in zip(range(1, 4000, 3), tickets, strict=True) if ticket.ok]
    files.capacity = None
    storage = open_storage(files.crash(drop_all))
    assert [run.start for run in storage._table.runs.within(0, 4096)] == kept


def test_too_many_runs_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zeros_file, "MAX_RUNS", 2)
    storage = open_storage(MemoryFiles())
    assert zeroed(storage, 0, 2, 1).ok and zeroed(storage, 4, 2, 2).ok
    ticket = zeroed(storage, 8, 2, 3)
    assert not ticket.ok and ticket.refusal is Refusal.BUSY
    assert zeroed(storage, 0, 2, 1).ok, "what is so already is acknowledged"


def test_the_same_command_twice_waits_for_the_first() -> None:
    storage = open_storage(MemoryFiles())
    first, again = storage.zero(0, 512, tag(2)), storage.zero(0, 512, tag(2))
    assert storage._queued == 1 and not first.done and not again.done
    commit_all(storage)
    assert first.ok and again.done and again.ok and storage.zero(0, 512, tag(1)).done


def test_a_read_under_way_when_its_home_is_punched_is_made_again() -> None:
    storage = open_storage(MemoryFiles())
    stored(storage, 8, 16, 1)
    checkpoint_now(storage)
    job = storage.load_job(8, 16)
    storage.zero(0, 512, tag(2))
    commit = storage.next_commit()
    assert commit is not None
    commit.run()
    assert contents(storage, 8, 16) == [1] * 16, "nothing is punched yet"
    storage.finish_commit(commit)
    punch = storage.next_commit()
    assert punch is not None
    punch.run()
    job.run()
    assert job.bad and storage.finish_load(job) is None
    storage.finish_commit(punch)
    check(storage, 8, [(2, True)] * 16)
    assert not storage.lost()


@pytest.mark.parametrize("checkpointed", [False, True])
def test_counters_of_an_attachment_are_known_after_a_start(checkpointed: bool) -> None:
    """The run is in the journal, or in the file of runs alone."""
    files = MemoryFiles()
    storage = open_storage(files)
    storage.fence(3, b"o" * 64)
    storage.zero(0, 512, pack_tag(ts_of(3, 9), ATTACHED, 0, 3))
    commit_all(storage)
    if checkpointed:
        checkpoint_now(storage)
    assert storage.attached_counter == 9
    for chooser in (keep_all, drop_all):
        again = open_storage(files.crash(chooser))
        assert again.attached_counter == 9
        again.close()


# --- what others see of it ------------------------------------------------------------------------------
def test_digests_and_chunks() -> None:
    files = MemoryFiles()
    one, two = open_storage(files), open_storage(MemoryFiles())
    digests, others = TagDigests(one), TagDigests(two)
    one.on_stored, two.on_stored = digests.stored, others.stored
    assert digests.of(3) == b""
    zeroed(one, 2, 5, 4)
    for chunk in range(2, 7):
        two.persist(chunk * 256, 256, tag(4) * 256, bytes(256 * SECTOR_SIZE))
    commit_all(two)
    assert [digests.of(chunk) for chunk in range(9)] == [others.of(chunk) for chunk in range(9)]
    assert [one.next_chunk(chunk) for chunk in (0, 2, 6, 7)] == [2, 2, 6, None]


# --- damage -----------------------------------------------------------------------------------------------
def test_what_is_damaged_is_not_zeroed_from_here() -> None:
    storage = open_storage(MemoryFiles())
    stored(storage, 8, 16, 1)
    storage._table.lose([9])
    refused = storage.zero(0, 512, tag(2))
    assert refused.done and refused.refusal is Refusal.UNKNOWN
    assert zeroed(storage, 2, 2, 2).ok, "elsewhere"
    assert storage.persist(9, 1, tag(2), bytes(SECTOR_SIZE)) is not None
    commit_all(storage)
    assert zeroed(storage, 0, 2, 3).ok


def test_a_sector_whose_tag_is_lost_is_unknown_under_a_run_too() -> None:
    files = MemoryFiles()
    storage = open_storage(files)
    stored(storage, 8, 8, 5)
    zeroed(storage, 0, 2, 2)
    storage.close()
    files.open(TAGS).pwritev([b"\xff" * 16], 100)
    storage = open_storage(files)
    assert storage.unknown(0, 24) and set(range(8, 16)) <= set(storage.unknown(0, 24))
    assert storage.tags(8, 8) == bytes(8 * 16)
    assert not storage.persist(8, 8, tag(1) * 8, values(8, 8, 1)).ok
    ticket = storage.persist(8, 8, tag(1) * 8, values(8, 8, 1), repair=True)
    commit_all(storage)
    assert ticket.ok and not storage.unknown(8, 8)
    check(storage, 8, [(2, True)] * 8)


@pytest.mark.parametrize("place", [0, zeros_file.COPY_AT])
def test_one_copy_of_the_file_is_enough(place: int) -> None:
    files = MemoryFiles()
    storage = open_storage(files)
    zeroed(storage, 0, 2, 2)
    storage.close()
    files.open(ZEROS).pwritev([b"\xa5" * 64], place)
    storage = open_storage(files)
    check(storage, 0, [(2, True)] * 256)
    zeroed(storage, 4, 2, 3)
    storage.close()
    files.open(ZEROS).pwritev([b"\xa5" * 64], zeros_file.COPY_AT - place)
    storage = open_storage(files)
    check(storage, 1024, [(3, True)] * 256)
    storage.close()
    files.open(ZEROS).pwritev([b"\xa5" * 64], 0)
    files.open(ZEROS).pwritev([b"\xa5" * 64], zeros_file.COPY_AT)
    with pytest.raises(DamagedStorage, match="zeros"):
        open_storage(files)


@pytest.mark.parametrize("chooser", [keep_all, drop_all])
def test_a_crash_while_the_file_is_written(chooser: Chooser) -> None:
    files = MemoryFiles()
    storage = open_storage(files)
    zeroed(storage, 0, 2, 2)
    begin = len(files.log)
    checkpoint_now(storage)
    zeroed(storage, 4, 2, 3)
    checkpoint_now(storage)
    assert sum(operation.kind is Kind.WRITE and operation.name == ZEROS for operation in files.log[begin:]) == 4
    for upto in range(begin, len(files.log) + 1):
        again = open_storage(MemoryFiles.from_log(files.log[:upto]).crash(chooser))
        check(again, 0, [(2, True)] * 256)
        assert not again.lost()
