"""A larger disk at a node: before it is voted for, and from when it is in force. With a real storage and interpreter.

docs/configurations.md, "A larger disk".
"""

from __future__ import annotations

import pytest

from dsreg.constants import SECTOR_SIZE, ZERO_SECTOR
from dsreg.protocol.choosing import Ask, ConfigurationReport, Elect, Objection, Promised, Voted
from dsreg.protocol.configuration import Record
from dsreg.protocol.life import Stage
from dsreg.protocol.messages import Command, CommandKind, Response, Status
from dsreg.testing.memory_files import MemoryFiles, drop_all
from tests.node.members_play import Node
from tests.node.test_configuring import FIRST, KEEPS, LOW, again, asked, client, listens, started, told_by

LARGER = FIRST._replace(number=2, sectors=300)


def heard(node: Node) -> Node:
    node.members.told(ConfigurationReport(2, False, LARGER))
    return node


# --- votes --------------------------------------------------------------------------------------------
def test_it_votes_for_a_larger_disk_and_has_none_before_it_is_chosen() -> None:
    node = started()
    assert asked(node, Ask(FIRST, LOW)) == Promised(None)
    assert asked(node, Elect(FIRST, LOW, LARGER)) == Voted()
    assert node.storage.sectors == again(node).storage.sectors == FIRST.sectors


def test_one_whose_file_system_has_no_room_for_so_long_a_file_has_no_vote() -> None:
    node = started()
    node.files.largest = 299 * SECTOR_SIZE
    answer = asked(node, Elect(FIRST, LOW, LARGER))
    assert isinstance(answer, Objection) and "node 1 cannot have a disk of that size" in answer.reason
    assert "which is 299 sectors" in answer.reason
    node.files.largest += SECTOR_SIZE
    assert asked(node, Elect(FIRST, LOW, LARGER)) == Voted()


@pytest.mark.allow_logs("no space to record which nodes there are, and how large the disk is")
def test_one_that_cannot_have_it_goes_on_without_a_say_and_follows_once_it_can() -> None:
    node = started()
    node.files.largest = 299 * SECTOR_SIZE
    wire = listens(node)
    heard(node)
    assert told_by(wire) == [FIRST] and node.storage.sectors == FIRST.sectors
    node.files.largest += SECTOR_SIZE
    heard(node)
    assert told_by(wire) == [FIRST, LARGER] and node.storage.sectors == LARGER.sectors


# --- in force -----------------------------------------------------------------------------------------
def test_it_is_larger_when_the_first_is_told_and_after_a_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    node = started()
    wire = listens(node)
    put = wire.put
    sizes: list[tuple[int, int]] = []

    def putting(buffers: object) -> None:
        sizes.append((node.storage.sectors, Node(node.files.crash(drop_all)).storage.sectors))
        put(buffers)  # type: ignore[arg-type]

    monkeypatch.setattr(wire, "put", putting)
    heard(node)
    assert sizes == [(LARGER.sectors, LARGER.sectors)]
    assert node.members.configuring.report()["sectors"] == LARGER.sectors


def test_what_is_stored_in_the_new_sectors_is_there_after_a_crash() -> None:
    node = heard(started())
    wire, connection = client(node, KEEPS)
    tags = b"\0" * 7 + b"\x05" + b"\0" * 7 + b"\x01"
    data = b"x" * SECTOR_SIZE
    node.storage.persist(299, 1, tags, data)
    node.commit()
    node.interpreter.command(connection, Command(CommandKind.GET, 1, 298, 2, b"", b"", True, 0, True))
    node.interpreter.end_turn()
    answer = wire.got[-1]
    assert isinstance(answer, Response) and answer.status is Status.OK and bytes(answer.data) == ZERO_SECTOR + data
    later = again(node)
    assert later.storage.tags(299, 1) == tags and later.storage.sectors == LARGER.sectors


# --- nodes that lost their directory --------------------------------------------------------------------
def rejoining() -> Node:
    """It claims the next life of its rank."""
    node = Node(MemoryFiles(), rejoin=True)
    node.storage.learning.begin()
    return node


def test_one_that_takes_it_over_with_its_claim_knows_nothing_of_all_of_it() -> None:
    node = rejoining()
    assert node.members.configuring.takes_over(Record(LARGER))
    assert node.storage.sectors == node.storage.learning.left == LARGER.sectors
    assert node.storage.unknown(290, 10) == list(range(290, 300))
    later = Node(node.files.crash(drop_all), rejoin=True)
    assert later.storage.learning.left == LARGER.sectors


def test_one_that_was_started_with_too_large_a_size_takes_what_is_in_force() -> None:
    node = rejoining()
    node.storage.grow(10_000)  # as the file had it
    assert node.members.configuring.takes_over(Record(LARGER))
    assert node.storage.sectors == node.storage.learning.left == LARGER.sectors
    assert node.members.stage is not Stage.STARTED
