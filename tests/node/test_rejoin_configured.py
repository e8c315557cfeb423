"""A node that rejoins takes over the configuration that others know, and how they have voted: docs/configurations.md,
rule 10. A real storage and interpreter.
"""

from __future__ import annotations

import pytest

from dsreg.node.interpreter import Connection
from dsreg.protocol.choosing import Ask, ConfigurationReport, Elect, Outbid, Promised, Voted
from dsreg.protocol.configuration import Ballot, Configuration, Record, Vote
from dsreg.protocol.life import Life, Stage
from dsreg.protocol.messages import FEATURE_CONFIGURATIONS, FEATURE_LIVES
from dsreg.register.quorum import mask
from dsreg.testing.memory_files import MemoryFiles, drop_all
from tests.node.members_play import OTHER, RANKS, THREE, TWO, Node, Wire, begun, checked, report
from tests.node.rejoin_play import KNOWN, acceptances, accepted_by, rejoining, told_by_both

LATER = Life(2, OTHER.store)
FIRST = Configuration(1, 64, mask(RANKS), 0, mask(RANKS))
JOINT = Configuration(2, 64, mask(RANKS), mask((1, 2)), mask(RANKS))
BALLOT = Ballot(3, b"b" * 16)
KEEPS = FEATURE_LIVES | FEATURE_CONFIGURATIONS

pytestmark = pytest.mark.allow_logs("rejoins")


def test_an_acceptance_carries_what_is_known_and_voted_for_to_those_that_keep_that() -> None:
    node = begun()
    keeps, deaf = Wire(), Wire()
    for wire, features in ((keeps, KEEPS), (deaf, 0)):
        node.members.listens(wire, node=True, answer=True, features=features)  # type: ignore[arg-type]
        node.members.told(report(2, LATER, Stage.CLAIMING), Connection(wire))  # type: ignore[arg-type]
        node.commit()
    assert [each.record for each in acceptances(keeps)] == [Record(FIRST)]
    assert [each.record for each in acceptances(deaf)] == [None]
    node.interpreter.features.update({2: KEEPS, 3: KEEPS})
    assert node.members.configuring.asked(Elect(FIRST, BALLOT, JOINT)) == Voted()
    for wire in (keeps, deaf):
        node.members.told(report(2, LATER, Stage.CLAIMING), Connection(wire))  # type: ignore[arg-type]
        node.commit()
    assert acceptances(keeps)[-1].record == Record(FIRST, BALLOT, Vote(BALLOT, JOINT))
    assert len(acceptances(deaf)) == 1, "it would not take over the vote"


def test_it_takes_over_what_its_acceptors_know_and_have_voted_for_before_it_starts() -> None:
    vote = Vote(BALLOT, JOINT._replace(number=3, ranks=JOINT.joining, joining=0))
    for record in (Record(FIRST, BALLOT, Vote(BALLOT, JOINT)), Record(JOINT), Record(JOINT, BALLOT, vote)):
        node = Node(MemoryFiles(), rejoin=True)
        link = Wire()
        node.members.listens(link, node=True, answer=False, features=KEEPS)  # type: ignore[arg-type]
        told_by_both(node)
        for rank, own in ((2, TWO), (3, THREE)):
            accepted_by(node, rank, own, record=record)
        node.commit()
        assert node.members.stage is Stage.STARTED
        assert Node(node.files.crash(drop_all)).storage.configuration.record == record
        started = next(at for at, each in enumerate(link.got) if getattr(each, "stage", None) is Stage.STARTED)
        known = [each.configuration for each in link.got[:started] if isinstance(each, ConfigurationReport)]
        assert known[-1] == record.current, "others hear of it before"


def test_it_votes_again_as_it_had_voted() -> None:
    node = rejoining()
    for rank, own in ((2, TWO), (3, THREE)):
        accepted_by(node, rank, own, record=Record(FIRST, BALLOT, Vote(BALLOT, JOINT)))
    node.commit()
    node.interpreter.features.update({2: KEEPS, 3: KEEPS})
    for again in (node, checked(Node(node.files.crash(drop_all)))):
        again.interpreter.features.update({2: KEEPS, 3: KEEPS})
        low, high = Ballot(0, b"z" * 16), Ballot(9, b"h" * 16)
        assert again.members.configuring.asked(Ask(FIRST, low)) == Outbid(BALLOT)
        if again is not node:
            assert again.members.configuring.asked(Ask(FIRST, high)) == Promised(Vote(BALLOT, JOINT))


def test_a_later_configuration_that_it_hears_of_meanwhile_stays_in_force() -> None:
    node = rejoining()
    for rank, own in ((2, TWO), (3, THREE)):
        accepted_by(node, rank, own, record=Record(FIRST, BALLOT))
    node.members.told(ConfigurationReport(3, True, JOINT))
    node.commit()
    assert node.members.stage is Stage.STARTED and node.storage.configuration.record == Record(JOINT)


@pytest.mark.allow_logs("no space to record which nodes")
def test_without_space_for_what_it_takes_over_it_does_not_start() -> None:
    node = rejoining()
    for rank, own in ((2, TWO), (3, THREE)):
        accepted_by(node, rank, own, record=Record(JOINT))
    commit = node.storage.next_commit()
    assert commit is not None
    commit.run()
    node.files.capacity = node.files.used()
    node.interpreter.committed(node.storage.finish_commit(commit))
    assert node.members.stage is Stage.CLAIMING
    node.files.capacity = None
    node.members.told(report(2, TWO, one=node.storage.lives.own, three=THREE))
    node.commit()
    assert node.members.stage is Stage.STARTED and node.storage.configuration.record == Record(JOINT)


def test_it_asks_as_many_as_the_configuration_that_it_hears_of_wants() -> None:
    node = Node(MemoryFiles(), rejoin=True)
    more = Configuration(2, 64, FIRST.ranks, mask((1, 2)), FIRST.ranks)
    node.members.told(report(2, TWO, one=KNOWN, three=THREE))
    assert node.members.stage is Stage.ASKING
    node.members.told(ConfigurationReport(2, True, more._replace(number=3, ranks=more.joining, joining=0)))
    assert node.members.stage is Stage.CLAIMING, "of 1 and 2 one is enough"
