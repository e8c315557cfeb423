"""How much a node heals at one time."""

from __future__ import annotations

import math

from dsreg.constants import MAX_RUN_SECTORS, SECTOR_SIZE
from dsreg.register.throttle import BUSY_S, BUSY_SECTORS, IDLE_SECTORS, Throttle


def test_much_while_nobody_wants_anything_and_little_while_somebody_does() -> None:
    throttle = Throttle()
    assert throttle.room(0, 5.0) == MAX_RUN_SECTORS
    assert throttle.room(IDLE_SECTORS - 1, 5.0) == MAX_RUN_SECTORS
    assert throttle.room(IDLE_SECTORS, 5.0) == 0
    throttle.client(5.0)
    assert throttle.room(0, 5.0) == BUSY_SECTORS < MAX_RUN_SECTORS
    assert throttle.room(1, 5.0) == 0
    assert throttle.pause_s(5.0) > 0 and throttle.chunks(5.0) < throttle.chunks(5.1 + BUSY_S)
    assert throttle.room(1, 5.1 + BUSY_S) == MAX_RUN_SECTORS and throttle.pause_s(5.1 + BUSY_S) == 0
    assert throttle.next_due(0, 5.0) < 5.0 and throttle.next_due(1, 5.0) == math.inf


def test_no_more_bytes_than_it_is_allowed() -> None:
    throttle = Throttle(100 * SECTOR_SIZE)
    now, fetched = 10.0, 0
    while now < 20.0:
        if throttle.room(0, now):
            throttle.asked(50, now)
            fetched += 50
        else:
            due = throttle.next_due(0, now)
            assert now < due <= now + 0.5
            now = due + 0.01  # whoever is woken up is so a little later, and it is still due then
            assert throttle.next_due(0, now) == due
    assert 980 <= fetched <= 1050


def test_the_rate_is_that_of_the_last_seconds() -> None:
    throttle = Throttle()
    for tenth in range(101):
        throttle.stored(10, tenth / 10)
    assert abs(throttle.rate(10.0) - 100 * SECTOR_SIZE) < 10 * SECTOR_SIZE
    assert throttle.rate(60.0) == 0.0
