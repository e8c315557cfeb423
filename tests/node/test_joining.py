"""A node that is made a member of a cluster that is there, and one that is made to leave: what it waits for, what it
never takes for the first configuration, and what it does once it is none. docs/configurations.md, "Joining".

With a real storage and interpreter.
"""

from __future__ import annotations

import logging

import pytest

from dsreg.constants import SECTOR_SIZE
from dsreg.errors import ChangedDirectory, WrongDirectory
from dsreg.link.accepted_line import LINE
from dsreg.link.effects import Take
from dsreg.node.interpreter import Connection
from dsreg.node.server import Server
from dsreg.protocol.choosing import Ask, ConfigurationReport, Objection
from dsreg.protocol.codec import Bounds, Side, UnsealingDecoder
from dsreg.protocol.configuration import Ballot, Configuration
from dsreg.protocol.greeting import Seals
from dsreg.protocol.life import Life, Stage
from dsreg.protocol.messages import Command, CommandKind, LivesReport, Message, Status
from dsreg.register.assembly import node_hello
from dsreg.register.quorum import mask
from dsreg.storage import Identity
from dsreg.testing.memory_files import MemoryFiles, drop_all
from tests.node.members_play import KEYS, OTHER, OWN, THREE, TWO, Node, Wire, begun, checked
from tests.node.test_configuring import ClientWire, statuses, told_by
from tests.simulation.leftovers import left_in_node

# What follows from being told that it is one, also as the beginning of a play.
pytestmark = pytest.mark.allow_logs("is a member now")

ONE = Life(1, b"1" * 16)
LISTED = (1, 2, 3, 4)
FOUR = Identity(bytes(16), 4, LISTED, 64)
OLD, NEW = mask((1, 2, 3)), mask(LISTED)
FIRST = Configuration(1, 64, OLD, 0, OLD)
JOINT = Configuration(2, 64, OLD, NEW, NEW)
GROWN = Configuration(3, 64, NEW, 0, NEW)
BACK = Configuration(3, 64, OLD, 0, NEW)
LIVES = {1: ONE, 2: TWO, 3: THREE}


def joiner(files: MemoryFiles | None = None, *, joins: bool = True, new: bool = False, rejoin: bool = False) -> Node:
    return Node(MemoryFiles() if files is None else files, whose=FOUR, joins=joins, new=new, rejoin=rejoin)


def told_lives(node: Node, rank: int, own: Life | None = None) -> None:
    """That node says what it knows, of this one as well if `own` is given."""
    known = {other: life for other, life in LIVES.items() if other != rank} | ({} if own is None else {4: own})
    node.members.told(LivesReport(rank, True, Stage.STARTED, LIVES[rank], known))


def told(node: Node, configuration: Configuration, rank: int = 0) -> None:
    node.members.told(ConfigurationReport(rank, True, configuration))


def starts(node: Node) -> bool:
    """All the others say that they know its directory; whether it begins to serve."""
    for rank in LIVES:
        told_lives(node, rank)
    for rank in LIVES:
        told_lives(node, rank, node.storage.lives.own)
    return node.members.stage is Stage.STARTED and node.interpreter.started


@pytest.mark.allow_logs("waits until it is made a member")
def test_it_waits_to_be_told_whatever_its_file_lists() -> None:
    for new in (False, True):
        node = joiner(new=new)
        node.now_s += 60
        node.members.tick()
        assert not starts(node) and node.members.stage is Stage.ASKING
        assert node.members.waits_for() == "node 4 waits until it is made a member of the cluster"
        again = joiner(node.files.crash(drop_all), joins=False, new=new)
        assert not starts(again), "the directory keeps it in mind"


def test_nor_does_it_tell_one_or_vote() -> None:
    node = joiner()
    wire = Wire()
    node.members.listens(wire, node=True, answer=True, features=0xFFFFFFFF)  # type: ignore[arg-type]
    assert told_by(wire) == []
    told(node, FIRST)
    assert told_by(wire) == [FIRST]
    answer = node.members.configuring.asked(Ask(FIRST, Ballot(1, b"b" * 16)))
    assert isinstance(answer, Objection) and "not started" in answer.reason


@pytest.mark.allow_logs("waits until it is made a member")
def test_while_it_waits_nothing_is_due() -> None:
    node = joiner()
    node.members.heard_contract(1)
    node.members.greeting(1)  # which does not answer, as a node that speaks only the contract
    node.now_s += 60
    node.members.tick()
    assert node.members.next_due > node.now_s


