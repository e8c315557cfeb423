"""What a node lacks of a chunk."""

from __future__ import annotations

import random

from dsreg.constants import ZERO_TAG
from dsreg.protocol.tags import iter_tags, pack_tag
from dsreg.register.heal_work import Chunk, Run
from dsreg.register.lacking import GAP, NOBODY, Lack, lacking
from tests.protocol.values import tags


def of(*counters: int, epoch: int = 0) -> bytes:
    return b"".join(pack_tag(counter, 1, 0, epoch) if counter else ZERO_TAG for counter in counters)


def test_nothing_where_all_have_the_same_or_less() -> None:
    assert lacking(of(3, 4), {2: of(3, 4)}) == []
    assert lacking(of(3, 4), {2: of(2, 4), 3: of(0, 0)}) == []


def test_a_higher_tag_is_taken_from_whom_has_it() -> None:
    assert lacking(of(3, 4), {2: of(3, 5)}) == [Lack(1, 2, 2, 1, of(5))]
    assert lacking(of(3, 4), {2: of(3, 5), 3: of(3, 6)}) == [Lack(1, 2, 3, 1, of(6))]
    assert lacking(of(0, 4), {2: tags((1, 2), (4, 1)), 3: of(0, 4)}) == [Lack(0, 1, 2, 1, tags((1, 2)))]


def test_a_run_goes_on_with_the_same_node_as_long_as_that_has_it() -> None:
    assert lacking(of(1, 1, 1), {2: of(2, 2, 1), 3: of(2, 2, 2)}) == [
        Lack(0, 2, 2, 2, of(2, 2)), Lack(2, 3, 3, 1, of(2)),
    ]


def test_near_ones_are_one_run_and_far_ones_are_not() -> None:
    own = of(*[1] * (GAP + 3))
    near = of(2, *[1] * GAP, 2, 1)
    assert lacking(own, {2: near}) == [Lack(0, GAP + 2, 2, 2, near[:-16])]
    assert lacking(own, {2: of(2, *[1] * (GAP + 1), 2)}) == [
        Lack(0, 1, 2, 1, of(2)), Lack(GAP + 2, GAP + 3, 2, 1, of(2)),
    ]


def test_what_was_never_written_need_not_be_fetched() -> None:
    bare = pack_tag(0, 0, 0, 7)
    assert lacking(of(3, 3, 3), {2: bare + of(3) + bare}) == [Lack(0, 1, NOBODY, 1, bare), Lack(2, 3, NOBODY, 1, bare)]
    assert lacking(of(3, 3), {2: bare * 2}) == [Lack(0, 2, NOBODY, 2, bare * 2)]
    assert lacking(of(3, 3), {2: bare + of(4)}) == [Lack(0, 1, NOBODY, 1, bare), Lack(1, 2, 2, 1, of(4))]


def test_a_lost_value_is_taken_under_its_own_tag_too() -> None:
    assert lacking(of(3, 3), {2: of(3, 3)}, lost={1}) == [Lack(1, 2, 2, 1, of(3))]
    assert lacking(of(3, 3), {2: of(3, 2)}, lost={1}) == []


def test_of_what_is_unknown_nothing_is_taken_nor_is_it_passed_over() -> None:
    assert lacking(of(1, 0, 1), {2: of(2, 2, 2)}, lost={1}, unknown={1}) == [
        Lack(0, 1, 2, 1, of(2)), Lack(2, 3, 2, 1, of(2)),
    ]


def test_against_a_dumb_version(rng: random.Random) -> None:
    for _ in range(2000):
        count = rng.randint(1, 12)
        own, *others = (of(*(rng.randint(0, 3) for _ in range(count))) for _ in range(3))
        if rng.random() < 0.3:  # each in one piece
            own, *others = (tags[:16] * count for tags in (own, *others))
        told = dict(enumerate(others, 2))
        lost = {index for index in range(count) if rng.random() < 0.1}
        unknown = {index for index in lost if rng.random() < 0.5}
        lacks = lacking(own, told, lost, unknown)
        taken: dict[int, bytes] = {}
        for start, stop, rank, sectors, some in lacks:
            assert 0 <= start < stop <= count and len(some) == 16 * (stop - start)
            wanted = 0
            for index, tag in zip(range(start, stop), iter_tags(some), strict=True):
                assert index not in taken and index not in unknown
                taken[index] = tag
                best = max(iter_tags(tags)[index] for tags in others)
                needed = best > iter_tags(own)[index] or index in lost and best >= iter_tags(own)[index]
                wanted += needed
                if needed:
                    assert tag == best
                    assert rank == NOBODY and not tag[-1] or iter_tags(told[rank])[index] == best
            assert wanted == sectors > 0
        for index in range(count):
            best = max(iter_tags(tags)[index] for tags in others)
            if index not in unknown and best > iter_tags(own)[index]:
                assert index in taken


def test_a_run_in_two_parts_keeps_the_tag_of_each_sector() -> None:
    run = Run(Chunk(0, (0, 256), 0, 0, [], settled=True), 256, Lack(3, 8, 2, 4, of(1, 2, 3, 4, 5)))
    first, rest = run.split(2)
    assert first.lack == Lack(3, 5, 2, 2, of(1, 2)) and rest.lack == Lack(5, 8, 2, 2, of(3, 4, 5))
    assert (first.size, rest.size, first.first, rest.first) == (2, 3, 256, 256)
