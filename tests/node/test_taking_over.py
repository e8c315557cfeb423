"""What a node learns before it votes for the later of two joint sets alone: docs/configurations.md, rules 6 and 7.

A node 1 with a real storage and interpreter, of 1 2 3 that become 1 2, or of 1 2 3 4 that become 1 2.
"""

from __future__ import annotations

import pytest

from dsreg.constants import NO_OWNER, NO_OWNER_ANY_MORE
from dsreg.node.interpreter import Connection
from dsreg.protocol.choosing import Answer, ConfigurationReport, Elect, Objection, Voted
from dsreg.protocol.codec import Bounds, Side, UnsealingDecoder
from dsreg.protocol.configuration import Ballot, Configuration
from dsreg.protocol.life import Life, Stage
from dsreg.protocol.messages import (
    FEATURE_CONFIGURATIONS,
    FEATURE_DIGESTS,
    FEATURE_LIVES,
    Command,
    DigestQuery,
    ReadProc,
    Response,
    Status,
    WriteProc,
    owner_of,
)
from dsreg.register.learned import has_taken_over
from dsreg.register.quorum import mask
from dsreg.testing.memory_files import MemoryFiles, drop_all
from tests.node.members_play import KEYS, OTHER, OWN, RANKS, THREE, TWO, Node, Wire, checked, report
from tests.protocol.values import data, tags
from tests.register.heal_play import Other

ALL = mask(RANKS)
FIRST = Configuration(1, 64, ALL, 0, ALL)
JOINT = Configuration(2, 64, ALL, mask((1, 2)), ALL)
LATER = Configuration(3, 64, mask((1, 2)), 0, ALL)
KEEPS = FEATURE_LIVES | FEATURE_CONFIGURATIONS | FEATURE_DIGESTS
BALLOT = Ballot(1, b"b" * 16)
A, B = owner_of(b"a" * 16, "a"), owner_of(b"b" * 16, "b")
LATER_LIFE = OTHER._replace(number=2)
NEW = tags((5, 2))


class Peer(Other):
    """Another node, its link from the node, and what it has promised."""

    def __init__(self, rank: int, life: Life) -> None:
        super().__init__(rank, 64)
        self.life = life
        self.wire = Wire()
        self.promise = 0, NO_OWNER


class Play:
    """Of a node with a directory; the joint configuration is in force here, and what `knows` names knows it as well."""

    def __init__(self, *knows: int, node: Node | None = None) -> None:
        self.node = node or _begun()
        self.peers = {2: Peer(2, TWO), 3: Peer(3, THREE)}
        for rank, peer in self.peers.items():
            self.node.members.told(report(rank, peer.life, one=OWN))
            self.node.interpreter.features[rank] = KEEPS
            self.node.interpreter.link_up(rank, peer.wire, True)  # type: ignore[arg-type]
        self.node.members.configuring.told(JOINT)
        for rank in knows:
            self.tells(rank)

    def tells(self, rank: int, *, by_link: bool = True) -> None:
        """It knows the joint configuration, and says what it has promised."""
        connection = None if by_link else Connection(self.peers[rank].wire)  # type: ignore[arg-type]
        told = ConfigurationReport(rank, by_link, JOINT, *self.peers[rank].promise)
        self.node.members.told(told, connection)

    def answer(self, *ranks: int) -> None:
        """All that these are asked, and what is asked because of that."""
        asked = True
        while asked:
            asked = False
            self.node.interpreter.end_turn()
            for rank in ranks:
                peer = self.peers[rank]
                questions, peer.wire.got = peer.wire.got, []
                for question in questions:
                    if isinstance(question, DigestQuery | ReadProc):
                        asked = True
                        self.node.interpreter.message(None, peer.answer(question, self.node.storage.epoch))
            self.node.commit()

    def starts_again(self) -> None:
        """Node 2 has a new directory, and tells all that it has."""
        self.node.members.told(report(2, LATER_LIFE, one=OWN))
        self.node.interpreter.link_up(2, self.peers[2].wire, True)  # type: ignore[arg-type]
        self.answer(2)
        assert self.node.interpreter.heal.told() == mask((1, 2))

    def later(self, seconds: float) -> None:
        self.node.now_s += seconds
        self.node.interpreter.tick()

    def vote(self) -> Answer:
        answer = self.node.members.configuring.asked(Elect(JOINT, BALLOT, LATER))
        self.node.interpreter.end_turn()
        return answer

    def has_voted(self) -> bool:
        answer = self.vote()
        if not isinstance(answer, Voted):
            assert isinstance(answer, Objection) and "does not have all data yet" in answer.reason
        return isinstance(answer, Voted)


def _begun() -> Node:
    node = Node(MemoryFiles())
    node.storage.lives.begin()
    return Node(node.files.crash(drop_all))