def test_one_in_which_it_is_no_member_does_not_let_it_start() -> None:
    node = joiner()
    told(node, FIRST)
    assert not starts(node) and "nodes 1 2 3" in node.members.waits_for()
    again = joiner(node.files.crash(drop_all), joins=False)
    assert again.members.configuring.current == FIRST and not starts(again)
    told(again, JOINT)
    assert starts(again)


def test_it_says_once_that_it_has_become_a_member(caplog: pytest.LogCaptureFixture) -> None:
    """Who starts it by hand waits for that, or for the line that it waits: it may be too late for that one."""
    node = joiner()
    told(node, FIRST)
    assert not caplog.records
    told(node, JOINT)
    told(node, GROWN)
    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == [
        "node 4 is a member now: configuration 2 has nodes 1 2 3 joint with 1 2 3 4"]


@pytest.mark.parametrize("configuration", [JOINT, GROWN])
def test_it_begins_once_it_is_told_of_one_with_it_and_nobody_knows_its_rank(configuration: Configuration) -> None:
    node = joiner()
    told(node, configuration)
    assert not node.interpreter.started
    assert starts(node)
    assert node.members.configuring.current == configuration
    later = checked(joiner(node.files.crash(drop_all), joins=False))
    assert later.members.configuring.current == configuration


def test_as_many_must_say_that_its_rank_is_new_as_meet_every_majority_of_each_set() -> None:
    five = NEW | mask((5,))
    for configuration, needed in ((JOINT, 2), (Configuration(2, 64, OLD, five, five), 3), (GROWN, 2)):
        node = joiner()
        told(node, configuration)
        for own, stage in ((None, Stage.ASKING), (OWN, Stage.CLAIMING)):
            for rank in range(1, needed):
                told_lives(node, rank, own)
                assert node.members.stage is stage
            told_lives(node, needed, own)
        assert node.members.stage is Stage.STARTED


def test_a_rank_that_somebody_knows_by_another_directory_is_not_new_join_or_not() -> None:
    node = joiner()
    told(node, JOINT)
    with pytest.raises(ChangedDirectory, match="--rejoin"):
        told_lives(node, 2, OTHER)


def test_it_does_not_begin_with_a_rank_that_was_taken_back() -> None:
    node = joiner()
    told(node, BACK)
    assert not starts(node) and "it can only be stopped" in node.members.waits_for()


def test_an_empty_directory_with_another_list_than_the_cluster_was_made_with_does_not_begin() -> None:
    node = joiner(joins=False)
    assert node.members.configuring.current.number == 1
    with pytest.raises(WrongDirectory, match="--join"):
        told(node, FIRST, rank=2)
    told(joiner(joins=False), FIRST)  # a client may not end it
    node = joiner(joins=False)
    told(node, JOINT, rank=2)
    assert starts(node), "which is what the cluster says, not its file"


def test_one_that_has_begun_is_not_ended_by_another_list_and_counts_nobody_who_has_one() -> None:
    node = begun()
    other = Configuration(1, 64, NEW, 0, NEW)
    told(node, other, rank=2)
    assert node.members.configuring.current == FIRST and node.members.configuring.is_another(other)


# --- leaving --------------------------------------------------------------------------------------------
class Served:
    """A client's connection to the node."""

    def __init__(self, node: Node) -> None:
        def new_decoder(extended: bool) -> UnsealingDecoder:
            return UnsealingDecoder(KEYS, bounds=Bounds(64, {1, 2, 3}), side=Side.NODE, extended=extended)

        self.wire = ClientWire()
        self._server = Server(
            node.interpreter, node_hello(1, 3, bytes(16), 1, 64), new_decoder, lambda: b"{}",
            Seals(KEYS, lambda: bytes(32)), node.members,
        )
        self.connection = Connection(self.wire)  # type: ignore[arg-type]
        node.members.listens(self.wire, node=False, answer=True, features=0xFFFFFFFF)  # type: ignore[arg-type]

    def ask(self, message: Message) -> None:
        self._server.carry_out(self.connection, self._server.new_line(), Take(LINE, message))


