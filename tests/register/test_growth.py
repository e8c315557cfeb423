"""The disk grows while a node heals and learns: docs/configurations.md, "A larger disk"."""

from __future__ import annotations

import pytest

from dsreg.constants import MAX_RUN_SECTORS, ZERO_TAG
from dsreg.protocol.messages import DigestQuery
from dsreg.register.digests import TagDigests
from dsreg.register.effects import Persist
from dsreg.register.quorum import majority_of
from dsreg.runs import Runs
from dsreg.storage.learned import Learned
from dsreg.testing.memory_storage import MemoryStorage
from tests.protocol.values import data
from tests.register.heal_play import LAST, NEW, RANKS, SECTORS, Play
from tests.register.learning_play import Learning

# In the same chunk, and in a chunk of its own.
LARGER = SECTORS + 2 * MAX_RUN_SECTORS
NEW_SECTORS = (SECTORS, LAST + MAX_RUN_SECTORS - 1, LARGER - 1)


def grow(play: Play, sectors: int = LARGER) -> None:
    """All three nodes have heard of it, this one last."""
    for other in play.others.values():
        other.storage.grow(sectors)
    play.storage.grow(sectors)
    play.take(play.heal.reconfigured(majority_of(RANKS), play.now))


# --- digests ----------------------------------------------------------------------------------------
def test_digests_are_of_the_larger_disk() -> None:
    """That of the last chunk is another one, also where it was asked for before."""
    storage = MemoryStorage(SECTORS)
    digests = TagDigests(storage)
    storage.on_stored = digests.stored
    storage.queue(Persist(LAST, 1, NEW, data(1), ()))
    storage.commit()
    before = digests.of(2)
    assert digests.chunks == 3 and before
    storage.grow(LARGER)
    fresh = TagDigests(storage)
    assert digests.chunks == fresh.chunks == 5
    assert digests.of(2) == fresh.of(2) != before
    answer = digests.answer(2, DigestQuery(1, 7, 0, 5))
    assert (answer.count, answer.following) == (5, 5) and set(answer.digests) == {2}


# --- healing ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("sector", NEW_SECTORS)
def test_what_is_missed_in_the_new_sectors_is_healed(sector: int) -> None:
    play = Play(2, 3)
    play.to_the_end()
    assert play.in_sync(2, 3)
    grow(play)
    play.have(sector, NEW, data(9), 2, 3)
    play.to_the_end()
    play.tick(1.0)  # it differed once
    play.to_the_end()
    assert play.tag(sector) == NEW and play.in_sync(2, 3)


@pytest.mark.parametrize("answered", range(8))
def test_a_chunk_that_is_looked_at_when_the_disk_grows(answered: int) -> None:
    """Whatever was on its way then, tags or values."""
    play = Play(2, 3)
    play.have(LAST, 2 * NEW, data(1) + data(2), 2, 3)
    adopted = []
    for _ in range(answered):
        if play.asked:
            adopted += play.answer()
    grow(play)
    for effect in adopted:
        play.store(effect)
    play.have(SECTORS, NEW, data(3), 2, 3)
    for _ in range(4):
        play.to_the_end()
        play.tick(1.0)
    play.to_the_end()
    assert play.storage.tags(LAST, 2) == 2 * NEW and play.tag(SECTORS) == NEW and play.in_sync(2, 3)


# --- learning ---------------------------------------------------------------------------------------
def test_while_something_is_left_so_is_what_is_new() -> None:
    """And once all is learned it is known as never written: what may have been acknowledged here before does not
    count."""
    learned = Learned(SECTORS, lambda first, count: ZERO_TAG * count)
    learned.know(Runs())
    assert learned.learned(0, SECTORS - 1)
    learned.grow(LARGER)
    assert learned.left == LARGER - SECTORS + 1 and learned.of(SECTORS - 2, 3) == [SECTORS - 1, SECTORS]
    assert learned.chunks(0) == (2, 5)
    assert learned.learned(SECTORS - 1, LARGER - SECTORS + 1) and learned.left == 0
    learned.grow(2 * LARGER)
    assert learned.left == 0 and learned.of(LARGER, 10) == [] and learned.chunks(0) is None
    assert learned.learned(7, 1) and learned.left == 0


@pytest.mark.parametrize("sector", NEW_SECTORS)
@pytest.mark.parametrize("answered", range(6))
def test_a_node_that_learns_asks_for_what_is_new_as_well(answered: int, sector: int) -> None:
    play = Learning(2, 3)
    play.have(LAST + 1, NEW, data(1), 2)
    for _ in range(answered):
        if play.asked:
            for effect in play.answer():
                play.store(effect)
    assert play.left
    grow(play)
    assert play.storage.unknown(sector, 1) == [sector]
    play.have(sector, NEW, data(2), 3)
    play.all()
    assert play.left == 0 and play.tag(sector) == NEW and play.tag(LAST + 1) == NEW


def test_what_was_told_of_the_smaller_disk_says_nothing_of_the_larger_one() -> None:
    """One that has not heard of it yet says of the last chunk that nothing was written there; it is of four sectors."""
    play = Learning(2, 3)
    told = [play.others[rank].answer(question) for rank, question in play.asked if isinstance(question, DigestQuery)]
    grow(play)
    play.have(SECTORS, NEW, data(1), 2, 3)
    asked = list(play.asked)
    for message in told:
        play.say(message)
    assert play.left == LARGER and play.asked == asked
    play.all()
    assert play.tag(SECTORS) == NEW
