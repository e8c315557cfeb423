"""Attachments whose machines are put back to an earlier state of their memory, under the interleavings, losses and
crashes of test_attachments: rule 11 of docs/attachments.md."""

from __future__ import annotations

from typing import Any

import pytest

from dsreg.protocol.messages import Ack, WriteProc
from dsreg.register import epochs
from dsreg.register.acceptor import Acceptor
from dsreg.register.effects import Persist, Reply
from dsreg.register.now import Now
from tests.register.test_attachments import is_found, run


@pytest.mark.parametrize("part", range(3))
def test_machines_that_are_put_back_to_an_earlier_state(part: int, seed: int) -> None:
    """Rule 11: what such a client writes is never acknowledged where there is something later of its own."""
    for number in range(60):
        assert run(seed + 100 * part + number, plain=False, restores=True) == []


@pytest.mark.pure
def test_a_write_that_meets_a_later_one_and_is_acknowledged_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rule 11."""
    monkeypatch.setattr(epochs, "is_overtaken", lambda tags, there: False)
    assert is_found(2000, plain=False, restores=True)


@pytest.mark.pure
def test_a_store_whose_peers_do_not_tell_that_it_is_overtaken_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rule 11, in the ACK: the coordinator has missed the later write."""
    monkeypatch.setattr(Acceptor, "write_proc", _acknowledging(Acceptor.write_proc))
    assert is_found(6000, plain=False, restores=True)


def _acknowledging(write_proc: Any) -> Any:
    def wrapped(self: Acceptor, origin: object, message: WriteProc, now: Now) -> list[Any]:
        return [_plain_ack(effect) for effect in write_proc(self, origin, message, now)]

    return wrapped


def _plain_ack(effect: Any) -> Any:
    if not isinstance(effect, Persist) or not isinstance(effect.then[-1], Reply):
        return effect
    answer = effect.then[-1]
    assert isinstance(answer.message, Ack)
    return effect._replace(then=(answer._replace(message=answer.message._replace(overtaken=False)),))