# --- data ---------------------------------------------------------------------------------------------
def test_it_votes_once_what_a_majority_of_the_earlier_set_has_is_here_durably() -> None:
    play = Play(2, 3)
    play.peers[2].have(7, NEW, data(9))
    assert not play.has_voted()
    play.answer(2)
    assert play.node.storage.tags(7, 1) == NEW
    assert play.has_voted()
    assert Node(play.node.files.crash(drop_all)).storage.tags(7, 1) == NEW


def test_what_was_told_before_the_joint_configuration_does_not_count() -> None:
    node, peer = _begun(), Peer(2, TWO)
    node.members.told(report(2, TWO, one=OWN))
    node.interpreter.features[2] = KEEPS
    node.interpreter.link_up(2, peer.wire, True)  # type: ignore[arg-type]
    node.interpreter.end_turn()
    [question] = [each for each in peer.wire.got if isinstance(each, DigestQuery)]
    node.interpreter.message(None, peer.answer(question))
    assert node.interpreter.heal.told() == mask((1, 2)), "it was in sync under number 1"
    node.members.configuring.told(JOINT)
    assert node.interpreter.heal.told() == mask((1,))


def test_what_is_on_its_way_to_the_disk_is_not_here_yet() -> None:
    play = Play(2, 3)
    play.peers[2].have(7, NEW, data(9))
    play.node.interpreter.message(_from(play, 2), WriteProc(2, 1, 7, 1, NEW, data(9)))
    commit = play.node.storage.next_commit()
    assert commit is not None
    for _ in range(3):
        _answer_once(play, 2)
    assert play.node.storage.latest_tags(7, 1) == NEW and play.node.storage.tags(7, 1) != NEW
    assert not play.has_voted(), "a crash would take it back"
    commit.run()
    play.node.interpreter.committed(play.node.storage.finish_commit(commit))
    play.later(0.6)
    assert play.has_voted()


def _from(play: Play, rank: int) -> Connection:
    connection = Connection(Wire())  # type: ignore[arg-type]
    connection.shown = rank
    return connection


def _answer_once(play: Play, rank: int) -> None:
    play.node.interpreter.end_turn()
    peer = play.peers[rank]
    questions, peer.wire.got = peer.wire.got, []
    for question in questions:
        if isinstance(question, DigestQuery | ReadProc):
            play.node.interpreter.message(None, peer.answer(question))


@pytest.mark.allow_logs("no space")
def test_what_was_refused_on_its_way_to_the_disk_is_fetched() -> None:
    play = Play(2, 3)
    play.peers[2].have(7, NEW, data(9))
    play.node.interpreter.message(_from(play, 2), WriteProc(2, 1, 7, 1, NEW, data(9)))
    play.node.files.capacity = 0
    for _ in range(3):
        _answer_once(play, 2)
    assert play.node.storage.latest_tags(7, 1) == NEW
    play.node.commit()
    assert play.node.storage.latest_tags(7, 1) != NEW
    play.later(0.6)
    assert not play.has_voted()
    play.node.files.capacity = None
    for _ in range(12):
        play.later(1.0)
        play.answer(2, 3)
    assert play.has_voted() and play.node.storage.tags(7, 1) == NEW


def test_one_that_does_not_know_all_itself_has_not_told_all() -> None:
    play = Play(2, 3)
    play.peers[2].storage.begin_unknown()
    play.answer(2)
    assert not play.has_voted()
    play.peers[2].storage.learning.learned(0, 64)
    play.later(6.0)  # as it was asked for its vote, it compares again soon
    play.answer(2)
    assert play.has_voted()


def test_its_own_copy_must_be_whole() -> None:
    play = Play(2, 3)
    play.peers[2].have(7, NEW, data(9))
    play.answer(2)
    assert play.has_voted()
    learns = _begun()
    learns.storage.learning.begin()
    learns = Node(learns.files.crash(drop_all))
    learning = Play(2, 3, node=learns)
    for _ in range(3):
        learning.answer(2)
        learning.later(1.0)
    assert learning.node.storage.learning.left and not learning.has_voted()


def test_what_a_lost_directory_has_told_does_not_count_any_more() -> None:
    play = Play(2, 3)
    play.answer(2)
    play.node.members.told(report(3, THREE, one=OWN, two=OTHER._replace(number=2)))
    assert not play.has_voted()
    play.answer(3)
    assert play.has_voted(), "this one and node 3 are enough"


