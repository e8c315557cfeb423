"""StableStorage.fence: the durable promise of an epoch and its owner; and Promises, which keeps count of it."""

from __future__ import annotations

import pytest

from dsreg.constants import NO_OWNER, OWNER_SIZE, SECTOR_SIZE
from dsreg.errors import SyncFailed
from dsreg.protocol.tags import ATTACHED, pack_tag
from dsreg.protocol.tags import ts_of as ts_of_write
from dsreg.storage import Refusal
from dsreg.storage.promises import Promises
from dsreg.storage.state import State
from dsreg.testing.memory_files import Kind, MemoryFiles, drop_all
from tests.storage.support import checkpoint_now, commit_all, contents, open_storage, store, stored

ALICE, BOB = bytes([1]) * OWNER_SIZE, bytes([2]) * OWNER_SIZE


# --- durable ----------------------------------------------------------------------------------------
def test_a_new_directory_has_promised_nothing() -> None:
    storage = open_storage(MemoryFiles())
    assert (storage.epoch, storage.owner) == (0, NO_OWNER)
    assert storage.fence(0, NO_OWNER).done and storage.next_commit() is None


def test_a_promise_survives_power_loss_once_it_is_done_and_is_not_there_before() -> None:
    files = MemoryFiles()
    storage = open_storage(files)
    ticket = storage.fence(3, ALICE)
    commit = storage.next_commit()
    assert commit is not None and not ticket.done and storage.epoch == 0
    commit.run()
    assert not ticket.done and storage.epoch == 0, "the storage has not been told that it is durable"
    assert storage.finish_commit(commit) == [ticket]
    assert ticket.ok and (storage.epoch, storage.owner) == (3, ALICE)
    for _ in range(3):
        files = files.crash(drop_all)
        storage = open_storage(files)
        assert (storage.epoch, storage.owner) == (3, ALICE)


def test_a_higher_incarnation_is_durable_before_it_is_done_and_a_lower_one_changes_nothing() -> None:
    files = MemoryFiles()
    storage = open_storage(files)
    for incarnation in (9, 20):
        ticket = storage.fence(0, NO_OWNER, incarnation)
        assert not ticket.done and storage.incarnation < incarnation
        commit = storage.next_commit()
        assert commit is not None
        commit.run()
        assert not ticket.done
        assert storage.finish_commit(commit) == [ticket] and storage.incarnation == incarnation
    assert storage.fence(0, NO_OWNER, 7).done and storage.next_commit() is None
    storage.fence(3, ALICE, 7)
    commit_all(storage)
    assert storage.incarnation == 20
    assert open_storage(files.crash(drop_all)).incarnation > 20


def test_how_far_the_attachment_has_come_with_its_writes_is_known_after_a_start() -> None:
    """From the journal, from home, and from both; of the attachment in force alone."""
    files = MemoryFiles()
    storage = open_storage(files)
    assert storage.attached_counter == 0
    storage.fence(3, ALICE)
    for sector, counter, checkpoint in ((0, 7, True), (300, 9, False), (1, 8, False)):
        tag = pack_tag(ts_of_write(3, counter), ATTACHED, 0, 3)
        storage.persist(sector, 1, tag, bytes(SECTOR_SIZE))
        commit_all(storage)
        if checkpoint:
            checkpoint_now(storage)
    # A plain write in its epoch, one of an attachment before it, and a run of both.
    storage.persist(2, 1, pack_tag(ts_of_write(3, 50), 2, 1, 3), bytes(SECTOR_SIZE))
    storage.persist(3, 1, pack_tag(ts_of_write(2, 60), ATTACHED, 0, 3), bytes(SECTOR_SIZE))
    commit_all(storage)
    assert storage.attached_counter == 9
    again = open_storage(files.crash(drop_all))
    assert again.attached_counter == 9
    again.close()
    again = open_storage(files.crash(drop_all))
    assert again.attached_counter == 9
    again.fence(4, BOB)
    commit_all(again)
    assert again.attached_counter == 0


def test_a_promise_that_was_not_begun_is_lost_with_the_power() -> None:
    files = MemoryFiles()
    ticket = open_storage(files).fence(3, ALICE)
    again = open_storage(files.crash(drop_all))
    assert not ticket.done and (again.epoch, again.owner) == (0, NO_OWNER)


