"""Digests of tags: of what there is now, in pieces."""

from __future__ import annotations

import hashlib
import random

from dsreg.constants import MAX_RUN_SECTORS, SECTOR_SIZE
from dsreg.protocol.messages import DigestQuery
from dsreg.protocol.tags import pack_tag
from dsreg.register.digests import BUDGET, UNKNOWN, TagDigests
from dsreg.register.effects import Persist
from dsreg.runs import Runs
from dsreg.testing.memory_storage import MemoryStorage


def store(storage: MemoryStorage, sector: int, counter: int) -> None:
    storage.queue(Persist(sector, 1, pack_tag(counter, 1), bytes(SECTOR_SIZE), ()))
    storage.commit()


def made(sectors: int = MAX_RUN_SECTORS * 100 - 7) -> tuple[MemoryStorage, TagDigests]:
    storage = MemoryStorage(sectors)
    digests = TagDigests(storage)
    storage.on_stored = digests.stored
    return storage, digests


def test_of_a_chunk_its_tags_and_nothing_of_one_never_written() -> None:
    storage, digests = made()
    store(storage, 99 * MAX_RUN_SECTORS, 5)
    assert digests.chunks == 100
    assert digests.run_of(99) == (99 * MAX_RUN_SECTORS, MAX_RUN_SECTORS - 7)
    tags = pack_tag(5, 1) + bytes(16 * (MAX_RUN_SECTORS - 8))
    assert digests.of(99) == hashlib.blake2b(tags, digest_size=16).digest()
    assert digests.of(98) == b""
    assert digests.listed(0, 99) == {}
    assert digests.listed(0, 100) == {99: digests.of(99)}


def test_a_store_is_seen(rng: random.Random) -> None:
    storage, digests = made()
    counter = 0
    for _ in range(200):
        counter += 1
        store(storage, rng.randrange(storage.sectors), counter)
        fresh = TagDigests(storage)
        assert digests.listed(0, 100) == fresh.listed(0, 100)


def test_of_a_chunk_of_which_a_tag_is_lost_it_says_so_until_it_is_not() -> None:
    storage, digests = made()
    store(storage, 3, 5)
    before = digests.of(0)
    store(storage, 3, 6)
    storage.damage(7, tag_too=True)
    assert digests.of(0) == UNKNOWN
    storage._no_tag.clear()
    assert digests.of(0) not in (UNKNOWN, before)


def test_an_answer_is_of_as_much_as_can_be_computed_at_once() -> None:
    storage, digests = made()
    for chunk in range(0, 100, 2):
        store(storage, chunk * MAX_RUN_SECTORS, 5)
    answer = digests.answer(3, DigestQuery(2, 77, 0, 100))
    assert (answer.rank, answer.rid, answer.first, answer.count) == (3, 77, 0, 2 * BUDGET)
    assert sorted(answer.digests) == list(range(0, 2 * BUDGET, 2)) and answer.following == 2 * BUDGET
    again = digests.answer(3, DigestQuery(2, 78, 0, 100))
    assert again.count == 100 and sorted(again.digests) == list(range(0, 100, 2)) and again.following == 100
    assert digests.answer(3, DigestQuery(2, 79, 0, 1)).following == 2


def test_where_the_last_one_is_lost_nothing_is_said_of_those_behind_it() -> None:
    storage, digests = made()
    store(storage, 0, 5)
    storage.damage(5 * MAX_RUN_SECTORS, tag_too=True)
    answer = digests.answer(3, DigestQuery(2, 77, 0, 6))
    assert (answer.count, answer.following, answer.digests[5]) == (6, 6, UNKNOWN)
    assert digests.answer(3, DigestQuery(2, 77, 0, 7)).following == 100
    storage.learning.know(Runs())
    storage.learning.learned(0, 2 * MAX_RUN_SECTORS)
    answer = digests.answer(3, DigestQuery(2, 77, 0, 100))
    assert (answer.count, answer.following, list(answer.digests)) == (2, 2, [0])
    answer = digests.answer(3, DigestQuery(2, 77, 2, 98))
    assert (answer.count, answer.following, answer.digests) == (1, 100, {2: UNKNOWN})
