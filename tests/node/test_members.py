"""Members: what a node does about the directories behind the ranks, with a real storage and interpreter."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import pytest

from dsreg.errors import ChangedDirectory
from dsreg.node.distrust import SAY_AFTER_S
from dsreg.protocol.life import Life, Stage
from dsreg.protocol.messages import (
    Ack,
    Buffer,
    Command,
    CommandKind,
    LivesReport,
    ReadProc,
    Value,
    WriteProc,
)
from dsreg.protocol.tags import pack_tag
from dsreg.register.foreign import ANSWER_S
from dsreg.testing.memory_files import MemoryFiles, drop_all
from tests.node.members_play import OTHER, OWN, THREE, TWO, Node, Wire, begun, checked, report


def test_a_first_start_goes_through_its_stages_and_tells_each() -> None:
    node = Node(MemoryFiles())
    connection, wire = node.accept()
    node.members.told(report(2, TWO, Stage.ASKING), connection)
    assert node.members.first_start.stage is Stage.CLAIMING and not node.interpreter.started
    node.members.told(report(2, TWO, Stage.CLAIMING, one=OWN), connection)
    assert node.interpreter.started and node.storage.lives.begun
    told = [message for message in wire.got if isinstance(message, LivesReport)]
    assert [each.stage for each in told][0] is Stage.ASKING
    assert told[-1] == LivesReport(1, True, Stage.STARTED, OWN, {2: TWO})
    again = checked(Node(node.files.crash(drop_all)))
    assert again.members.lives.known == {2: TWO}


def test_what_is_heard_first_is_durable_before_anybody_is_told() -> None:
    node = begun()
    _, wire = node.accept()

    class Watching(Wire):
        def put(self, buffers: Sequence[Buffer]) -> None:
            super().put(buffers)
            message = self.got[-1]
            assert isinstance(message, LivesReport)
            assert message.known.items() <= node.storage.lives.known.items()

    watching = Watching()
    node.members.listens(watching, node=True, answer=False)  # type: ignore[arg-type]
    node.members.told(report(2, TWO, three=THREE))
    for each in (wire, watching):
        assert isinstance(each.got[-1], LivesReport) and each.got[-1].known == {2: TWO, 3: THREE}
    assert Node(node.files.crash(drop_all)).members.lives.known == {2: TWO, 3: THREE}


@pytest.mark.allow_logs("node 2 is")
def test_only_who_has_shown_the_known_directory_is_served() -> None:
    node = begun()
    good, _ = node.accept()
    bad, _ = node.accept()
    assert node.members.admits(good, 2), "a node that was never heard to keep lives"
    node.members.told(report(2, TWO, Stage.CLAIMING), good)
    assert not node.members.admits(good, 2), "it has not started"
    node.members.told(report(2, TWO), good)
    assert node.members.admits(good, 2) and not node.members.admits(bad, 2)
    node.members.told(report(2, OTHER), bad)
    node.members.told(report(2, TWO), good)
    assert node.members.admits(good, 2) and not node.members.admits(bad, 2)
    node.members.told(report(2, OTHER), good)
    assert not node.members.admits(good, 2)
    third, _ = node.accept()
    node.members.told(report(2, TWO), third)
    assert node.members.admits(third, 2) and not node.members.admits(good, 2), "it has shown another one since"


@pytest.mark.allow_logs("node 2 is")
def test_a_changed_directory_is_not_served_any_more_and_the_right_one_is_again() -> None:
    node = begun()
    connection, _ = node.accept()
    node.members.told(report(2, TWO), connection)
    node.members.told(report(3, THREE, two=OTHER))
    assert not node.members.admits(connection, 2) and "2" in node.members.report()["faults"]  # type: ignore[operator]
    node.members.told(report(3, THREE, two=TWO))
    assert node.members.admits(connection, 2)


def test_after_a_restart_a_known_rank_is_not_served_before_it_has_shown_its_directory() -> None:
    node = begun()
    node.members.told(report(2, TWO))
    again = Node(node.files.crash(drop_all))
    connection, _ = again.accept()
    assert not again.members.admits(connection, 2)
    again.members.told(report(2, TWO), connection)
    assert again.members.admits(connection, 2)


@pytest.mark.parametrize("started", [False, True])
def test_who_is_known_by_another_directory_ends(started: bool) -> None:
    node = begun() if started else Node(MemoryFiles())
    with pytest.raises(ChangedDirectory, match="node 2 knows 09090909, this one is 01010101"):
        node.members.told(report(2, TWO, one=OTHER))


@pytest.mark.parametrize("started", [False, True])
def test_who_is_known_by_another_directory_shows_its_own_before_it_ends(started: bool) -> None:
    """A node says who it is in the turn in which it is told who it should be, and only then ends."""
    node = begun() if started else Node(MemoryFiles())
    connection, wire = node.accept()
    assert wire.sent == []
    with pytest.raises(ChangedDirectory):
        node.members.told(report(2, TWO, one=OTHER), connection)
    shown, = wire.sent
    assert isinstance(shown, LivesReport) and shown.own == OWN


def test_until_it_has_started_it_holds_what_comes_and_deals_with_it_then() -> None:
    node = Node(MemoryFiles())
    connection, wire = node.accept()
    client, answers = node.accept()
    put = Command(CommandKind.STORE, 5, 0, 1, bytes(8) + b"\0" * 7 + b"\1", bytes(4096), True)
    node.interpreter.command(client, put)
    node.interpreter.message(connection, ReadProc(2, 77, 3, 1))
    node.commit()
    assert node.storage.sectors_written == 0
    assert not [message for message in wire.got + answers.got if isinstance(message, (Value, Ack))]
    node.members.told(report(2, TWO, one=OWN), connection)
    assert [message.rid for message in wire.got if isinstance(message, Value)] == [77]
    node.interpreter.disconnected(client)


def test_a_client_that_leaves_before_the_start_leaves_nothing() -> None:
    node = Node(MemoryFiles())
    client, answers = node.accept()
    connection, _ = node.accept()
    node.interpreter.command(client, Command(CommandKind.GET, 5, 0, 1, extended=True))
    assert node.interpreter.unfinished == 1
    node.interpreter.disconnected(client)
    assert node.interpreter.unfinished == 0 and client.unfinished == 0
    answers.got.clear()
    node.members.told(report(2, TWO, one=OWN), connection)
    assert node.interpreter.started and not [each for each in answers.got if not isinstance(each, LivesReport)]
    assert node.interpreter.unfinished == 0 and node.interpreter.unfinished_bytes == 0 and client.unfinished == 0


@pytest.mark.allow_logs("has an empty directory")
def test_a_peer_counts_as_one_of_the_contract_by_evidence_alone() -> None:
    node = Node(MemoryFiles())
    node.members.greeting(2)
    node.now_s = 60.0
    node.members.tick()
    assert not node.interpreter.started, "it was silent, and may be recovering"
    node.members.heard_contract(2)
    node.now_s += ANSWER_S - 0.01
    node.members.tick()
    assert not node.interpreter.started
    node.now_s += 0.02
    node.members.tick()
    assert node.interpreter.started


def test_a_peer_that_has_greeted_does_not() -> None:
    node = Node(MemoryFiles())
    node.members.greets(2)
    node.members.greeting(2)
    node.members.heard_contract(2)
    node.now_s = 2.0
    node.members.tick()
    node.members.unanswered(2, hung_up=False)
    assert not node.interpreter.started


@pytest.mark.allow_logs("no space to record the directories of the nodes 2")
def test_a_directory_that_cannot_be_written_down_does_not_count_and_ends_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    node = begun()
    connection, _ = node.accept()
    node.files.capacity = node.files.used()
    for _ in range(3):
        node.members.told(report(2, TWO), connection)
        assert not node.members.lives.counts(2) and not node.members.admits(connection, 2)
    assert len(caplog.messages) == 1 and 2 not in node.storage.lives.known
    node.files.capacity = None
    node.members.told(report(2, TWO), connection)
    assert node.members.lives.counts(2) and node.members.admits(connection, 2)
    assert Node(node.files.crash(drop_all)).storage.lives.known[2] == TWO


@pytest.mark.allow_logs("no space to record the directories of the nodes 2")
def test_what_cannot_be_recorded_is_told_to_nobody() -> None:
    """Each of the others would answer, and the answer would be news again: without end, as fast as the network is."""
    node = begun()
    _, wire = node.accept()
    node.files.capacity = node.files.used()
    wire.got.clear()
    for _ in range(3):
        node.members.told(report(2, TWO))  # over the link that this node has made
    assert wire.got == []
    node.files.capacity = None
    node.members.told(report(2, TWO))
    assert [type(message) for message in wire.got] == [LivesReport]


def test_its_own_words_that_come_back_are_no_answer() -> None:
    node = Node(MemoryFiles())
    connection, _ = node.accept()
    for stage in Stage:
        node.members.told(report(1, OWN, stage, one=OWN), connection)
    assert node.members.first_start.stage is Stage.ASKING and not connection.shown
    assert not node.members.lives.keeps_lives(1), "nothing is known of it as of another node"


def test_others_hear_that_it_has_started_before_they_are_answered() -> None:
    node = Node(MemoryFiles())
    connection, wire = node.accept()
    node.interpreter.message(connection, ReadProc(2, 77, 3, 1))
    node.members.told(report(2, TWO, one=OWN), connection)
    kinds = [type(message) if not isinstance(message, LivesReport) else message.stage for message in wire.got]
    assert kinds.index(Stage.STARTED) < kinds.index(Value)


@pytest.mark.allow_logs("has an empty directory")
def test_who_waits_greets_a_peer_of_the_contract_and_says_once_what_for(caplog: pytest.LogCaptureFixture) -> None:
    node, greeted = Node(MemoryFiles()), list[int]()
    node.members.on_greet = greeted.append
    node.members.heard_contract(2)
    node.members.greeting(2)
    node.members.heard_contract(2)
    assert greeted == [2]
    node.members.greets(2)
    said = []
    for node.now_s in (2.9, 3.1, 9.0):
        node.members.tick()
        said.append(len(caplog.messages))
    assert said == [0, 1, 1]


# --- a later life of a peer -----------------------------------------------------------------------
LATER = Life(2, OTHER.store)


def test_a_later_life_is_durable_before_it_is_told_and_voids_the_connections_of_the_earlier_one() -> None:
    node = begun()
    old, old_wire = node.accept()
    new, new_wire = node.accept()
    third, third_wire = node.accept()
    superseded: list[int] = []
    node.members.on_superseded = superseded.append
    node.members.told(report(2, TWO), old)
    node.members.told(report(3, THREE), third)
    assert node.members.admits(old, 2)
    node.members.told(report(2, LATER, Stage.CLAIMING), new)
    assert superseded == [2] and old_wire.closed and not new_wire.closed and not third_wire.closed
    assert not node.members.admits(old, 2) and not node.members.admits(new, 2)
    last = third_wire.got[-1]
    assert isinstance(last, LivesReport) and last.known == {2: LATER, 3: THREE}
    assert Node(node.files.crash(drop_all)).members.lives.known == {2: LATER, 3: THREE}
    node.members.told(report(2, LATER), new)
    assert superseded == [2] and node.members.admits(new, 2) and not node.members.admits(old, 2)
    assert node.members.admits(third, 3)


def test_a_node_that_is_used_again_is_linked_to_anew() -> None:
    """Its link may have stayed: another process had shown an empty directory under its rank. It was for so short a time
    that nobody is warned."""
    node = begun()
    anew: list[int] = []
    node.members.on_superseded = anew.append
    node.members.told(report(2, TWO, one=OWN))
    node.members.told(report(2, OTHER, Stage.ASKING))
    assert node.members.report()["faults"] and not anew
    node.members.told(report(2, TWO, one=OWN))
    assert not node.members.report()["faults"] and anew == [2]
    node.now_s += SAY_AFTER_S
    node.members.tick()


@pytest.mark.allow_logs("node 2 is neither asked nor counted", "node 2 is used again")
def test_a_node_that_is_not_counted_is_logged_once_that_lasts(caplog: pytest.LogCaptureFixture) -> None:
    """Until then it may be about to rejoin."""
    def logged() -> list[str]:
        return [record.message for record in caplog.records if record.levelno >= logging.WARNING]

    node = begun()
    node.members.told(report(2, TWO, one=OWN))
    node.members.told(report(2, OTHER, Stage.ASKING))
    assert node.members.report()["faults"] and node.members.next_due <= node.now_s + SAY_AFTER_S
    node.now_s += SAY_AFTER_S - 0.01
    node.members.tick()
    assert not logged()
    node.now_s += 0.02
    for _ in range(2):
        node.members.tick()
    [said] = logged()
    assert "node 2 is neither asked nor counted: it was started with another, empty directory" in said
    node.members.told(report(2, TWO, one=OWN))
    assert logged() == [said, "node 2 is used again: its directory is the one that it is known by"]


def test_an_acknowledgement_of_an_earlier_life_does_not_count_for_a_later_one() -> None:
    node = begun()
    link, sent = Wire(), Wire()
    node.interpreter.link_up(2, link, True)  # type: ignore[arg-type]
    node.interpreter.link_up(3, sent, True)  # type: ignore[arg-type]
    node.members.told(report(2, TWO))
    node.members.told(report(3, THREE))
    client, _ = node.accept()
    store = Command.store(5, 0, pack_tag(1, 3), bytes(range(256)) * 16)
    node.interpreter.command(client, store)
    node.interpreter.end_turn()
    [order] = [message for message in link.got if isinstance(message, WriteProc)]
    node.interpreter.message(None, Ack(2, order.rid, 0, 1))  # this node's own copy is not durable yet
    node.members.told(report(2, LATER))
    node.commit()
    assert node.interpreter.unfinished == 1, "only this node has it"
    again = Wire()
    node.interpreter.link_up(2, again, True)  # type: ignore[arg-type]
    assert order in again.got, "the later life is told to store it as well"
    node.interpreter.message(None, Ack(2, order.rid, 0, 1))
    node.interpreter.end_turn()
    assert node.interpreter.unfinished == 0


def test_a_node_that_has_not_started_accepts_no_later_life() -> None:
    node = Node(MemoryFiles())
    node.members.lives.known[2] = TWO
    connection, wire = node.accept()
    node.members.told(report(2, LATER, Stage.CLAIMING), connection)
    assert node.members.lives.known == {2: TWO}


def test_only_who_is_told_of_lives_may_count_once_a_node_has_rejoined() -> None:
    node = begun()
    _, told = node.accept()
    deaf = Wire()
    assert node.members.may_count(told) and node.members.may_count(deaf)  # type: ignore[arg-type]
    node.members.told(report(2, TWO))
    assert node.members.may_count(deaf)  # type: ignore[arg-type]
    connection, _ = node.accept()
    node.members.told(report(2, LATER, Stage.CLAIMING), connection)
    assert node.members.may_count(told) and not node.members.may_count(deaf)  # type: ignore[arg-type]
    assert not Node(node.files.crash(drop_all)).members.may_count(deaf)  # type: ignore[arg-type]


def test_a_node_that_was_superseded_ends() -> None:
    node = begun()
    with pytest.raises(ChangedDirectory, match="node 2 knows 09090909 .life 2., this one is 01010101"):
        node.members.told(report(2, TWO, one=LATER))


@pytest.mark.allow_logs("no space to record the directories", "node 2 is")
def test_no_room_for_a_later_life_is_no_reason_to_count_the_earlier_one() -> None:
    node = begun()
    connection, _ = node.accept()
    node.members.told(report(2, TWO), connection)
    new, _ = node.accept()
    node.files.capacity = node.files.used()
    node.members.told(report(2, LATER), new)
    assert not node.members.lives.counts(2) and not node.members.admits(connection, 2)
    assert node.storage.lives.known == {2: TWO, 1: OWN}
    node.files.capacity = None
    node.members.told(report(2, LATER), new)
    assert node.members.lives.counts(2) and node.members.admits(new, 2)