def test_a_promise_is_closed_over() -> None:
    files = MemoryFiles()
    storage = open_storage(files)
    ticket = storage.fence(1, ALICE)
    storage.close()
    assert ticket.done and open_storage(files).epoch == 1


def test_checkpoints_and_reservations_keep_it() -> None:
    files = MemoryFiles()
    storage = open_storage(files)
    storage.fence(2, BOB)
    stored(storage, 0, 3, ts=1)
    reserved = storage.reserve(77)
    assert commit_all(storage) == [reserved]
    checkpoint_now(storage)
    storage = open_storage(files.crash(drop_all))
    assert (storage.epoch, storage.owner, storage.ts_reserved) == (2, BOB, 77)
    assert contents(storage, 0, 3) == [1] * 3


def test_a_sync_that_fails_acknowledges_nothing() -> None:
    files = MemoryFiles()
    storage = open_storage(files)
    ticket = storage.fence(1, ALICE)
    commit = storage.next_commit()
    assert commit is not None
    files.fail(Kind.SYNC)
    with pytest.raises(SyncFailed):
        commit.run()
    with pytest.raises(SyncFailed):
        storage.fence(2, ALICE)
    assert not ticket.done and storage.epoch == 0


# --- what is older, equal, or of another owner --------------------------------------------------------
def test_only_what_is_new_costs_a_commit() -> None:
    storage = open_storage(MemoryFiles())
    storage.fence(5, ALICE)
    commit_all(storage)
    for epoch, owner in ((5, ALICE), (5, NO_OWNER), (4, BOB), (0, NO_OWNER)):
        assert storage.fence(epoch, owner).done
        assert storage.next_commit() is None
    assert (storage.epoch, storage.owner) == (5, ALICE)


def test_the_owner_may_be_learnt_later() -> None:
    storage = open_storage(MemoryFiles())
    storage.fence(5, NO_OWNER)
    commit_all(storage)
    ticket = storage.fence(5, ALICE)
    assert not ticket.done
    assert commit_all(storage) == [ticket]
    assert (storage.epoch, storage.owner) == (5, ALICE)


def test_a_newer_epoch_forgets_the_owner_of_the_older_one() -> None:
    storage = open_storage(MemoryFiles())
    storage.fence(5, BOB)
    storage.fence(6, NO_OWNER)
    commit_all(storage)
    assert (storage.epoch, storage.owner) == (6, NO_OWNER)


def test_many_in_one_commit() -> None:
    storage = open_storage(MemoryFiles())
    tickets = {storage.fence(epoch, ALICE) for epoch in (3, 1, 2)}
    commit = storage.next_commit()
    assert commit is not None
    commit.run()
    assert set(storage.finish_commit(commit)) == tickets
    assert storage.epoch == 3


def test_one_that_comes_while_a_commit_runs_waits_for_the_next() -> None:
    storage = open_storage(MemoryFiles())
    first = storage.fence(1, ALICE)
    commit = storage.next_commit()
    assert commit is not None
    second = storage.fence(2, ALICE)
    commit.run()
    assert storage.finish_commit(commit) == [first]
    assert not second.done and commit_all(storage) == [second]


# --- what was accepted before -------------------------------------------------------------------------
def test_not_done_before_earlier_persists_are() -> None:
    """Durable it may be; but what was accepted of an older epoch must be decided before anybody is told."""
    storage = open_storage(MemoryFiles())
    earlier = store(storage, 0, 2, ts=1)
    commit = storage.next_commit()
    assert commit is not None
    ticket = storage.fence(1, ALICE)
    later = store(storage, 9, 1, ts=1)
    commit.run()
    assert storage.finish_commit(commit) == [earlier]
    assert not ticket.done
    assert set(commit_all(storage)) == {ticket, later}


