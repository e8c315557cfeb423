"""When a peer is taken for one that speaks only the contract, and when silence says nothing."""

from __future__ import annotations

import math

import pytest

from dsreg.register.foreign import ANSWER_S, HANG_UPS, ForeignPeers

pytestmark = pytest.mark.pure


def test_an_answer_to_the_contract_and_none_to_the_greeting_is_evidence() -> None:
    peers = ForeignPeers()
    peers.greeting(2, 0.0)
    peers.look(100.0)
    assert not peers.found and peers.next_due == math.inf  # it may be starting
    assert not peers.heard(2, 100.0)  # the greeting that is under way will do
    assert peers.next_due == 100.0 + ANSWER_S
    peers.look(100.0 + ANSWER_S / 2)
    assert not peers.found
    peers.look(100.0 + ANSWER_S)
    assert peers.found == {2} and peers.next_due == math.inf


def test_who_is_heard_first_is_greeted_and_then_has_time_to_answer() -> None:
    peers = ForeignPeers()
    assert peers.heard(2, 0.0) and peers.heard(2, 1.0)
    peers.greeting(2, 7.0)
    assert not peers.heard(2, 7.0) and peers.next_due == 7.0 + ANSWER_S
    peers.unanswered(2, 7.0 + ANSWER_S, hung_up=False)
    assert peers.found == {2} and not peers.heard(2, 8.0)


def test_a_peer_that_greets_after_all_is_no_foreign_one() -> None:
    peers = ForeignPeers()
    peers.heard(2, 0.0)
    peers.greeting(2, 0.0)
    peers.look(1.0)
    assert peers.found == {2}
    peers.greets(2)
    assert not peers.found
    peers.greeting(2, 2.0)
    peers.look(9.0)
    for _ in range(2 * HANG_UPS):
        peers.unanswered(2, 9.0, hung_up=True)
    assert not peers.found and not peers.heard(2, 10.0)


@pytest.mark.parametrize("is_heard", [True, False])
def test_hanging_up_is_evidence_only_of_one_that_was_heard(is_heard: bool) -> None:
    """A port where something else listens, or a node that is being started again and again, hangs up as well."""
    peers = ForeignPeers()
    if is_heard:
        peers.heard(2, 0.0)
    for number in range(1, 2 * HANG_UPS):
        peers.greeting(2, 0.0)
        peers.unanswered(2, 0.0, hung_up=True)
        assert (2 in peers.found) is (is_heard and number >= HANG_UPS)


def test_a_connection_that_is_kept_without_an_answer_is_no_hang_up() -> None:
    peers = ForeignPeers()
    peers.heard(2, 0.0)
    for _ in range(2 * HANG_UPS):
        peers.greeting(2, 0.0)
        peers.unanswered(2, ANSWER_S / 2, hung_up=False)
    assert not peers.found
