"""Belief: which tags and epochs are taken from others, at the bounds and one off on either side."""

from __future__ import annotations

import pytest

from dsreg.constants import ZERO_TAG
from dsreg.protocol.plausibility import (
    ALWAYS_PLAUSIBLE_COUNTER,
    ALWAYS_PLAUSIBLE_EPOCH,
    FIRST_EPOCH_S,
    MAX_COUNTS_PER_S,
    S_PER_EPOCH,
    are_plausible,
    highest_plausible_epoch,
)
from dsreg.protocol.tags import ATTACHED, MAX_EPOCH, pack_tag, ts_of

NOW_S = 1_800_000_000.5
END_OF_TIME_S = 1e15


@pytest.mark.parametrize(
    ("unix_time_s", "highest"),
    [
        (0.0, ALWAYS_PLAUSIBLE_COUNTER),
        (-5.0, ALWAYS_PLAUSIBLE_COUNTER),
        ((1 << 24) + 1.0, ALWAYS_PLAUSIBLE_COUNTER + MAX_COUNTS_PER_S),
        (1.8e9, 1_800_000_000 << 24),
        (END_OF_TIME_S, ((1 << 32) - 1) << 24),
    ],
)
def test_counters_grow_with_the_clock_and_stay_within_their_bits(unix_time_s: float, highest: int) -> None:
    assert highest < 1 << 56
    for epoch in (0, 1, 7):
        tag, over = (pack_tag(ts_of(epoch, counter), 1, 0, epoch) for counter in (highest, highest + 1))
        assert are_plausible(tag, unix_time_s)
        assert not are_plausible(over, unix_time_s)


def test_the_clock_of_an_attachment_is_believed() -> None:
    """It counts microseconds since 1970, with room for its being ahead."""
    tag = pack_tag(ts_of(5, int(NOW_S * 1_000_000)), ATTACHED, 0, 5)
    assert are_plausible(tag, NOW_S)
    assert are_plausible(tag, NOW_S / 10)


def test_a_write_is_of_the_epoch_of_its_copy_or_of_an_older_one() -> None:
    assert are_plausible(pack_tag(ts_of(2, 1), 1, 0, 2), NOW_S)
    assert are_plausible(pack_tag(ts_of(2, 1), 1, 0, 3), NOW_S)
    assert are_plausible(pack_tag(1, 1, 0, MAX_EPOCH), NOW_S)
    assert not are_plausible(pack_tag(ts_of(3, 1), 1, 0, 2), NOW_S)
    assert not are_plausible(pack_tag(ts_of(1, 1), 1), NOW_S)


def test_one_absurd_tag_in_a_run_is_enough() -> None:
    good, bad = pack_tag(1, 1), pack_tag(ts_of(0, (1 << 56) - 1), 1)
    assert are_plausible(good * 3 + ZERO_TAG, NOW_S)
    assert not are_plausible(good * 3 + bad, NOW_S)
    assert not are_plausible(bad * 3, NOW_S)


@pytest.mark.parametrize(
    ("unix_time_s", "highest"),
    [
        (0.0, ALWAYS_PLAUSIBLE_EPOCH),
        (float(FIRST_EPOCH_S), ALWAYS_PLAUSIBLE_EPOCH),
        (FIRST_EPOCH_S + S_PER_EPOCH * (ALWAYS_PLAUSIBLE_EPOCH + 1.5), ALWAYS_PLAUSIBLE_EPOCH + 1),
        (1.8e9, 100_000_000 // 64),
        (END_OF_TIME_S, MAX_EPOCH),
    ],
)
def test_epochs_grow_with_the_clock_and_stay_within_their_bits(unix_time_s: float, highest: int) -> None:
    assert highest_plausible_epoch(unix_time_s) == highest
