"""Marks, as a node raises, tells, hears and keeps them: a real storage and interpreter."""

from __future__ import annotations

import errno
import math

import pytest

from dsreg.constants import MIN_JOURNAL_BYTES
from dsreg.errors import OlderDirectory
from dsreg.node.marking import KEEP_AFTER_S, MARK_AFTER_S
from dsreg.protocol.choosing import Ask, ConfigurationReport, Promised
from dsreg.protocol.configuration import Ballot, Configuration
from dsreg.protocol.life import Life, Stage
from dsreg.protocol.messages import FEATURE_CONFIGURATIONS, Command, LivesReport
from dsreg.protocol.tags import pack_tag, ts_of
from dsreg.register.quorum import mask as mask_of
from dsreg.storage import StableStorage, Start
from dsreg.storage import state as state_file
from dsreg.storage.layout import MARKS, MARKS_TMP, STATE
from dsreg.storage.state import first_mark
from dsreg.testing.memory_files import Kind, MemoryFiles, drop_all, keep_all
from tests.node.members_play import OTHER, OWN, THREE, TWO, WHOSE, Node, Wire, begun, checked, report
from tests.node.test_rejoin import client_of

DATA = bytes(range(256)) * 16
FIVE = (1, 2, 3, 4, 5)


def hears(rank: int, own: Life, mark: int, of: Life = OWN, stage: Stage = Stage.STARTED) -> LivesReport:
    """The node `rank` has heard of this mark of node 1."""
    return report(rank, own, stage, one=of)._replace(mark=1, marks={1: mark})


def last(wire: Wire) -> LivesReport:
    return [message for message in wire.sent if isinstance(message, LivesReport)][-1]


def mark(start: int, count: int) -> int:
    """The mark that was raised for the `count`th time in this start of the node."""
    return first_mark(start) + count


def with_an_earlier_version(node: Node) -> MemoryFiles:
    """Its directory, after a version that keeps no marks has started it once more."""
    files = node.files.crash(drop_all)
    storage = StableStorage.open(files, WHOSE, MIN_JOURNAL_BYTES)
    state = storage.promises.state
    storage.close()
    file = files.open(STATE)
    state_file.write(file, state._replace(seq=state.seq + 1, mark=0), WHOSE.salt)
    file.close()
    return files


def restarted(node: Node) -> Node:
    return Node(node.files.crash(drop_all))


def put(node: Node, ts: int) -> None:
    client, _ = client_of(node)
    node.interpreter.command(client, Command.put(ts, 0, pack_tag(ts_of(0, ts), 3), DATA, 0))


def test_a_node_that_is_started_again_serves_nothing_before_it_is_told() -> None:
    node = restarted(begun())
    connection, wire = node.accept()
    client, answers = client_of(node)
    node.interpreter.command(client, Command.put(5, 0, pack_tag(ts_of(0, 9), 3), DATA, 0))
    node.commit()
    assert not node.interpreter.started and node.members.stage is Stage.ASKING and not answers
    assert "0 of them have, 1 must" in node.members.waits_for()
    node.members.told(hears(2, TWO, mark(1, 1)), connection)
    node.interpreter.end_turn()
    assert node.interpreter.started and last(wire).stage is Stage.STARTED and node.members.waits_for() == ""
    node.commit()
    assert len(answers) == 1


def test_a_mark_is_told_once_it_is_durable_and_no_sooner() -> None:
    node = Node(MemoryFiles())
    told: list[int] = []

    class Watching(Wire):
        def flush(self) -> None:
            super().flush()
            told.append(last(self).mark)
            files = MemoryFiles.from_log(node.files.log).crash(drop_all)
            kept = StableStorage.open(files, WHOSE, MIN_JOURNAL_BYTES, lambda: OWN.store)
            assert told[-1] <= kept.promises.state.mark

    node.members.listens(Watching(), node=True, answer=True)  # type: ignore[arg-type]
    connection, _ = node.accept()
    node.members.told(report(2, TWO, Stage.ASKING), connection)
    node.members.told(report(2, TWO, Stage.CLAIMING, one=OWN), connection)
    assert node.interpreter.started and told[-1] == first_mark(0)
    told.clear()
    node.commit()
    assert told[-1] == mark(1, 1)