def test_enough_is_a_majority_also_where_fewer_meet_each_majority() -> None:
    four = Configuration(2, 64, mask((1, 2, 3, 4)), mask((1, 2)), mask((1, 2, 3, 4)))
    assert not has_taken_over(four, 1, mask((1, 2)), (2,))
    assert has_taken_over(four, 1, mask((1, 2, 3)), (2, 3))
    assert not has_taken_over(four, 1, mask((1, 2, 3)), (2, 4)), "neither data nor promises alone"
    assert not has_taken_over(four, 1, 0, (2, 3, 4)), "its own copy is not whole"
    other = four._replace(joining=mask((1, 5)), used=mask((1, 2, 3, 4, 5)))
    assert not has_taken_over(other, 5, mask((1, 2, 5)), (1, 2)), "who is new does not count"
    assert has_taken_over(other, 5, mask((1, 2, 3, 5)), (1, 2, 3))


# --- the promise --------------------------------------------------------------------------------------
def test_it_promises_what_they_have_promised_before_it_votes() -> None:
    play = Play()
    play.peers[2].promise = 5, A
    play.tells(2)
    play.answer(2)
    assert not play.has_voted(), "the promise is not durable yet"
    play.node.commit()
    assert (play.node.storage.epoch, play.node.storage.owner) == (5, A)
    assert play.has_voted()
    again = Node(play.node.files.crash(drop_all))
    assert (again.storage.epoch, again.storage.owner) == (5, A)


def test_as_long_as_members_were_never_changed_it_follows_nobody() -> None:
    node = checked(_begun())
    node.interpreter.link_up(2, Peer(2, TWO).wire, True)  # type: ignore[arg-type]
    node.members.told(ConfigurationReport(2, True, FIRST, 5, A))
    assert node.interpreter.replica.epochs.promise == (0, NO_OWNER)


def test_it_follows_a_newer_epoch_as_soon_as_it_is_told_and_its_owner_may_attach() -> None:
    play = Play()
    play.peers[2].promise = 5, A
    play.tells(2, by_link=False)
    assert play.node.interpreter.replica.epochs.promise == (0, NO_OWNER)
    play.tells(2)
    assert play.node.interpreter.replica.epochs.promise == (5, NO_OWNER)
    play.node.commit()
    assert (play.node.storage.epoch, play.node.storage.owner) == (5, NO_OWNER)
    wire = _ClientWire()
    play.node.members.listens(wire, node=False, answer=True, features=KEEPS)  # type: ignore[arg-type]
    play.node.interpreter.command(Connection(wire), Command.attach(1, 5, A))  # type: ignore[arg-type]
    play.node.commit()
    assert [each.status for each in wire.got if isinstance(each, Response)] == [Status.OK]


def test_without_a_promise_of_those_that_told_their_data_it_does_not_vote() -> None:
    play = Play()
    play.answer(2)
    play.tells(3)
    assert not play.has_voted()
    play.tells(2, by_link=False)
    assert not play.has_voted(), "who has made that connection is not known for sure"
    play.tells(2)
    assert play.has_voted()


def test_a_promise_that_was_told_under_an_earlier_number_does_not_count() -> None:
    play = Play()
    play.node.members.told(ConfigurationReport(2, True, JOINT._replace(number=1, joining=0)))
    play.answer(2)
    assert not play.has_voted()


def test_a_promise_belongs_to_the_directory_of_who_has_told_it() -> None:
    play = Play(2)
    play.starts_again()
    assert not play.has_voted(), "its new directory may have promised more"
    play.tells(2)
    assert play.has_voted()


def test_who_has_not_started_promises_nothing_yet() -> None:
    play = Play()
    play.node.members.told(report(2, LATER_LIFE, Stage.CLAIMING, one=OWN))
    play.tells(2)
    play.starts_again()
    assert not play.has_voted()
    play.tells(2)
    assert play.has_voted()


@pytest.mark.allow_logs("node . is neither")
def test_told_two_owners_of_one_epoch_it_lets_nobody_attach_in_it() -> None:
    play = Play()
    wire = _ClientWire()
    play.node.members.listens(wire, node=False, answer=True, features=KEEPS)  # type: ignore[arg-type]
    connection = Connection(wire)  # type: ignore[arg-type]
    play.node.interpreter.command(connection, Command.attach(1, 5, B))
    play.node.commit()
    play.peers[2].promise = 5, A
    play.tells(2)
    play.answer(2)
    assert not play.has_voted()
    play.node.commit()
    assert play.has_voted() and play.node.storage.owner == NO_OWNER_ANY_MORE
    for request, owner in enumerate((A, B), 2):
        play.node.interpreter.command(connection, Command.attach(request, 5, owner))
    play.node.interpreter.end_turn()
    assert [each.status for each in wire.got if isinstance(each, Response)] == [
        Status.OK, Status.FENCED, Status.FENCED,
    ]


class _ClientWire(Wire):
    def put(self, buffers: object) -> None:
        decoder = UnsealingDecoder(KEYS, bounds=Bounds(64, frozenset()), side=Side.CLIENT, extended=True)
        self.got += decoder.feed(b"".join(buffers))  # type: ignore[arg-type]
