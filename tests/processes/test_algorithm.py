"""One real node among others that speak the contract alone: the algorithm, message by message."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator

import pytest

from dsreg.constants import RESEND_FIRST_S
from tests.processes.cluster import Cluster, until
from tests.processes.fake_peer import FakePeer
from tests.processes.raw import ACK, OK, READ_ANSWER, READ_PROC, VALUE, WRITE_ANSWER, WRITE_PROC, RawClient, Response

ZEROS = bytes(4096)
OLD, NEW, OTHER = b"o" * 4096, b"n" * 4096, b"t" * 4096


class World:
    """Node 1 is real, the others are fakes; `client` is connected to node 1."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        node, key = cluster.address(1), cluster.config.system_key
        self.peers = {rank: FakePeer(rank, cluster.address(rank), node, key) for rank in cluster.ranks[1:]}
        cluster.start(1)
        self.client = RawClient(node, cluster.config.client_key)

    def crash(self) -> None:
        """kill -9 and start again."""
        self.cluster.kill(1)
        self.client.close()
        for peer in self.peers.values():
            peer.hang_up()
        self.cluster.start(1)
        self.client = RawClient(self.cluster.address(1), self.cluster.config.client_key)

    def close(self) -> None:
        self.client.close()
        for peer in self.peers.values():
            peer.close()
        self.cluster.kill(1)
        for peer in self.peers.values():
            peer.join()
            assert peer.faults == []

    def answered(self, expected: Response) -> None:
        assert self.client.response() == expected

    def unanswered(self) -> None:
        self.client.nothing_more()

    def seed(self, sector: int, ts: int, wr: int, data: bytes) -> None:
        """Have the real node store this, as told by node 2."""
        peer = self.peers[2]
        message = peer.write_proc(1, sector, ts, wr, data)
        peer.send(message)
        assert peer.expect(ACK).rid == 1

    def stored(self, sector: int) -> tuple[int, int, bytes]:
        """What the real node holds, as it tells node 2."""
        peer = self.peers[2]
        rid = int.from_bytes(os.urandom(8))
        peer.send(peer.read_proc(rid, sector))
        value = peer.expect(VALUE)
        assert (value.rank, value.rid, value.sector) == (1, rid, sector)
        return value.ts, value.wr, value.data


@pytest.fixture
def make_world(make_cluster: Callable[..., Cluster]) -> Iterator[Callable[[int], World]]:
    worlds: list[World] = []

    def make(nodes: int) -> World:
        worlds.append(World(make_cluster(nodes=nodes)))
        return worlds[-1]

    try:
        yield make
    finally:
        for world in worlds:
            world.close()


@pytest.fixture
def world(make_world: Callable[[int], World]) -> World:
    return make_world(3)


def test_a_write(world: World) -> None:
    """READ_PROC with one rid to all; from a majority's VALUEs (maxts + 1, own rank); ACKs of a majority."""
    two, three, client = world.peers[2], world.peers[3], world.client
    client.send(client.write_frame(5, 7, NEW))
    first, same = two.expect(READ_PROC), three.expect(READ_PROC)
    assert (first.rank, first.sector) == (1, 7) and (same.rank, same.sector, same.rid) == (1, 7, first.rid)
    world.unanswered()
    two.send(two.value(first, 41, 3, OLD))
    second, same = two.expect(WRITE_PROC), three.expect(WRITE_PROC)
    for message in (second, same):
        assert message._replace(uuid=b"") == (WRITE_PROC, 1, b"", first.rid, 7, 42, 1, NEW)
    assert second.uuid != first.uuid
    world.unanswered()
    three.send(three.ack(same))
    world.answered(Response(OK, WRITE_ANSWER, 5, b""))
    assert world.stored(7) == (42, 1, NEW)


def test_a_write_is_above_what_the_node_itself_has(world: World) -> None:
    world.seed(8, 70, 3, OLD)
    two, client = world.peers[2], world.client
    client.send(client.write_frame(1, 8, NEW))
    two.send(two.value(two.expect(READ_PROC), 69, 3, OTHER))
    message = two.expect(WRITE_PROC)
    assert (message.ts, message.wr, message.data) == (71, 1, NEW)
    two.send(two.ack(message))
    world.answered(Response(OK, WRITE_ANSWER, 1, b""))


def test_a_read_writes_the_highest_back(world: World) -> None:
    two, three, client = world.peers[2], world.peers[3], world.client
    # What the node holds, what it is told, and what it must write back.
    cases = [
        ((0, 0, ZEROS), (5, 3, OTHER), (5, 3, OTHER)),
        ((4, 3, OLD), (5, 2, OTHER), (5, 2, OTHER)),
        ((5, 2, OLD), (5, 3, OTHER), (5, 3, OTHER)),
        ((5, 3, OLD), (5, 2, OTHER), (5, 3, OLD)),
        ((6, 1, OLD), (5, 3, OTHER), (6, 1, OLD)),
        ((9, 2, OLD), (0, 0, ZEROS), (9, 2, OLD)),
    ]
    for sector, (own, told, highest) in enumerate(cases, 100):
        if own[0]:
            world.seed(sector, *own)
        client.send(client.read_frame(sector, sector))
        question = two.expect(READ_PROC)
        assert three.expect(READ_PROC).rid == question.rid
        two.send(two.value(question, *told))
        for peer in (two, three):
            assert peer.expect(WRITE_PROC)[3:] == (question.rid, sector, *highest)
        world.unanswered()
        two.send(two.ack(question))
        world.answered(Response(OK, READ_ANSWER, sector, highest[2]))
        assert world.stored(sector) == highest


