"""Where nodes are: what a node tells, takes, keeps and follows, with a real storage and interpreter."""

from __future__ import annotations

import logging

import pytest

from dsreg.protocol.address import Address, Place
from dsreg.protocol.life import Stage
from dsreg.protocol.messages import FEATURE_ADDRESSES, AddressReport
from dsreg.register.addresses import MAX_CORRECTIONS, Moved
from dsreg.testing.memory_files import drop_all
from tests.node.members_play import OTHER, OWN, THREE, TWO, Node, Wire, begun, report

HERE, THERE, ELSEWHERE = Place("here", 1), Place("there", 2), Place("elsewhere", 3)


def addresses_told(wire: Wire) -> list[dict[int, Address]]:
    return [message.addresses for message in wire.got if isinstance(message, AddressReport)]


def listens(node: Node) -> Wire:
    wire = Wire()
    node.members.listens(wire, node=True, answer=True, features=FEATURE_ADDRESSES)  # type: ignore[arg-type]
    return wire


def test_where_it_is_is_durable_before_it_is_told_and_another_place_is_the_next() -> None:
    node = begun()
    for place, sequence in ((HERE, 1), (HERE, 1), (THERE, 2), (HERE, 3)):
        node = Node(node.files.crash(drop_all), place=place)
        own = Address(OWN, sequence, place)
        assert addresses_told(listens(node)) == [{1: own}]
        assert node.storage.lives.addresses == {1: own}


def test_a_node_without_a_place_and_a_listener_that_does_not_want_it_hear_nothing() -> None:
    node = begun()
    assert addresses_told(listens(node)) == []
    node = Node(node.files.crash(drop_all), place=HERE)
    _, wire = node.accept()
    assert addresses_told(wire) == []


def test_what_is_heard_of_others_is_kept_and_told_to_all_and_followed() -> None:
    node = begun(HERE)
    wire, moves = listens(node), list[tuple[int, Moved]]()
    node.members.addressing.on_moved = lambda rank, moved: moves.append((rank, moved))
    node.members.told(report(2, TWO, three=THREE))
    at = {2: Address(TWO, 1, THERE), 3: Address(THREE, 4, ELSEWHERE)}
    wire.got.clear()
    node.members.addressing.told(AddressReport(2, True, at))
    assert addresses_told(wire) == [{1: Address(OWN, 1, HERE), **at}]
    assert moves == [(2, Moved(at[2], True)), (3, Moved(at[3], True))]
    node.members.addressing.told(AddressReport(2, True, {3: Address(THREE, 3, HERE)}))
    assert len(addresses_told(wire)) == 1 and len(moves) == 2, "an older one"
    node.now_s = node.members.next_due
    node.members.tick()
    assert node.members.next_due > node.now_s
    again = Node(node.files.crash(drop_all), place=HERE)
    assert addresses_told(listens(again)) == [{1: Address(OWN, 1, HERE), **at}]
    assert again.members.report()["addresses"]["3"] == {  # type: ignore[index]
        "address": "elsewhere:3", "life": 1, "sequence": 4,
    }


@pytest.mark.allow_logs("node 2 is neither asked")
def test_an_impostor_with_the_rank_of_another_node_is_not_believed() -> None:
    node = begun(HERE)
    connection, _ = node.accept()
    node.members.told(report(2, TWO))
    node.members.told(report(2, OTHER, Stage.ASKING), connection)
    node.members.addressing.told(AddressReport(2, True, {2: Address(OTHER, 9, THERE)}))
    node.members.addressing.told(AddressReport(1, True, {2: Address(TWO, 9, THERE)}))  # its own words
    assert node.storage.lives.addresses == {1: Address(OWN, 1, HERE)} and node.members.addressing.of(2) is None


@pytest.mark.allow_logs("a process at elsewhere:3 says that it is node 1")
def test_a_directory_that_was_put_back_says_again_where_it_is_and_a_copy_is_complained_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    node = begun(HERE)
    wire = listens(node)
    node.members.told(report(2, TWO))
    for number in range(1, MAX_CORRECTIONS + 3):
        node.members.addressing.told(AddressReport(2, True, {1: Address(OWN, 10 * number, ELSEWHERE)}))
        own = Address(OWN, 10 * min(number, MAX_CORRECTIONS) + 1, HERE)
        assert addresses_told(wire)[-1] == {1: own} == node.storage.lives.addresses
    assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) == 1


def test_without_room_addresses_are_used_and_are_written_when_there_is_some() -> None:
    node = begun(HERE)
    node.members.told(report(2, TWO))
    moves = list[int]()
    node.members.addressing.on_moved = lambda rank, moved: moves.append(rank)
    node.files.capacity = node.files.used()
    at = Address(TWO, 1, Place("x" * 255, 1))
    node.members.addressing.told(AddressReport(2, True, {2: at}))
    assert moves == [2]
    node.files.capacity = None
    node.members.told(report(3, THREE))
    assert Node(node.files.crash(drop_all)).storage.lives.addresses[2] == at