def test_it_is_raised_at_a_start_and_with_the_first_commit_after_a_while() -> None:
    node = begun()
    assert node.members.marking.own == mark(2, 1)
    put(node, 1)
    node.commit()
    assert node.members.marking.own == mark(2, 1)
    node.now_s += MARK_AFTER_S
    node.members.tick()
    assert not node.storage.has_work(), "nothing is written for it alone"
    put(node, 2)
    node.commit()
    assert node.members.marking.own == mark(2, 2)
    assert checked(restarted(node)).members.marking.own == mark(3, 1)


def test_an_older_state_is_noticed_and_takes_the_next_life() -> None:
    node = begun()
    older = node.files.crash(drop_all)
    node = Node(older)
    with pytest.raises(OlderDirectory, match=f"node 2 has heard of its mark {mark(3, 1)}, it has {mark(2, 1)}"):
        node.members.told(hears(2, TWO, mark(3, 1)), node.accept()[0])
    assert not node.interpreter.started
    ids = iter((OTHER.store, b"l" * 16, b"m" * 16))
    files = older.crash(drop_all)
    storage = StableStorage.open(files, WHOSE, MIN_JOURNAL_BYTES, lambda: next(ids), Start(older=True))
    assert storage.lives.given_up and not storage.lives.begun and storage.lives.own == Life(1, OTHER.store)
    assert storage.learning.left == WHOSE.sectors
    storage.close()
    again = Node(files.crash(drop_all))
    connection, wire = again.accept()
    for rank, own in ((2, TWO), (3, THREE)):  # also if these have not heard of it: the one that has is down
        again.members.told(report(rank, own, two=TWO, three=THREE), connection)
    again.interpreter.end_turn()
    assert (last(wire).stage, last(wire).own) == (Stage.CLAIMING, Life(2, OTHER.store))


def test_a_mark_that_is_no_higher_is_its_own() -> None:
    node = restarted(begun())
    node.members.told(hears(2, TWO, mark(2, 1)), node.accept()[0])
    assert node.interpreter.started


def test_a_copy_that_runs_elsewhere_is_noticed_while_the_node_serves() -> None:
    node = checked(restarted(begun()))
    connection, _ = node.accept()
    node.members.told(hears(2, TWO, mark(3, 1)), connection)
    with pytest.raises(OlderDirectory):
        node.members.told(hears(2, TWO, mark(3, 2)), connection)


def test_a_directory_that_was_copied_before_it_began_is_noticed() -> None:
    node = Node(MemoryFiles())
    with pytest.raises(OlderDirectory):
        node.members.told(hears(2, TWO, mark(1, 1)), node.accept()[0])
    assert not node.storage.lives.begun


def test_a_directory_that_was_copied_while_it_claimed_is_noticed() -> None:
    """Else its claim would go on, and what the same life has acknowledged since would be counted."""
    node = Node(MemoryFiles())
    node.storage.lives.remember({2: TWO, 3: THREE})
    node.storage.lives.claim(2)
    node = Node(node.files.crash(drop_all))
    assert node.members.stage is Stage.CLAIMING
    with pytest.raises(OlderDirectory):
        node.members.told(hears(2, TWO, mark(1, 1), Life(2, OWN.store)), node.accept()[0])


def test_a_version_that_keeps_no_marks_in_between_is_no_reason_to_take_a_directory_for_an_older_one() -> None:
    """Its starts are counted: whatever others have heard before it, also those that are asked last, is lower."""
    node = begun()
    put(node, 1)
    for _ in range(5):
        node.now_s += MARK_AFTER_S
        node.members.tick()
        put(node, 2)
        node.commit()
    heard = node.members.marking.own
    node = Node(with_an_earlier_version(node))
    node.members.told(hears(2, TWO, mark(2, 1)), node.accept()[0])
    node.commit()
    assert node.interpreter.started and node.members.marking.own > heard
    again = restarted(node)
    again.members.told(hears(3, THREE, heard), again.accept()[0])
    assert again.interpreter.started