def test_a_read_of_what_a_majority_holds_already_takes_one_round(world: World) -> None:
    world.seed(10, 5, 2, OLD)
    two, client = world.peers[2], world.client
    client.send(client.read_frame(1, 10))
    two.send(two.value(two.expect(READ_PROC), 5, 2, OLD))
    world.answered(Response(OK, READ_ANSWER, 1, OLD))
    assert world.stored(10) == (5, 2, OLD)  # and no WRITE_PROC has come before this VALUE


def test_a_majority_of_five_counts_each_node_once(make_world: Callable[[int], World]) -> None:
    world = make_world(5)
    peers, client = world.peers, world.client
    client.send(client.write_frame(1, 11, NEW))
    question = [peer.expect(READ_PROC) for peer in peers.values()][0]
    two, three, four = peers[2], peers[3], peers[4]
    for _ in range(3):
        two.send(two.value(question, 8, 2, OLD))  # a new uuid each time
        two.send_back(two.value(question, 8, 2, OLD))
    # An ACK belongs to the other phase; a VALUE of another run to another operation.
    three.send(three.ack(question), three.value(question._replace(sector=12), 9, 3, OLD))
    assert world.stored(11) == (0, 0, ZEROS)
    four.send(four.value(question, 3, 4, OLD))
    writes = [peer.expect(WRITE_PROC) for peer in peers.values()]
    assert {message[3:] for message in writes} == {(question.rid, 11, 9, 1, NEW)}
    for _ in range(3):
        two.send(two.ack(question))
    # A VALUE that comes in the write phase is late.
    three.send(three.value(question, 100, 3, OLD))
    assert world.stored(11) == (9, 1, NEW)
    world.unanswered()
    three.send(three.ack(question))
    world.answered(Response(OK, WRITE_ANSWER, 1, b""))


def test_answers_to_old_operations_do_not_count(world: World) -> None:
    two, client = world.peers[2], world.client
    client.send(client.write_frame(1, 13, OLD))
    old = two.expect(READ_PROC)
    two.send(two.value(old))
    two.expect(WRITE_PROC)
    two.send(two.ack(old))
    world.answered(Response(OK, WRITE_ANSWER, 1, b""))

    client.send(client.write_frame(2, 13, NEW))
    question = two.expect(READ_PROC)
    assert question.rid != old.rid
    two.send(two.value(old, 500, 2, OTHER), two.value(question._replace(rid=question.rid + 1), 500, 2, OTHER))
    assert world.stored(13) == (1, 1, OLD)
    two.send(two.value(question))
    assert two.expect(WRITE_PROC)[3:] == (question.rid, 13, 2, 1, NEW)
    two.send(two.ack(old))
    assert world.stored(13) == (2, 1, NEW)
    world.unanswered()
    two.send(two.ack(question))
    world.answered(Response(OK, WRITE_ANSWER, 2, b""))


def test_messages_are_sent_again_until_they_are_answered(world: World) -> None:
    """At growing intervals, the same each time; a receipt is enough until the connection breaks."""
    two, three, client = world.peers[2], world.peers[3], world.client
    began_s = time.monotonic()
    client.send(client.read_frame(1, 14))
    question = two.expect(READ_PROC)
    acknowledged = three.expect(READ_PROC)
    three.send(three.receipt(acknowledged), three.read_proc(2, 15))
    assert three.expect(VALUE).rid == 2  # it has the receipt by now
    # Each is due not before the intervals up to it, which are 0.8 of the nominal ones at least; how late it comes says
    # something about the load of the machine. Intervals that do not grow would be over after 1.8 s.
    least_s, interval_s = 0.0, RESEND_FIRST_S / 2
    for _ in range(3):
        interval_s *= 2 * 0.8
        least_s += interval_s
        again = two.next_arrived()
        assert again.message == question and again.at - began_s >= least_s
    three.nothing_within(0.01)
    three.drop()
    assert three.next_arrived().message == acknowledged
    three.send(three.value(acknowledged))
    world.answered(Response(OK, READ_ANSWER, 1, ZEROS))


def test_nothing_comes_of_an_operation_that_has_finished(world: World) -> None:
    two, three, client = world.peers[2], world.peers[3], world.client
    client.send(client.write_frame(1, 15, NEW))
    two.send(two.value(two.expect(READ_PROC)))
    message = two.expect(WRITE_PROC)
    two.send(two.ack(message))
    world.answered(Response(OK, WRITE_ANSWER, 1, b""))
    three.expect(READ_PROC)
    three.expect(WRITE_PROC)  # which node 3 has answered neither of
    three.send(three.read_proc(2, 16))
    assert three.expect(VALUE).rid == 2  # behind what was sent again before it had finished
    three.nothing_within(1.2)  # twice the first interval
    three.drop()
    world.seed(16, 1, 2, OLD)
    two.nothing_within(0.01)
    three.send(three.read_proc(3, 16))
    assert three.next_arrived().message.rid == 3  # the first thing on the new connection


