"""Lists of extents, against sectors in a dict; and the bound on the memory behind them."""

from __future__ import annotations

import random

from dsreg.cache.extents import Extent, cover, gaps, join, slide_under, within
from dsreg.constants import SECTOR_SIZE

SECTORS = 64


def extent(first: int, count: int, fill: int) -> Extent:
    data = bytes([fill]) * (count * SECTOR_SIZE)
    return Extent.of(first, data, len(data))


def content(extents: list[Extent]) -> dict[int, int]:
    """The first byte of each sector, after a look at the order of the list."""
    assert all(one.stop <= other.first for one, other in zip(extents, extents[1:], strict=False))
    for one in extents:
        assert len(one.data) == (one.stop - one.first) * SECTOR_SIZE
        assert one.pinned <= 2 * len(one.data)
        assert one.pinned == len(one.data.obj if isinstance(one.data, memoryview) else one.data)
    return {
        sector: one.data[(sector - one.first) * SECTOR_SIZE] for one in extents for sector in range(one.first, one.stop)
    }


def test_lists_hold_what_a_dict_would(rng: random.Random) -> None:
    for _ in range(60):
        extents: list[Extent] = []
        model: dict[int, int] = {}
        for fill in range(1, 40):
            count = rng.choice([1, 1, 2, 7, 30])
            first = rng.randrange(SECTORS - count + 1)
            sectors = range(first, first + count)
            known = [sector for sector in sectors if sector in model]
            assert [g for begin, end in gaps(extents, first, first + count) for g in range(begin, end)] == [
                sector for sector in sectors if sector not in model
            ]
            pieces = list(within(extents, first, first + count))
            assert [sector for piece in pieces for sector in range(piece.first, piece.stop)] == known
            assert join(pieces) == b"".join(bytes([model[sector]]) * SECTOR_SIZE for sector in known)
            if rng.random() < 0.7:
                assert cover(extents, extent(first, count, fill)) == len(known)
                model.update(dict.fromkeys(sectors, fill))
            else:
                assert slide_under(extents, extent(first, count, fill)) == len(known)
                model = dict.fromkeys(sectors, fill) | model
            assert content(extents) == model


def test_large_writes_are_not_copied() -> None:
    data = bytes(256 * SECTOR_SIZE)
    whole = Extent.of(0, data, len(data))
    assert join([whole]) is data
    assert join([Extent.of(0, memoryview(data), len(data))]) is data
    extents = [whole]
    cover(extents, extent(250, 6, 1))
    kept = extents[0].data
    assert isinstance(kept, memoryview) and kept.obj is data


def test_a_small_rest_does_not_keep_a_large_buffer() -> None:
    extents: list[Extent] = []
    cover(extents, extent(0, 256, 1))
    cover(extents, extent(1, 254, 2))
    assert [(one.first, one.stop, one.pinned) for one in extents] == [
        (0, 1, SECTOR_SIZE), (1, 255, 254 * SECTOR_SIZE), (255, 256, SECTOR_SIZE)
    ]
