"""The program behind the figures in docs/performance.md measures real operations."""

from __future__ import annotations

from dsreg.protocol.messages import Command, CommandKind, Status
from scripts.hops import VALUE, Trio, cost_us


def test_the_three_wired_replicas_keep_what_is_written() -> None:
    three = Trio()
    tags = three.run(Command(CommandKind.TAG, 1, 7, 1, extended=True)).tags
    assert three.run(Command(CommandKind.STORE, 2, 7, 1, tags, VALUE, True)).status is Status.OK
    assert three.run(Command(CommandKind.READ, 3, 7, 1, extended=True)).data == VALUE


def test_cost_is_per_call() -> None:
    calls = 0

    def call() -> None:
        nonlocal calls
        calls += 1

    assert cost_us(call, 10) >= 0
    assert calls == 60
