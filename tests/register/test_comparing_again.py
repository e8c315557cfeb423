"""A node compares with another one again once that has a link to it: what it coordinated before was not sent here."""

from __future__ import annotations

from dsreg.protocol.messages import DigestQuery, Digests
from dsreg.register.effects import Reply
from tests.register.heal_play import LAST, NEW, Play

VALUE = bytes(4096)


def asks(play: Play, rank: int, connection: str) -> None:
    """That node asks for digests, over this connection."""
    effects = play.take(play.heal.message(connection, DigestQuery(rank, 77, 0, 3), play.at()))
    assert isinstance(effects[0], Reply) and isinstance(effects[0].message, Digests)


def test_what_was_missed_before_the_other_had_a_link_is_fetched() -> None:
    play = Play(2, 3)
    play.to_the_end()
    play.have(LAST, NEW, VALUE, 2)  # node 2 has coordinated it, and had no link to this node
    assert play.in_sync(2) and play.asked == []
    asks(play, 2, "a link of node 2")
    assert not play.in_sync(2) and play.in_sync(3)
    play.to_the_end()
    assert play.tag(LAST) == NEW and play.in_sync(2)


def test_over_the_same_link_it_is_not() -> None:
    play = Play(2)
    play.to_the_end()
    asks(play, 2, "a link of node 2")
    play.to_the_end()
    asks(play, 2, "a link of node 2")
    assert play.in_sync(2) and play.asked == []
    asks(play, 2, "another one")
    assert not play.in_sync(2) and len(play.asked) == 1


def test_with_whom_it_has_no_link_itself_it_compares_when_it_has() -> None:
    play = Play(2)
    play.to_the_end()
    asks(play, 3, "a link of node 3")
    assert play.asked == []
    play.link(3)
    play.to_the_end()
    assert play.in_sync(3)
