"""SIGTERM and SIGINT at an edge: both ask for an end in order, which may take long."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import trio

log = logging.getLogger(__name__)


@contextmanager
def signals_to_answer() -> Iterator[AsyncIterator[int]]:
    """SIGTERM and SIGINT. Those that nobody has taken at the end are dropped: they ask for what has happened. Else trio
    would raise them again, and the process would die before everything is taken down."""
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        with trio.open_signal_receiver(*before) as signals:
            yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def say_what_is_left(signum: int, buffered_bytes: int) -> None:
    """Nothing is left that a signal could end but the writing back of a cache."""
    log.warning("%s: %d bytes are not written back yet, which needs a majority of the nodes. To end now and lose them: "
                "kill -9 %d", signal.Signals(signum).name, buffered_bytes, os.getpid())
