"""To whom a node makes links: to each other member, and to nobody who has left. docs/configurations.md, "Joining"."""

from __future__ import annotations

import pytest

from dsreg.lines import TcpLines
from dsreg.link.destinations import Destinations
from dsreg.node.dialer import Dialer
from dsreg.node.links import Links
from dsreg.protocol.address import Address, Place
from dsreg.protocol.choosing import ConfigurationReport
from dsreg.protocol.codec import Bounds, Side, UnsealingDecoder
from dsreg.protocol.configuration import Configuration
from dsreg.protocol.greeting import Seals
from dsreg.protocol.life import Life
from dsreg.protocol.messages import AddressReport
from dsreg.register.assembly import node_hello
from dsreg.register.quorum import mask
from dsreg.testing.memory_files import keep_all
from tests.node.members_play import KEYS, OWN, THREE, TWO, Node, Wire, begun, report
from tests.node.test_joining import joiner

FOUR = Life(1, b"4" * 16)
PLACES = {rank: Place(f"node-{rank}", 1) for rank in range(1, 8)}
OLD, ALL = mask((1, 2, 3)), mask((1, 2, 3, 4, 5))
JOINT = Configuration(2, 64, OLD, ALL, ALL)


class Linked:
    """`listed`: the ranks in cluster.toml."""

    def __init__(self, node: Node, *listed: int, learns: bool = True) -> None:
        self.node = node
        self.destinations: dict[int, Destinations] = {}
        self.lines: dict[int, TcpLines] = {}

        def new_decoder(extended: bool) -> UnsealingDecoder:
            return UnsealingDecoder(KEYS, bounds=Bounds(64, {1, 2, 3, 4}), side=Side.NODE, extended=extended)

        def new_dialer(rank: int, lines: TcpLines, destinations: Destinations) -> Dialer:
            self.lines[rank], self.destinations[rank] = lines, destinations
            return Dialer(
                rank, lines, destinations, node.interpreter, node_hello(node.members.rank, 3, bytes(16), 1, 64),
                new_decoder, Seals(KEYS, lambda: bytes(32)), node.members, jitter=lambda: 1.0,
            )

        places = {rank: PLACES[rank] for rank in listed}
        self.links = Links(node.members.rank, places, node.members, new_dialer, learns=learns)
        node.members.on_reconfigured = self.links.reconfigured

    def told(self, configuration: Configuration) -> None:
        self.node.members.told(ConfigurationReport(0, False, configuration))

    def says_where(self, rank: int, life: Life) -> None:
        """The node says so itself, once it has shown its directory."""
        self.node.members.told(report(rank, life))
        self.node.members.addressing.told(AddressReport(rank, False, {rank: Address(life, 1, PLACES[rank])}))

    @property
    def ranks(self) -> set[int]:
        return set(self.links.dialers)


def test_links_are_made_to_those_that_the_file_lists_whether_they_are_members_or_not_yet() -> None:
    assert Linked(begun(), 1, 2, 3).ranks == {2, 3}
    linked = Linked(begun(), 1, 2, 6)
    assert linked.ranks == {2, 6}, "it is not known where 3 is"
    linked.says_where(3, THREE)
    assert linked.ranks == {2, 3, 6} and linked.destinations[3].preferred == PLACES[3]
    assert Linked(joiner(), 1, 2, 3, 4).ranks == {1, 2, 3}, "who decides it hears from them"


def test_a_new_member_is_connected_to_where_it_says_that_it_is() -> None:
    linked = Linked(begun(), 1, 2, 3)
    linked.says_where(4, FOUR)
    assert linked.ranks == {2, 3}, "it is none yet"
    linked.told(JOINT)
    assert linked.ranks == {2, 3, 4} and linked.destinations[4].preferred == PLACES[4]
    linked.says_where(5, Life(1, b"5" * 16))
    assert linked.ranks == {2, 3, 4, 5}


def test_who_keeps_to_its_file_does_not_connect_elsewhere() -> None:
    linked = Linked(begun(), 1, 2, 3, learns=False)
    linked.told(JOINT)
    linked.says_where(4, FOUR)
    assert linked.ranks == {2, 3}
    assert Linked(linked.node, 1, 2, 3, 4, learns=False).ranks == {2, 3, 4}


def test_where_a_member_is_is_known_after_a_restart() -> None:
    linked = Linked(begun(), 1, 2, 3)
    linked.told(JOINT)
    linked.says_where(4, FOUR)
    linked.node.now_s = linked.node.members.next_due
    linked.node.members.tick()
    again = Linked(Node(linked.node.files.crash(keep_all)), 1, 2, 3)
    assert again.ranks == {2, 3, 4}


def test_who_has_left_is_not_connected_to_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    node = begun()
    linked = Linked(node, 1, 2, 3)
    node.members.told(report(2, TWO, one=OWN))
    transport = Wire()
    monkeypatch.setattr(linked.lines[3], "transports", {1: transport})
    node.members.listens(transport, node=True, answer=False)  # type: ignore[arg-type]
    node.interpreter.link_up(3, transport, True)  # type: ignore[arg-type]
    linked.told(Configuration(3, 64, mask((1, 2)), 0, OLD))
    assert linked.ranks == {2}
    assert 3 not in node.interpreter._links
    transport.got.clear()
    node.members.tell_again(transport)  # type: ignore[arg-type]
    assert transport.got == [], "nor told anything"
    linked.says_where(3, THREE)
    assert linked.ranks == {2} and Linked(node, 1, 2, 3).ranks == {2}, "although the file lists it"


@pytest.mark.allow_logs("no member any more")
def test_who_has_left_itself_stays_connected_to_those_that_decide() -> None:
    linked = Linked(begun(), 1, 2, 3)
    linked.told(Configuration(3, 64, mask((2, 3)), 0, OLD))
    assert linked.ranks == {2, 3}
