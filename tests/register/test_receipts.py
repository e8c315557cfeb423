"""Receipts: a peer that does not bear them gets none."""

from __future__ import annotations

from dsreg.register.receipts import HANG_UP_S, HANG_UPS, PAUSE_S, Receipts


def hang_up(receipts: Receipts, now: float, after_s: float = 0.1) -> None:
    """The peer ends the next connection so long after the first receipt on it."""
    receipts.link_up()
    assert receipts.wanted(now)
    receipts.link_down(now + after_s)


def test_without_a_link_there_is_nothing_to_send() -> None:
    receipts = Receipts()
    assert not receipts.wanted(0.0)
    receipts.link_up()
    assert receipts.wanted(0.0)
    receipts.link_down(100.0)
    assert not receipts.wanted(100.0)


def test_who_hangs_up_on_them_gets_no_more_for_a_while() -> None:
    receipts = Receipts()
    for number in range(HANG_UPS):
        hang_up(receipts, float(number))
    receipts.link_up()
    assert not receipts.wanted(HANG_UPS + PAUSE_S - 2)
    assert receipts.wanted(HANG_UPS + PAUSE_S)
    receipts.link_down(HANG_UPS + PAUSE_S + 1.0)
    receipts.link_up()
    assert not receipts.wanted(HANG_UPS + PAUSE_S + 2.0), "once is enough this time"


def test_a_restart_now_and_then_is_no_hang_up() -> None:
    receipts = Receipts()
    for number in range(10 * HANG_UPS):
        hang_up(receipts, 100.0 * number, after_s=HANG_UP_S + 0.1 if number % 2 else 0.1)
    receipts.link_up()
    assert receipts.wanted(10_000.0)


def test_links_without_receipts_say_nothing() -> None:
    receipts = Receipts()
    hang_up(receipts, 0.0)
    for _ in range(10):
        receipts.link_up()
        receipts.link_down(1.0)
    receipts.link_up()
    assert receipts.wanted(2.0)
    receipts.link_down(2.1)
    receipts.link_up()
    assert not receipts.wanted(2.2), "the second hang-up in a row of those that say something"


def test_a_peer_that_works_for_long_has_hung_up_on_nothing_whenever_the_last_receipt_was() -> None:
    receipts = Receipts()
    for start in (0.0, 1000.0, 2000.0):
        receipts.link_up()
        for second in range(100):
            assert receipts.wanted(start + second)
        receipts.link_down(start + 99.0)