def test_an_earlier_persist_in_a_full_journal_holds_it_up_though_it_is_durable() -> None:
    files = MemoryFiles()
    storage = open_storage(files)
    checkpoint = None
    for ts in range(1, 100):
        earlier = store(storage, 0, 128, ts)
        commit = storage.next_commit()
        if commit is None:
            break
        commit.run()
        storage.finish_commit(commit)
        checkpoint = checkpoint or storage.next_checkpoint() if storage.checkpoint_due(idle=False) else checkpoint
    assert checkpoint is not None and not earlier.done
    ticket, again = storage.fence(4, ALICE), storage.fence(4, ALICE)
    assert commit_all(storage) == [], "the promise is written, the store has no room"
    assert not ticket.done and not again.done
    assert storage.epoch == 0, "a question under 4 must wait: what is queued may still change the answer"
    checkpoint.run()
    storage.finish_checkpoint(checkpoint)
    assert set(commit_all(storage)) == {earlier, ticket, again} and storage.epoch == 4
    again_open = open_storage(files.crash(drop_all))
    assert again_open.epoch == 4 and contents(again_open, 0, 128) == [ts] * 128


def test_a_refused_persist_is_decided_as_well() -> None:
    files = MemoryFiles()
    storage = open_storage(files)
    files.capacity = files.used()
    earlier = store(storage, 0, 4, ts=1)
    ticket = storage.fence(1, ALICE)
    done = commit_all(storage)
    assert set(done) == {earlier, ticket}
    assert earlier.refusal is Refusal.NO_SPACE and ticket.ok and storage.epoch == 1


def test_one_that_is_durable_already_still_waits_for_the_persists_before_it() -> None:
    storage = open_storage(MemoryFiles())
    storage.fence(1, ALICE)
    commit_all(storage)
    earlier = store(storage, 0, 1, ts=1)
    ticket = storage.fence(1, ALICE)
    assert not ticket.done
    assert set(commit_all(storage)) == {earlier, ticket}


# --- Promises -----------------------------------------------------------------------------------------
def test_promises_keep_count() -> None:
    promises = Promises(State(seq=7, ts_reserved=10, epoch=2, owner=ALICE))
    assert not promises.pending
    assert promises.reserve(10).done and promises.fence(2, ALICE, 0).done and not promises.pending
    reserved, fenced, after = promises.reserve(11), promises.fence(3, BOB, 0), promises.fence(3, BOB, 2)
    assert promises.pending and promises.kept() == []
    assert promises.wanted() == State(seq=8, ts_reserved=11, epoch=3, owner=BOB)
    promises.state = promises.wanted()
    assert promises.kept() == [reserved, fenced] and promises.kept() == [] and not promises.pending
    promises.decided = 1
    assert promises.kept() == []
    promises.decided = 2
    assert promises.kept() == [after] and after.done


def test_an_epoch_is_in_force_when_its_fence_is_done() -> None:
    promises = Promises(State(epoch=2, owner=ALICE))
    assert promises.in_force == (2, ALICE)
    promises.fence(3, BOB, 1)
    promises.fence(4, NO_OWNER, 2)
    promises.state = promises.wanted()
    assert promises.kept() == [] and promises.in_force == (2, ALICE)
    promises.decided = 1
    promises.kept()
    assert promises.in_force == (3, BOB)
    promises.decided = 2
    promises.kept()
    assert promises.in_force == (4, NO_OWNER)
    promises.fence(3, BOB, 2)
    assert promises.in_force == (4, NO_OWNER)


def test_a_second_question_under_a_new_epoch_waits_for_what_was_accepted_before_the_first() -> None:
    """More is queued than one commit takes, so the promise is durable before all of it is: the node would answer with
    what it holds, and then store, and acknowledge, a plain write of the older epoch."""
    storage = open_storage(MemoryFiles())
    earlier = [store(storage, 0, 128, ts) for ts in range(1, 10)]
    ticket = storage.fence(1, ALICE)
    commit = storage.next_commit()
    assert commit is not None
    commit.run()
    assert storage.finish_commit(commit) == earlier[: len(commit.records)] and not earlier[-1].done
    assert not ticket.done and storage.epoch == 0
    commit_all(storage)
    assert ticket.done and earlier[-1].done and storage.epoch == 1


def test_promises_never_go_back() -> None:
    promises = Promises(State(ts_reserved=10, epoch=2, owner=BOB))
    promises.reserve(5)
    promises.fence(1, BOB, 0)
    promises.fence(2, ALICE, 0)
    assert not promises.pending and promises.wanted()[2:] == promises.state[2:]
