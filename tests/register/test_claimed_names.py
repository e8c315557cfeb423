"""From the second life of a node on its life stands in every tag that it chooses: docs/lives.md, rule 16."""

from __future__ import annotations

import pytest

from dsreg.constants import ZERO_TAG
from dsreg.protocol.messages import ReadProc
from dsreg.protocol.names import name_bits
from dsreg.protocol.tags import pack_tag, ts_of
from dsreg.register.effects import Persist, Tell
from tests.register.play import NEW, RID, Play


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


def test_a_question_of_the_contract_has_no_answer_that_tells_a_life() -> None:
    """It was asked before a node has rejoined, and comes late: a node of the contract would forbid that."""
    play = Play()
    play.have(pack_tag(5, 1), NEW)
    question = ReadProc(2, 50, 0, 1, True, b"u" * 16)
    [loading] = play.message(question)
    assert len(play.load(loading)) == 1
    play.have(pack_tag(6, 1, name_bits(2, 7)), NEW)
    [loading] = play.message(question)
    assert play.load(loading) == [] and play.replica.counters["beyond_contract"] == 1


def test_nor_is_a_node_of_the_contract_told_to_store_such_a_tag() -> None:
    play = Play(contract=(3,))
    play.replica.allocator.be(2, 7)
    play.write()
    [record] = play.value(2, RID, ZERO_TAG)
    assert [effect.rank for effect in play.commit(record) if isinstance(effect, Tell)] == [2]
