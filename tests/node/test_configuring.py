"""Configurations at a node: what is durable before what is told, whom it believes, and how it votes.

The rules: docs/configurations.md. With a real storage and interpreter.
"""

from __future__ import annotations

import pytest

from dsreg.constants import SECTOR_SIZE
from dsreg.node.interpreter import Connection
from dsreg.protocol.choosing import (
    Answer,
    Ask,
    ConfigurationReport,
    Elect,
    Later,
    Objection,
    Outbid,
    Promised,
    Question,
    Voted,
)
from dsreg.protocol.codec import Bounds, Side, UnsealingDecoder
from dsreg.protocol.configuration import Ballot, Configuration, Vote
from dsreg.protocol.life import Stage
from dsreg.protocol.messages import (
    FEATURE_CONFIGURATIONS,
    FEATURE_LIVES,
    Ack,
    Command,
    LivesReport,
    ReadProc,
    Response,
    Status,
    Value,
    WriteProc,
    owner_of,
)
from dsreg.register.quorum import mask
from dsreg.testing.memory_files import MemoryFiles, drop_all
from tests.node.members_play import KEYS, OTHER, OWN, RANKS, THREE, TWO, Node, Wire, begun, checked, report

ALL = mask(RANKS)
FIRST = Configuration(1, 64, ALL, 0, ALL)
JOINT = Configuration(2, 64, ALL, mask((1, 2)), ALL)
TWO_LEFT = Configuration(3, 64, mask((1, 2)), 0, ALL)
KEEPS = FEATURE_LIVES | FEATURE_CONFIGURATIONS
OWNER = owner_of(b"a" * 16, "a")
LOW, HIGH = Ballot(1, b"l" * 16), Ballot(2, b"h" * 16)


def told_by(wire: Wire) -> list[Configuration]:
    return [message.configuration for message in wire.got if isinstance(message, ConfigurationReport)]


def listens(node: Node, features: int = KEEPS) -> Wire:
    wire = Wire()
    node.members.listens(wire, node=True, answer=True, features=features)  # type: ignore[arg-type]
    return wire


def started() -> Node:
    """That has heard of the others that they keep configurations."""
    node = begun()
    node.members.told(report(2, TWO, one=OWN))
    node.members.told(report(3, THREE, one=OWN))
    node.interpreter.features.update({2: KEEPS, 3: KEEPS})
    return node


def again(node: Node) -> Node:
    """After a crash."""
    later = checked(Node(node.files.crash(drop_all)))
    later.interpreter.features.update({2: KEEPS, 3: KEEPS})
    return later


def asked(node: Node, question: Question) -> Answer:
    return node.members.configuring.asked(question)


# --- what is told -------------------------------------------------------------------------------------
def test_it_is_told_behind_what_is_told_of_lives_and_by_its_rank() -> None:
    node = begun()
    wire = listens(node)
    lives, configuration = wire.got
    assert isinstance(lives, LivesReport) and configuration == ConfigurationReport(1, True, FIRST)
    assert told_by(listens(node, FEATURE_LIVES)) == []


def test_what_is_heard_is_durable_and_told_to_all_and_an_older_one_is_no_news() -> None:
    node = begun()
    wire = listens(node)
    node.members.told(ConfigurationReport(2, False, JOINT))
    assert told_by(wire) == [FIRST, JOINT] and node.members.configuring.current == JOINT
    node.members.told(ConfigurationReport(3, False, FIRST))
    assert told_by(wire) == [FIRST, JOINT]
    assert told_by(listens(again(node))) == [JOINT]


def test_it_is_durable_when_the_first_hears_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    node = begun()
    wire = listens(node)
    put = wire.put
    durable: list[Configuration] = []

    def putting(buffers: object) -> None:
        durable.append(Node(node.files.crash(drop_all)).members.configuring.current)
        put(buffers)  # type: ignore[arg-type]

    monkeypatch.setattr(wire, "put", putting)
    node.members.told(ConfigurationReport(2, False, JOINT))
    assert durable == [JOINT]


def test_other_nodes_are_told_what_is_promised_durably_and_clients_are_not() -> None:
    node = started()
    _, connection = client(node, KEEPS)
    node.interpreter.command(connection, Command.attach(1, 4, OWNER))
    assert listens(node).got[-1] == ConfigurationReport(1, True, FIRST)
    node.commit()
    assert listens(node).got[-1] == ConfigurationReport(1, True, FIRST, 4, OWNER)
    wire, _ = client(node, KEEPS)
    assert wire.got[-1] == ConfigurationReport(0, True, FIRST)