def test_what_is_asked_while_a_node_is_away_reaches_it(world: World) -> None:
    """Answers wait for the connection as questions do."""
    two = world.peers[2]
    two.drop()
    two.send(two.write_proc(21, 17, 3, 2, OLD), two.read_proc(22, 18))
    assert {two.expect(None).rid for _ in range(2)} == {21, 22}


def test_identifiers_are_not_used_again_after_a_crash(world: World) -> None:
    two, three = world.peers[2], world.peers[3]
    rids: list[int] = []
    for round_ in range(3):
        client = world.client
        client.send(client.write_frame(round_, 19, NEW), client.read_frame(100 + round_, 20))
        questions = {message.sector: message for message in (two.expect(READ_PROC), two.expect(READ_PROC))}
        assert {three.expect(READ_PROC).rid, three.expect(READ_PROC).rid} == {m.rid for m in questions.values()}
        for rid in rids:
            two.send(two.value(questions[19]._replace(rid=rid), 900, 2, OTHER))
        rids += [message.rid for message in questions.values()]
        if round_ < 2:
            world.crash()
    assert len(set(rids)) == len(rids)
    two.send(two.value(questions[19]))
    assert two.expect(WRITE_PROC)[3:] == (questions[19].rid, 19, 1, 1, NEW)


def test_write_proc_is_durable_before_its_ack(world: World) -> None:
    two = world.peers[2]
    for round_ in range(1, 4):
        data = os.urandom(4096)
        two.send(two.write_proc(round_, 30, round_, 3, data))
        ack = two.expect(ACK)
        assert (ack.rank, ack.rid, ack.sector) == (1, round_, 30)
        world.crash()
        assert world.stored(30) == (round_, 3, data)


def test_a_lower_tag_is_acknowledged_and_not_stored(world: World) -> None:
    two = world.peers[2]
    world.seed(31, 10, 2, OLD)
    for ts, wr in ((9, 3), (10, 1), (10, 2), (1, 1)):
        two.send(two.write_proc(40 + wr, 31, ts, wr, OTHER))
        assert two.expect(ACK).rid == 40 + wr
        assert world.stored(31) == (10, 2, OLD)
    two.send(two.write_proc(50, 31, 10, 3, NEW))
    assert two.expect(ACK).rid == 50
    assert world.stored(31) == (10, 3, NEW)


def test_a_repeat_is_acknowledged_again_and_done_once(world: World) -> None:
    two = world.peers[2]
    message = two.write_proc(60, 32, 4, 2, OLD)
    two.send(message)
    assert two.expect(ACK).rid == 60
    two.send(message, message)
    assert two.expect(ACK).rid == 60 and two.expect(ACK).rid == 60
    world.seed(32, 5, 2, NEW)
    two.send(message)
    assert two.expect(ACK).rid == 60
    assert world.stored(32) == (5, 2, NEW)
    # A uuid that is used for another message, too, does not make that one a repeat.
    two.send(two.write_proc(61, 33, 1, 2, OTHER)._replace(uuid=message.uuid))
    assert two.expect(ACK).rid == 61
    assert world.stored(33) == (1, 2, OTHER)


def test_receipts_are_taken_and_given(world: World) -> None:
    two, client = world.peers[2], world.client
    client.send(client.write_frame(1, 34, NEW))
    question = two.expect(READ_PROC)
    value = two.value(question)
    two.send(two.receipt(question), two.receipt(question._replace(uuid=bytes(16))), value)
    two.wait_for_receipt(value)
    message = two.expect(WRITE_PROC)
    ack = two.ack(message)
    two.send(two.receipt(message), ack)
    two.wait_for_receipt(ack)
    world.answered(Response(OK, WRITE_ANSWER, 1, b""))


def test_answers_may_come_over_the_node_s_own_connection(world: World) -> None:
    two, client = world.peers[2], world.client
    client.send(client.write_frame(1, 35, NEW))
    two.send_back(two.value(two.expect(READ_PROC)))
    two.send_back(two.ack(two.expect(WRITE_PROC)))
    world.answered(Response(OK, WRITE_ANSWER, 1, b""))


def test_who_ignores_the_greeting_is_left_in_peace(world: World) -> None:
    """The greeting comes over a second connection, which the node gives up; the first stays in use."""
    two, client = world.peers[2], world.client
    two.send(two.read_proc(1, 36))
    before = two.arrived(VALUE)
    until(lambda: two.greetings == 1 and two.greetings_ended == 1, "the node gives up its greeting")
    client.send(client.read_frame(1, 36))
    after = two.arrived(READ_PROC)
    assert after.connection == before.connection
    two.send(two.value(after.message))
    world.answered(Response(OK, READ_ANSWER, 1, ZEROS))
    assert two.greetings == 1
