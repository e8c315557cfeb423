"""The register with a joint quorum: an operation needs a majority of each of two sets."""

from __future__ import annotations

import itertools

import pytest

from dsreg.constants import SECTOR_SIZE
from dsreg.protocol.life import Life
from dsreg.protocol.tags import pack_tag
from dsreg.register.actions import AskAll, Return, StoreAll, StoreOwn
from dsreg.register.atomic_register import AtomicRegister
from dsreg.register.lives import FirstStart
from dsreg.register.quorum import Joint, majority_of, mask
from tests.register.test_model import Run

OLD, NEW = (1, 2, 3), (3, 4, 5)
JOINT = Joint(majority_of(OLD), majority_of(NEW))
TAG, VALUE = pack_tag(7, 2), b"v" * SECTOR_SIZE
LOWER = pack_tag(6, 2)


def register() -> AtomicRegister:
    return AtomicRegister(1, JOINT, 8, 1, itertools.count(100))


def test_l2_a_write_asks_a_majority_of_both_and_l6_returns_on_both() -> None:
    one = register()
    assert one.write(VALUE) == [AskAll(100, False, False)]
    for rank in OLD:
        assert one.value(rank, 100, TAG, None) == [], "all of the old set are none of the new one but for 3"
    (record,) = one.value(5, 100, TAG, None)
    assert isinstance(record, StoreOwn)
    assert [type(action) for action in one.ack(1, 100)] == [StoreAll]
    assert [one.ack(rank, 100) for rank in (4, 5)] == [[], []]
    assert one.ack(2, 100) == [Return(b"", b"")]


def test_a_read_of_one_round_needs_both() -> None:
    one = register()
    one.read()
    answers = [(2, None), (1, VALUE), (4, None), (5, None)]
    results = [one.value(rank, 100, TAG, data) for rank, data in answers]
    assert results == [[], [], [], [Return(TAG, VALUE)]]


def test_what_only_one_of_the_sets_agrees_on_is_stored_again() -> None:
    one = register()
    one.read()
    for rank, tag, data in ((2, TAG, None), (1, TAG, VALUE), (4, LOWER, None)):
        assert one.value(rank, 100, tag, data) == []
    assert [type(action) for action in one.value(5, 100, LOWER, None)] == [StoreAll, StoreOwn]


def test_which_others_a_first_start_needs() -> None:
    """With itself a quorum; strictly, so many that every quorum of each set has one of them."""
    own = Life(1, bytes(16))
    for strict in (False, True):
        for asked in itertools.chain.from_iterable(itertools.combinations((2, 3, 4, 5), n) for n in range(5)):
            start = FirstStart(1, JOINT, own, begun=False, strict=strict)
            for teller in asked:
                start.told(teller, None)
            enough = JOINT.covers(mask(asked)) if strict else JOINT.decided(mask(asked) | mask((1,)))
            assert (start.due(0.0) is not None) is enough, asked


@pytest.mark.parametrize("part", range(2))
def test_every_sector_is_linearizable(seed: int, part: int) -> None:
    for number in range(seed + 60 * part, seed + 60 * part + 60):
        one = Run(number, nodes=5, quorum=JOINT)
        try:
            one.go()
        except AssertionError as error:
            error.add_note(f"seed of this run: {number}")
            raise
        assert one.faults() == [], f"seed of this run: {number}"


@pytest.mark.pure
def test_a_joint_quorum_that_heeds_one_set_alone_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sets {1, 2, 3} and {3, 4, 5} have majorities that do not meet."""
    monkeypatch.setattr(Joint, "decided", lambda self, answers: any(one.decided(answers) for one in self._both))

    def faults(number: int) -> list[str]:
        one = Run(number, nodes=5, quorum=JOINT)
        one.go()
        return one.faults()

    assert any(faults(number) for number in range(300))