@pytest.mark.allow_logs("no space to record which nodes")
def test_without_space_it_is_neither_in_force_nor_told_until_there_is_some() -> None:
    node = begun()
    wire = listens(node)
    node.files.capacity = node.files.used()
    node.members.told(ConfigurationReport(2, False, JOINT))
    assert node.members.configuring.current == FIRST and told_by(wire) == [FIRST]
    answer = asked(node, Ask(JOINT, LOW))
    assert isinstance(answer, Objection) and "no space" in answer.reason
    node.files.capacity = None
    node.members.told(ConfigurationReport(2, False, JOINT))
    assert node.members.configuring.current == JOINT and told_by(wire) == [FIRST, JOINT]


def test_a_different_one_of_the_same_number_is_not_taken() -> None:
    node = begun()
    node.members.told(ConfigurationReport(2, False, FIRST._replace(sectors=65)))
    assert node.members.configuring.current == FIRST


# --- whose answers count ------------------------------------------------------------------------------
def test_answers_of_one_number_only_are_counted() -> None:
    configuring = begun().members.configuring
    assert configuring.is_same(0) and configuring.is_same(1) and not configuring.is_same(2)
    configuring.told(JOINT)
    assert configuring.is_same(2) and not any(configuring.is_same(number) for number in (0, 1, 3))


def test_who_does_not_tell_of_configurations_is_not_answered_once_there_is_a_second_one() -> None:
    node = begun()
    knows, deaf = listens(node), listens(node, FEATURE_LIVES)
    admits = node.members.configuring.admits
    questions = (ReadProc(2, 1, 0, 1), WriteProc(2, 1, 0, 1, bytes(16), bytes(SECTOR_SIZE)))
    answers = (Ack(2, 1, 0, 1), Value(2, 1, 0, 1, bytes(16), None))
    for wire in (knows, deaf):
        assert all(admits(wire, each) for each in (*questions, *answers))  # type: ignore[arg-type]
    node.members.told(ConfigurationReport(2, False, JOINT))
    assert all(admits(knows, each) for each in questions)  # type: ignore[arg-type]
    assert not any(admits(knows, each) for each in answers)  # type: ignore[arg-type]
    assert not any(admits(deaf, each) for each in (*questions, *answers))  # type: ignore[arg-type]
    node.members.left(knows)  # type: ignore[arg-type]
    assert not admits(knows, questions[0])  # type: ignore[arg-type]


def test_a_client_that_counts_and_knows_none_is_refused_also_for_what_it_asked_before() -> None:
    node = started()
    wire, connection = client(node, FEATURE_LIVES)
    other, told = client(node, KEEPS)
    for each in (connection, told):
        node.interpreter.command(each, Command.get(1, 0, 1))
    assert statuses(wire) == statuses(other) == [Status.OK]
    for each in (connection, told):
        node.interpreter.command(each, Command.attach(2, 1, b"o" * 64))  # its answer waits for the disk
    node.members.told(ConfigurationReport(2, False, JOINT))
    node.commit()
    assert statuses(wire) == [Status.OK, Status.UNSUPPORTED] and statuses(other) == [Status.OK, Status.OK]
    assert not node.members.may_count(wire) and node.members.may_count(other)  # type: ignore[arg-type]
    later = again(node)
    wire, connection = client(later, FEATURE_LIVES)
    assert not later.members.may_count(wire)  # type: ignore[arg-type]


class ClientWire(Wire):
    def put(self, buffers: object) -> None:
        decoder = UnsealingDecoder(KEYS, bounds=Bounds(64, frozenset()), side=Side.CLIENT, extended=True)
        self.got += decoder.feed(b"".join(buffers))  # type: ignore[arg-type]


def client(node: Node, features: int) -> tuple[ClientWire, Connection]:
    wire = ClientWire()
    node.members.listens(wire, node=False, answer=True, features=features)  # type: ignore[arg-type]
    return wire, Connection(wire)  # type: ignore[arg-type]


def statuses(wire: Wire) -> list[Status]:
    return [message.status for message in wire.got if isinstance(message, Response)]


