"""From the second life of a node on its life stands in every tag that it chooses: docs/lives.md, rule 16."""

from __future__ import annotations

import pytest

from dsreg.constants import ZERO_TAG
from dsreg.protocol.names import name_bits
from dsreg.protocol.tags import pack_tag, ts_of
from dsreg.register.effects import Persist
from tests.register.play import RID, Play


def in_life(number: int) -> Play:
    play = Play()
    play.replica.allocator.be(number, 7)
    return play


@pytest.mark.parametrize(("number", "bits"), [(1, 0), (2, name_bits(2, 7)), (17, name_bits(17, 7))])
def test_a_write_without_an_attachment(number: int, bits: int) -> None:
    play = in_life(number)
    play.write()
    [record] = play.value(2, RID, ZERO_TAG)
    assert isinstance(record, Persist) and record.tags == pack_tag(1, 1, bits)


@pytest.mark.parametrize("number", [1, 2, 17])
def test_a_write_under_an_epoch(number: int) -> None:
    play = in_life(number)
    play.storage.epoch = 3
    play.replica.epochs.promised = 3
    play.write()
    [record] = play.value(2, RID, ZERO_TAG, epoch=3)
    assert isinstance(record, Persist) and record.tags == pack_tag(ts_of(3, 1), 1, name_bits(number, 7), 3)