def test_a_directory_of_a_version_that_keeps_no_marks_is_upgraded_and_an_older_state_of_that_is_noticed() -> None:
    node, upgraded = Node(with_an_earlier_version(begun())), checked(Node(with_an_earlier_version(begun())))
    heard = upgraded.members.marking.own
    for _ in range(3):  # being started often makes it no later
        node = restarted(node)
    with pytest.raises(OlderDirectory):
        node.members.told(hears(2, TWO, heard), node.accept()[0])
    again = restarted(upgraded)
    again.members.told(hears(2, TWO, heard), again.accept()[0])
    assert again.interpreter.started


def test_two_that_were_upgraded_and_have_never_met_tell_each_other() -> None:
    """The third one, which both know, is down."""
    node = Node(with_an_earlier_version(begun()))
    other = report(2, TWO, Stage.ASKING, three=THREE)
    node.members.told(other, node.accept()[0])
    assert not node.interpreter.started, "it may be empty"
    node.members.told(other._replace(mark=node.members.marking.own), node.accept()[0])
    assert node.interpreter.started and node.members.marking.own > 0


def test_a_directory_that_was_never_served_with_says_no_mark() -> None:
    """Or others would take it for one that remembers what it has heard."""
    node = Node(MemoryFiles())
    for _ in range(3):
        node = restarted(node)
    _, wire = node.accept()
    node.interpreter.end_turn()
    assert last(wire).mark == 0 and last(wire).stage is Stage.ASKING


def test_what_was_heard_of_others_is_kept_after_a_while_and_told() -> None:
    node = begun()
    connection, wire = node.accept()
    node.members.told(report(2, TWO, three=THREE)._replace(mark=7, marks={3: 4}), connection)
    node.interpreter.end_turn()
    assert last(wire).marks == {2: 7, 3: 4}
    assert restarted(node).members.marking.marks.heard == {}
    node = begun()
    node.members.told(report(2, TWO, three=THREE)._replace(mark=7, marks={3: 4}), node.accept()[0])
    node.now_s += KEEP_AFTER_S
    node.members.tick()
    node.members.marking.stop()  # there is nothing new to write
    again = restarted(node)
    assert again.members.marking.marks.heard == {2: (TWO, 7), 3: (THREE, 4)}
    _, wire = again.accept()
    again.interpreter.end_turn()
    assert last(wire).marks == {2: 7, 3: 4}


def test_whatever_a_crash_leaves_has_the_mark_that_others_have_heard() -> None:
    """Else a good directory would be taken for an older one: at each step of the disk, with all or nothing of what was
    not synced."""
    node = Node(MemoryFiles())
    told: list[tuple[int, int]] = []

    class Watching(Wire):
        def flush(self) -> None:
            super().flush()
            told.append((len(node.files.log), last(self).mark))

    node.members.listens(Watching(), node=True, answer=True)  # type: ignore[arg-type]
    connection, _ = node.accept()
    node.members.told(report(2, TWO, Stage.CLAIMING, one=OWN), connection)
    for ts in range(1, 4):
        node.commit()
        put(node, ts)
        node.now_s += MARK_AFTER_S
        node.members.tick()
    assert [mark for _, mark in told][-1] >= mark(1, 3)
    for upto in range(told[0][0], len(node.files.log) + 1):
        heard = max(mark for at, mark in told if at <= upto)
        for chooser in (drop_all, keep_all):
            again = Node(MemoryFiles.from_log(node.files.log[:upto]).crash(chooser))
            again.members.told(hears(2, TWO, heard), again.accept()[0])
            assert again.members.marking.own >= heard and again.storage.lives.own == OWN


@pytest.mark.allow_logs("no space")
def test_a_full_disk_is_no_reason_to_take_a_directory_for_an_older_one() -> None:
    node = begun()
    node.members.told(report(2, TWO, three=THREE)._replace(mark=7, marks={3: 4}), node.accept()[0])
    node.files.fail(Kind.WRITE, name=MARKS_TMP, number=errno.ENOSPC)
    node.now_s += KEEP_AFTER_S
    node.members.tick()  # there is no room for what was heard: it is tried again
    assert not node.files.exists(MARKS)
    heard = node.members.marking.own
    node.now_s += KEEP_AFTER_S
    node.members.tick()
    again = restarted(node)
    assert again.members.marking.marks.heard == {2: (TWO, 7), 3: (THREE, 4)}
    again.members.told(hears(2, TWO, heard), again.accept()[0])
    assert again.interpreter.started


