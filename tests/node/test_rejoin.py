"""Later lives, as a node accepts those of others, and as it takes its own: a real storage and interpreter."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from dsreg.constants import NO_OWNER, NO_OWNER_ANY_MORE, ZERO_TAG
from dsreg.errors import ChangedDirectory
from dsreg.node.interpreter import Connection
from dsreg.protocol.life import Life, Stage
from dsreg.protocol.messages import (
    Accepted,
    Buffer,
    Command,
    CommandKind,
    LivesReport,
    Response,
    Status,
    owner_of,
)
from dsreg.protocol.names import name_bits
from dsreg.protocol.tags import pack_tag, ts_of, unpack_tag
from dsreg.testing.memory_files import MemoryFiles, drop_all
from tests.node.members_play import OTHER, OWN, THREE, TWO, Node, Wire, begun, checked, report
from tests.node.rejoin_play import KNOWN, acceptances, accepted_by, rejoining, told_by_both

LATER, LAST = Life(2, OTHER.store), Life(2, OWN.store)
A, B = owner_of(b"a" * 16, "a"), owner_of(b"b" * 16, "b")
DATA = bytes(range(256)) * 16

pytestmark = pytest.mark.allow_logs("rejoins", "node . is neither asked nor counted", "node . is used again")


def client_of(node: Node) -> tuple[Connection, list[Response]]:
    """A client that is told nothing of lives, and what it is answered."""
    wire = Wire()
    answers: list[Response] = []
    tell = node.interpreter.tell

    def keep(transport: object, message: object) -> None:
        if transport is wire and isinstance(message, Response):
            answers.append(message)
        else:
            tell(transport, message)  # type: ignore[arg-type]

    node.interpreter.tell = keep  # type: ignore[method-assign]
    return Connection(wire), answers  # type: ignore[arg-type]


def stages(wire: Wire) -> list[Stage]:
    return [message.stage for message in wire.got if isinstance(message, LivesReport)]


# --- of another node ------------------------------------------------------------------------------
def test_it_accepts_a_claim_once_all_that_it_was_told_to_store_before_is_decided() -> None:
    node = begun()
    connection, wire = node.accept()
    _, other = node.accept()
    client, answers = client_of(node)
    node.members.told(report(2, TWO))
    node.interpreter.command(client, Command.put(5, 0, pack_tag(ts_of(0, 9), 3), DATA, 0))
    node.members.told(report(2, LATER, Stage.CLAIMING), connection)
    assert not acceptances(wire) and not answers and node.members.lives.known[2] == TWO
    node.commit()
    assert [answer.status for answer in answers] == [Status.OK], "it was decided before"
    assert acceptances(wire) == [Accepted(1, 2, LATER, OWN, 0, NO_OWNER, 0)]
    assert node.storage.lives.known[2] == LATER
    told = other.got[-1]
    assert isinstance(told, LivesReport) and told.known[2] == LATER
    at = wire.got.index(acceptances(wire)[0])
    assert any(isinstance(each, LivesReport) and each.known.get(2) == LATER for each in wire.got[:at])
    assert Node(node.files.crash(drop_all)).members.lives.known == {2: LATER}


def test_it_tells_the_promise_that_was_under_way() -> None:
    node = begun()
    connection, wire = node.accept()
    client, answers = client_of(node)
    node.interpreter.command(client, Command.attach(1, 4, A))
    node.members.told(report(2, LATER, Stage.CLAIMING), connection)
    assert not acceptances(wire)
    node.commit()
    assert acceptances(wire) == [Accepted(1, 2, LATER, OWN, 4, A, 0)]
    assert len(answers) == 1


def test_what_a_client_that_knows_no_lives_has_asked_before_is_not_answered_after() -> None:
    """Its store waits for a promise, and is stored after the claim was accepted: it would count that beside what the
    lost directory has acknowledged."""
    node = begun()
    connection, _ = node.accept()
    client, answers = client_of(node)
    node.interpreter.command(client, Command.attach(1, 4, A))
    node.interpreter.command(client, Command.put(2, 0, pack_tag(ts_of(4, 1), 255, 0, 4), DATA, 4))
    node.members.told(report(2, LATER, Stage.CLAIMING), connection)
    node.commit()
    assert node.members.lives.known[2] == LATER and not node.members.may_count(client.transport)
    assert node.storage.tags(0, 1) != ZERO_TAG, "it was stored all the same"
    assert [(answer.kind, answer.status) for answer in answers][-1] == (CommandKind.PUT, Status.REFUSED)
    node.interpreter.command(client, Command.attach(3, 4, A))
    node.commit()
    assert answers[-1].status is Status.UNSUPPORTED
    assert node.interpreter.unfinished == 0


def test_a_claim_is_accepted_again_and_one_that_is_not_above_what_is_known_is_not() -> None:
    node = begun()
    connection, wire = node.accept()
    for _ in range(2):
        node.members.told(report(2, LATER, Stage.CLAIMING), connection)
    assert len(acceptances(wire)) == 2
    for life in (Life(2, TWO.store), Life(2, THREE.store)):
        node.members.told(report(2, life, Stage.CLAIMING), connection)
    assert len(acceptances(wire)) == 2 and node.members.lives.known == {2: LATER}
    told = wire.got[-1]
    assert isinstance(told, LivesReport) and told.known[2] == LATER, "the claimant hears why"
    node.members.told(report(2, Life(3, THREE.store), Stage.CLAIMING), connection)
    assert acceptances(wire)[-1].life == Life(3, THREE.store)


def test_it_hears_of_a_higher_life_while_it_decides() -> None:
    node = begun()
    connection, wire = node.accept()
    client, _ = client_of(node)
    node.interpreter.command(client, Command.put(5, 0, pack_tag(ts_of(0, 9), 3), DATA, 0))
    node.members.told(report(2, LATER, Stage.CLAIMING), connection)
    node.members.told(report(3, THREE, two=Life(3, TWO.store)))
    node.commit()
    assert not acceptances(wire) and node.members.lives.known[2] == Life(3, TWO.store)


def test_it_accepts_a_higher_claim_that_comes_while_it_decides() -> None:
    node = begun()
    connection, wire = node.accept()
    client, _ = client_of(node)
    node.interpreter.command(client, Command.put(5, 0, pack_tag(ts_of(0, 9), 3), DATA, 0))
    node.members.told(report(2, LATER, Stage.CLAIMING), connection)
    node.members.told(report(2, Life(3, THREE.store), Stage.CLAIMING), connection)
    node.commit()
    assert acceptances(wire)[-1].life == Life(3, THREE.store)
    assert node.storage.lives.known[2] == Life(3, THREE.store)


def test_who_has_not_started_accepts_nothing() -> None:
    node = Node(MemoryFiles())
    connection, wire = node.accept()
    node.members.told(report(2, LATER, Stage.CLAIMING), connection)
    node.commit()
    assert not acceptances(wire) and 2 not in node.members.lives.known


@pytest.mark.allow_logs("no space to record")
def test_a_life_for_which_there_is_no_room_is_not_accepted() -> None:
    node = begun()
    connection, wire = node.accept()
    node.members.told(report(2, TWO))
    node.files.capacity = node.files.used()
    node.members.told(report(2, LATER, Stage.CLAIMING), connection)
    assert not acceptances(wire)
    node.files.capacity = None
    node.members.told(report(2, LATER, Stage.CLAIMING), connection)
    assert len(acceptances(wire)) == 1


def test_it_tells_how_often_the_node_may_have_started() -> None:
    node = begun()
    node.members.greets(2, 70)
    node.members.told(report(2, TWO, Stage.CLAIMING))
    assert node.storage.lives.starts == {}, "a node that has not started has chosen nothing"
    node.members.told(report(2, TWO))
    again = checked(Node(node.files.crash(drop_all)))
    connection, wire = again.accept()
    again.members.told(report(2, LATER, Stage.CLAIMING), connection)
    assert 70 <= acceptances(wire)[0].incarnation < 70 + 64


# --- of this node ---------------------------------------------------------------------------------
def test_without_the_option_it_ends_and_says_which_one_goes_on() -> None:
    node = Node(MemoryFiles())
    with pytest.raises(ChangedDirectory, match="--rejoin"):
        told_by_both(node)


def test_it_claims_durably_and_starts_once_two_have_accepted_and_what_they_promise_is_durable() -> None:
    node = Node(MemoryFiles(), rejoin=True)
    connection, wire = node.accept()

    class Watching(Wire):
        def put(self, buffers: Sequence[Buffer]) -> None:
            super().put(buffers)
            message = self.got[-1]
            if isinstance(message, LivesReport) and message.stage is not Stage.ASKING:
                kept = Node(MemoryFiles.from_log(node.files.log).crash(drop_all)).storage
                assert kept.lives.own == message.own
                assert kept.lives.begun is (message.stage is Stage.STARTED)
                assert kept.unknown(0, 1) == [0], "nothing is known in it"
                if kept.lives.begun:
                    assert (kept.epoch, kept.owner) == (5, A) and kept.incarnation > 9

    node.members.listens(Watching(), node=True, answer=False)  # type: ignore[arg-type]
    told_by_both(node)
    assert stages(wire)[-1] is Stage.CLAIMING and node.storage.lives.own == LAST
    assert node.storage.unknown(0, 1) == [0] and node.members.report()["learning"]
    accepted_by(node, 2, TWO, 5, A)
    node.commit()
    assert node.members.stage is Stage.CLAIMING and not node.interpreter.started
    accepted_by(node, 3, THREE, 4, B)
    assert node.members.stage is Stage.CLAIMING, "the promise is not durable yet"
    node.commit()
    assert node.members.stage is Stage.STARTED and node.interpreter.started and node.storage.lives.begun
    assert stages(wire)[-1] is Stage.STARTED
    assert (node.interpreter.replica.epochs.promise, node.storage.epoch) == ((5, A), 5)
    again = checked(Node(node.files.crash(drop_all)))
    assert again.interpreter.started and again.storage.lives.own == LAST


def test_what_it_is_asked_meanwhile_waits() -> None:
    node = Node(MemoryFiles(), rejoin=True)
    client, answers = node.accept()
    link = Wire()
    node.interpreter.link_up(2, link, True)  # type: ignore[arg-type]
    node.interpreter.command(client, Command.tag(1, 0, 1))
    told_by_both(node)
    node.interpreter.end_turn()
    assert link.got == []
    for rank, own in ((2, TWO), (3, THREE)):
        accepted_by(node, rank, own)
    node.commit()
    assert {getattr(message, "first", None) for message in link.got} == {0}, "it asks for the tags now"
    assert not [each for each in answers.got if isinstance(each, Response)]
    node.interpreter.disconnected(client)


def test_it_goes_on_with_its_claim_where_it_was_killed() -> None:
    node = rejoining()
    node.storage.learning.learned(0, 5)
    while (checkpoint := node.storage.next_checkpoint()) is not None:
        checkpoint.run()
        node.storage.finish_checkpoint(checkpoint)
    again = Node(node.files.crash(drop_all))
    assert again.members.stage is Stage.CLAIMING and again.storage.lives.own == LAST
    assert again.storage.unknown(0, 9) == [5, 6, 7, 8], "what was learned is"
    for rank, own in ((2, TWO), (3, THREE)):
        accepted_by(again, rank, own)
    again.commit()
    assert again.members.stage is Stage.STARTED


def test_its_number_under_another_id_makes_it_claim_the_next() -> None:
    node = rejoining()
    accepted_by(node, 2, TWO)
    node.members.told(report(3, THREE, one=Life(2, KNOWN.store), two=TWO))
    assert node.storage.lives.own == Life(3, OWN.store) and node.members.stage is Stage.CLAIMING
    assert Node(node.files.crash(drop_all)).storage.lives.own == Life(3, OWN.store)


def test_an_acceptor_that_is_lost_before_the_promise_is_durable_does_not_count() -> None:
    node = rejoining()
    for rank, own in ((2, TWO), (3, THREE)):
        accepted_by(node, rank, own, 5, A)
    node.members.told(report(3, THREE, one=LAST, two=LATER))
    node.commit()
    assert node.members.stage is Stage.CLAIMING and not node.interpreter.started
    accepted_by(node, 2, LATER, 6, B)
    node.commit()
    assert node.members.stage is Stage.STARTED and node.interpreter.replica.epochs.promise == (6, B)


def test_it_waits_for_what_it_adopts_though_an_earlier_promise_is_durable() -> None:
    node = rejoining()
    for rank, own in ((2, TWO), (3, THREE)):
        accepted_by(node, rank, own, 5, A)
    commit = node.storage.next_commit()
    assert commit is not None
    node.members.told(report(3, THREE, one=LAST, two=LATER))
    accepted_by(node, 2, LATER, 6, B)
    commit.run()
    node.interpreter.committed(node.storage.finish_commit(commit))
    assert node.members.stage is Stage.CLAIMING and not node.storage.lives.begun
    node.commit()
    assert node.members.stage is Stage.STARTED and (node.storage.epoch, node.storage.owner) == (6, B)


def test_it_merges_the_lives_that_its_acceptors_know_before_it_starts() -> None:
    node = rejoining()
    accepted_by(node, 2, TWO)
    node.members.told(report(3, Life(4, THREE.store), one=LAST, two=TWO))
    accepted_by(node, 3, Life(4, THREE.store))
    node.commit()
    assert node.members.stage is Stage.STARTED and node.storage.lives.known[3] == Life(4, THREE.store)


def test_in_an_epoch_with_two_owners_nobody_attaches_any_more() -> None:
    node = rejoining()
    accepted_by(node, 2, TWO, 5, A)
    accepted_by(node, 3, THREE, 5, B)
    node.commit()
    for again in (node, Node(MemoryFiles.from_log(node.files.log).crash(drop_all))):
        told_by_both(again, LAST)
        assert again.storage.owner == NO_OWNER_ANY_MORE
        client, answers = client_of(again)
        again.members.listens(client.transport, node=False, answer=True)  # it knows lives
        answers.clear()
        for number, (epoch, owner) in enumerate([(5, A), (5, B), (5, NO_OWNER_ANY_MORE), (6, NO_OWNER_ANY_MORE)]):
            again.interpreter.command(client, Command.attach(number, epoch, owner))
            again.commit()
            assert answers[-1].status in (Status.FENCED, Status.DISBELIEVED)
        again.interpreter.command(client, Command.attach(8, 0, NO_OWNER))
        assert answers[-1].owner == NO_OWNER and answers[-1].epoch == 5
        again.interpreter.command(client, Command.attach(9, 6, B))
        again.commit()
        assert answers[-1].status is Status.OK


def test_its_life_stands_in_the_tags_that_it_chooses() -> None:
    node = rejoining()
    for rank, own in ((2, TWO), (3, THREE)):
        accepted_by(node, rank, own)
    node.commit()
    for again in (node, Node(MemoryFiles.from_log(node.files.log).crash(drop_all))):
        tags = again.interpreter.replica.allocator.name(4, 1).tags
        assert unpack_tag(tags).life == name_bits(2, again.storage.incarnation) > 1 << 12


def test_with_the_option_a_rank_that_nobody_knows_starts_for_the_first_time() -> None:
    node = Node(MemoryFiles(), rejoin=True)
    connection, _ = node.accept()
    node.members.told(report(2, TWO, Stage.ASKING), connection)
    node.members.told(report(2, TWO, Stage.CLAIMING, one=OWN), connection)
    assert node.interpreter.started and node.storage.lives.own == OWN


def test_with_the_option_a_node_that_has_begun_goes_on_and_is_not_taken_back_once_it_is_superseded() -> None:
    node = checked(Node(begun().files.crash(drop_all), rejoin=True))
    assert node.interpreter.started
    told_by_both(node, OWN)
    assert node.storage.lives.own == OWN
    with pytest.raises(ChangedDirectory, match="with an empty directory and --rejoin"):
        told_by_both(node, LATER)


@pytest.mark.allow_logs("rank 1 rejoins")
def test_it_says_what_it_waits_for(caplog: pytest.LogCaptureFixture) -> None:
    node = Node(MemoryFiles(), rejoin=True)
    node.members.told(report(2, TWO, one=KNOWN))
    assert "1 of the 2 other nodes" in node.members.waits_for()
    node.now_s = 4.0
    node.members.tick()
    assert [message for message in caplog.messages if "1 of the 2" in message]
    told_by_both(node)
    assert "have accepted its life 2, 2 must" in node.members.waits_for()
    node.interpreter.features[3] = 0
    assert "node 3 is of a version that cannot" in node.members.waits_for()
    assert node.members.report()["stage"] == "claiming" and node.members.report()["life"] == 2