@pytest.mark.allow_logs("no member any more")
def test_who_has_left_says_so_and_serves_nobody(caplog: pytest.LogCaptureFixture) -> None:
    node = begun()
    served = Served(node)
    served.ask(Command.get(1, 0, 1))
    assert statuses(served.wire) == [Status.OK]
    told(node, Configuration(3, 64, mask((2, 3)), 0, OLD))
    assert "node 1 is no member any more: configuration 3 has nodes 2 3" in caplog.text
    assert node.members.configuring.report()["is_member"] is False
    served.ask(Command.get(2, 0, 1))
    served.ask(Command(CommandKind.TAG, 3, 0, 1, b"", b"", True))
    assert statuses(served.wire) == [Status.OK, Status.STOPPING, Status.STOPPING] and not served.wire.closed
    served.ask(Command(CommandKind.WRITE, 4, 0, 1, b"", bytes(SECTOR_SIZE)))
    assert served.wire.closed, "a client of the contract tries another node"
    caplog.clear()
    Node(node.files.crash(drop_all))
    assert "no member any more" in caplog.text, "also when it is started again"


@pytest.mark.allow_logs("no member any more")
def test_what_was_under_way_is_seen_through() -> None:
    node = begun()
    served = Served(node)
    served.ask(Command(CommandKind.TAG, 3, 0, 1, b"", b"", True))
    assert node.interpreter.unfinished == 1
    told(node, Configuration(3, 64, mask((2, 3)), 0, OLD))
    assert node.interpreter.unfinished == 1 and node.interpreter.replica.unfinished() == 1


@pytest.mark.allow_logs("no member any more")
def test_what_waits_for_it_to_serve_is_refused_once_it_has_left() -> None:
    """It was started again, and does not know yet whether its directory is an older state of itself."""
    first = Node(MemoryFiles())
    first.storage.lives.begin()
    node = Node(first.files.crash(drop_all))
    assert not node.interpreter.started
    served, contract = Served(node), Served(node)
    served.ask(Command.attach(1, 0, b""))
    served.ask(Command.get(2, 0, 1))
    served.ask(Command(CommandKind.TAG, 3, 0, 1, b"", b"", True))
    contract.ask(Command(CommandKind.WRITE, 4, 0, 1, b"", bytes(SECTOR_SIZE)))
    contract.ask(Command(CommandKind.WRITE, 5, 0, 1, b"", bytes(SECTOR_SIZE)))
    node.interpreter.replica.repairs.want(7, 1)
    node.interpreter.tick()
    assert node.interpreter.unfinished == 5 and not statuses(served.wire)
    told(node, Configuration(3, 64, mask((2, 3)), 0, OLD), rank=2)
    assert statuses(served.wire) == [Status.STOPPING] * 3 and not served.wire.closed
    assert contract.wire.closed
    assert left_in_node(node.interpreter, [served.connection, contract.connection]) == {}


# --- an empty directory of a rank that has left ---------------------------------------------------
LEFT = Configuration(5, 64, OLD, 0, NEW)


def hears_from(node: Node, rank: int, configuration: Configuration) -> None:
    """Over an accepted connection, of a node that keeps configurations: first of lives, then of those."""
    connection, _ = node.accept()
    node.members.configuring.listens(connection.transport, node.members.rank, True)
    known = {other: life for other, life in LIVES.items() if other != rank} | {4: OTHER}
    node.members.told(LivesReport(rank, False, Stage.STARTED, LIVES[rank], known), connection)
    node.members.told(ConfigurationReport(rank, False, configuration), connection)


@pytest.mark.allow_logs("is no member any more")
@pytest.mark.parametrize("rejoin", [False, True])
@pytest.mark.parametrize("joins", [False, True])
def test_it_is_said_that_its_rank_has_left_and_not_that_it_should_rejoin(rejoin: bool, joins: bool) -> None:
    node = joiner(joins=joins, rejoin=rejoin)
    with pytest.raises(WrongDirectory, match=r"rank 4 has left the cluster, and is never used again: configuration 5 "
                                             r"has nodes 1 2 3\. Do not start this node any more"):
        hears_from(node, 1, LEFT)
    again = joiner(node.files.crash(drop_all), joins=joins, rejoin=rejoin)
    with pytest.raises(WrongDirectory, match="rank 4 has left the cluster"):
        hears_from(again, 2, LEFT)


def test_one_of_a_member_is_said_to_be_lost_as_ever() -> None:
    with pytest.raises(ChangedDirectory, match="start this node with an empty directory|start this node with --rejoin"):
        hears_from(joiner(joins=False), 1, GROWN._replace(number=5))
    node = joiner(joins=False, rejoin=True)
    hears_from(node, 1, GROWN._replace(number=5))
    assert "rejoins" in node.members.waits_for()
