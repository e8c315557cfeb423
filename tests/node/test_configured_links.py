"""What the link to another node does with answers, by the configuration that it tells over it: what the machine of the
link decides (tests/link) is done to a node with a real storage and interpreter."""

from __future__ import annotations

import pytest

from dsreg.link.destinations import Destinations
from dsreg.link.effects import Deliver, Introduce, LinkUp, Told
from dsreg.node.dialer import Dialer
from dsreg.protocol.address import Place
from dsreg.protocol.choosing import ConfigurationReport
from dsreg.protocol.codec import Bounds, Side, UnsealingDecoder
from dsreg.protocol.greeting import Seals
from dsreg.protocol.messages import Ack, Message
from dsreg.register.assembly import node_hello
from tests.node.members_play import KEYS, RANKS, Node, Wire, begun
from tests.node.test_configuring import FIRST, JOINT, KEEPS, TWO_LEFT

ANSWER = Ack(2, 5, 0, 1)


class Link:
    """From the node 1 to the node 2."""

    peer = "node 2"

    def __init__(self, node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
        self.taken: list[Message] = []
        self.transports: dict[int, Wire] = {}
        self._line = 0
        monkeypatch.setattr(node.interpreter, "message", lambda origin, message: self.taken.append(message))

        def new_decoder(extended: bool) -> UnsealingDecoder:
            return UnsealingDecoder(KEYS, bounds=Bounds(64, frozenset(RANKS)), side=Side.NODE, extended=extended)

        self.dialer = Dialer(
            2, self, Destinations(Place("two", 1)), node.interpreter,  # type: ignore[arg-type]
            node_hello(1, 3, bytes(16), 1, 64), new_decoder, Seals(KEYS, lambda: bytes(32)), node.members,
            jitter=lambda: 1.0,
        )

    def wake_at(self, due_s: float) -> None:
        """Nothing here waits for the time."""

    def connected(self, *, extended: bool = True) -> None:
        self._line += 1
        self.transports = {self._line: Wire()}
        if extended:
            self.dialer.driver.carry_out([Introduce(self._line, KEEPS)])
        self.dialer.driver.carry_out([LinkUp(self._line, extended)])

    def tells(self, configuration: object) -> None:
        self.dialer.driver.carry_out([Told(ConfigurationReport(2, True, configuration))])  # type: ignore[arg-type]

    def counts_answers(self) -> bool:
        self.taken.clear()
        self.dialer.driver.carry_out([Deliver(self._line, [ANSWER])])
        return self.taken == [ANSWER]


def test_answers_of_one_number_only_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    node = begun()
    link = Link(node, monkeypatch)
    link.connected()
    assert link.counts_answers(), "it is of an older version, as far as is known"
    link.tells(FIRST)
    assert link.counts_answers()
    node.members.configuring.told(JOINT)
    assert not link.counts_answers(), "it was given under the first one"
    link.tells(JOINT)
    assert link.counts_answers()
    link.tells(TWO_LEFT)
    assert link.counts_answers() and node.members.configuring.current == TWO_LEFT, "this node has heard by that"


@pytest.mark.parametrize("extended", [True, False])
def test_what_was_told_over_another_connection_does_not_count(monkeypatch: pytest.MonkeyPatch, extended: bool) -> None:
    node = begun()
    link = Link(node, monkeypatch)
    link.connected()
    link.tells(JOINT)
    assert link.counts_answers()
    link.connected(extended=extended)
    assert not link.counts_answers()
    if extended:
        link.tells(JOINT)
        assert link.counts_answers()


@pytest.mark.allow_logs("no space to record which nodes")
def test_who_cannot_record_what_it_is_told_does_not_count_answers_of_that(monkeypatch: pytest.MonkeyPatch) -> None:
    node = begun()
    link = Link(node, monkeypatch)
    link.connected()
    node.files.capacity = node.files.used()
    link.tells(JOINT)
    assert not link.counts_answers()
    node.files.capacity = None
    link.tells(JOINT)
    assert link.counts_answers()


def test_who_knows_another_one_of_the_same_number_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    node = begun()
    link = Link(node, monkeypatch)
    link.connected()
    link.tells(FIRST._replace(ranks=14 | 16, used=14 | 16))
    assert not link.counts_answers() and node.members.configuring.current == FIRST


def test_a_link_that_has_ended_does_not_come_up_again(monkeypatch: pytest.MonkeyPatch) -> None:
    node = begun()
    ups: list[int] = []
    monkeypatch.setattr(node.interpreter, "link_up", lambda rank, transport, extended: ups.append(rank))
    link = Link(node, monkeypatch)
    link.connected()
    assert ups == [2]
    link.dialer.ended(link.transports.values())  # type: ignore[arg-type]
    link.connected()
    node.members.configuring.told(JOINT)
    told = [message for message in link.transports[2].got if isinstance(message, ConfigurationReport)]
    assert ups == [2] and not told