# --- votes --------------------------------------------------------------------------------------------
def test_what_is_promised_and_voted_for_is_durable_before_it_is_answered() -> None:
    node = started()
    assert asked(node, Ask(FIRST, LOW)) == Promised(None)
    node = again(node)
    assert asked(node, Elect(FIRST, LOW, JOINT)) == Voted()
    node = again(node)
    assert asked(node, Ask(FIRST, HIGH)) == Promised(Vote(LOW, JOINT))
    node = again(node)
    assert asked(node, Elect(FIRST, LOW, JOINT)) == Outbid(HIGH)
    assert node.members.configuring.current == FIRST, "a vote is not yet a choice"


@pytest.mark.allow_logs("no space to record which nodes")
def test_what_cannot_be_recorded_is_not_promised() -> None:
    node = started()
    node.files.capacity = node.files.used()
    assert isinstance(asked(node, Ask(FIRST, HIGH)), Objection)
    node.files.capacity = None
    assert asked(node, Ask(FIRST, LOW)) == Promised(None)


def test_who_is_asked_about_a_later_one_hears_of_it_and_who_asks_about_an_older_one_does() -> None:
    node = started()
    wire = listens(node)
    assert asked(node, Ask(JOINT, LOW)) == Promised(None)
    assert told_by(wire) == [FIRST, JOINT]
    assert asked(node, Ask(FIRST, HIGH)) == Later(JOINT)


def test_nobody_votes_as_long_as_a_member_may_not_keep_configurations() -> None:
    node = begun()
    for features in (0, FEATURE_LIVES):
        node.interpreter.features.update({2: KEEPS, 3: features})
        answer = asked(node, Ask(FIRST, LOW))
        assert isinstance(answer, Objection) and answer.reason.endswith("keep configurations: 3")
    node.interpreter.features[3] = KEEPS
    assert asked(node, Ask(FIRST, LOW)) == Promised(None)
    grown = Configuration(2, 64, ALL, ALL | mask((4,)), ALL | mask((4,)))
    node.interpreter.features[4] = FEATURE_LIVES
    assert "configurations: 4" in str(asked(node, Elect(FIRST, LOW, grown)))
    del node.interpreter.features[4]  # there is no link to it, and it has not connected to this one
    assert asked(node, Elect(FIRST, LOW, grown)) == Voted()
    node = started()
    node.interpreter.features[3] = 0  # of a later number, all have kept them
    assert asked(node, Ask(JOINT, LOW)) == Promised(None)


def test_that_a_member_keeps_configurations_is_known_after_a_restart_until_it_shows_otherwise() -> None:
    node = begun()
    for rank in (2, 3):
        node.members.configuring.greets(rank, KEEPS)
    later = checked(Node(node.files.crash(drop_all)))
    assert asked(later, Ask(FIRST, LOW)) == Promised(None)
    later.members.configuring.greets(3, FEATURE_LIVES)
    assert "configurations: 3" in str(asked(later, Ask(FIRST, HIGH)))
    later = checked(Node(later.files.crash(drop_all)))
    assert "configurations: 3" in str(asked(later, Ask(FIRST, HIGH)))


def test_without_space_it_is_known_as_long_as_the_node_runs() -> None:
    node = begun()
    node.files.capacity = node.files.used()
    for rank in (2, 3):
        node.members.configuring.greets(rank, KEEPS)
    node.files.capacity = None
    assert asked(node, Ask(FIRST, LOW)) == Promised(None)


def test_a_node_without_a_vote() -> None:
    fresh = Node(MemoryFiles())
    fresh.interpreter.features.update({2: KEEPS, 3: KEEPS})
    assert "has not started" in str(asked(fresh, Ask(FIRST, LOW)))


@pytest.mark.parametrize("what", ["heard", "promised"])
def test_a_claim_that_would_take_nothing_over_is_not_accepted_by_who_has_something(what: str) -> None:
    node = started()
    connection, _ = node.accept()
    if what == "heard":
        node.members.told(ConfigurationReport(2, False, JOINT))
    else:
        asked(node, Ask(FIRST, LOW))
    later = OTHER._replace(number=2)
    node.members.told(report(2, later, Stage.CLAIMING), connection)
    node.commit()
    assert node.members.lives.known[2] == TWO