def test_what_it_has_heard_of_lives_is_in_no_earlier_state() -> None:
    node = begun()
    node.members.told(report(2, TWO), node.accept()[0])
    node.commit()
    assert node.members.marking.own == mark(2, 2)


def test_clients_are_told_no_marks() -> None:
    node = begun()
    wire = Wire()
    told: list[object] = []
    node.interpreter.tell = lambda transport, message: told.append(message)  # type: ignore[method-assign,assignment]
    node.members.listens(wire, node=False, answer=True)  # type: ignore[arg-type]
    assert [message.mark for message in told if isinstance(message, LivesReport)] == [0]


def members(number: int, ranks: tuple[int, ...]) -> Configuration:
    return Configuration(number, WHOSE.sectors, mask_of(ranks), 0, mask_of(FIVE))


def five(number: int) -> Configuration:
    return members(number, FIVE)


def test_it_is_raised_when_another_configuration_comes_into_force() -> None:
    node = begun()
    node.members.told(ConfigurationReport(2, True, five(3)))
    node.commit()
    assert node.members.marking.own == mark(2, 2)


def test_as_many_are_asked_as_the_configuration_in_force_says() -> None:
    node = begun()
    node.members.told(ConfigurationReport(2, True, five(3)))
    node.commit()
    known = restarted(node)
    hears_later = restarted(begun())
    hears_later.members.told(ConfigurationReport(2, True, five(3)))
    for waiting in (known, hears_later):
        assert "must" in waiting.members.waits_for() and not waiting.interpreter.started
        waiting.members.told(hears(2, TWO, mark(1, 1)), waiting.accept()[0])
        assert not waiting.interpreter.started and "1 of them have, 2 must" in waiting.members.waits_for()
        waiting.members.told(hears(3, THREE, mark(1, 1)), waiting.accept()[0])
        assert waiting.interpreter.started


def test_one_that_is_alone_raises_none_and_waits_for_nothing() -> None:
    node = begun()
    node.members.told(ConfigurationReport(2, True, members(3, (1,))))
    node.commit()
    node.now_s += MARK_AFTER_S
    node.members.tick()
    assert node.members.marking.own == mark(2, 1) and node.members.next_due == math.inf
    node.members.told(ConfigurationReport(2, True, five(5)))
    node.commit()
    assert node.members.marking.own == mark(2, 2)


def test_an_answer_does_not_count_before_it_is_known_which_nodes_decide() -> None:
    """Node 2 tells of lives first: by what an older directory knows, three nodes, that one would be enough."""
    node = restarted(begun())
    connection, wire = node.accept()
    node.members.listens(wire, node=True, answer=True, features=FEATURE_CONFIGURATIONS)  # type: ignore[arg-type]
    node.members.told(hears(2, TWO, mark(1, 1)), connection)
    assert not node.interpreter.started and node.members.stage is Stage.ASKING
    node.members.told(ConfigurationReport(2, False, five(3)), connection)
    assert not node.interpreter.started and "1 of them have, 2 must" in node.members.waits_for()
    node.members.told(hears(3, THREE, mark(1, 1)), node.accept()[0])
    assert node.interpreter.started


def test_one_who_says_that_the_first_is_in_force_counts_then() -> None:
    node = restarted(begun())
    connection, wire = node.accept()
    node.members.listens(wire, node=True, answer=True, features=FEATURE_CONFIGURATIONS)  # type: ignore[arg-type]
    node.members.told(hears(2, TWO, mark(1, 1)), connection)
    node.members.told(ConfigurationReport(2, False, node.members.configuring.current), connection)
    assert node.interpreter.started


def test_it_is_raised_with_a_vote() -> None:
    """A directory from before it would vote otherwise."""
    node = begun()
    older = restarted(begun())  # as it was before
    node.interpreter.features.update({2: FEATURE_CONFIGURATIONS, 3: FEATURE_CONFIGURATIONS})
    first = node.members.configuring.current
    assert isinstance(node.members.configuring.asked(Ask(first, Ballot(1, b"b" * 16))), Promised)
    node.commit()
    raised = node.members.marking.own
    assert raised == mark(2, 2)
    with pytest.raises(OlderDirectory):
        older.members.told(hears(2, TWO, raised))
