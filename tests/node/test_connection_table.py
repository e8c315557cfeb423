"""Which connections keep their places and their memory."""

from __future__ import annotations

from collections.abc import Sequence

from dsreg.node.connection_table import MAX_LINKS_PER_RANK, MAX_UNPROVEN_BYTES, NEW_S, ConnectionTable
from dsreg.node.interpreter import Connection
from dsreg.protocol.wire import VALUE_SIZE


class FakeTransport:
    """Only what is closed of it."""

    def __init__(self, address: str) -> None:
        self.peer = f"{address}:1"
        self.closed = False

    def close(self) -> None:
        self.closed = True


class FakeLine:
    """Only what is known of it, and what its decoder holds."""

    def __init__(self, rank: int, is_known: bool) -> None:
        self.rank = rank
        self.is_known = is_known
        self.held = 0

    @property
    def decoder(self) -> FakeLine:
        return self

    def drop(self) -> None:
        self.held = 0


class Play:
    """ConnectionTable, and what its caller does: a connection that was closed is removed at the next `turn`."""

    def __init__(self, places: int = 100) -> None:
        self.table = ConnectionTable(places)
        self.now = 0.0

    def connect(self, address: str = "a", *, known: bool = False, fresh: bool = False, rank: int = 0) -> Connection:
        connection = Connection(FakeTransport(address))  # type: ignore[arg-type]
        self.table.add(connection, FakeLine(rank, known or fresh), self.now)  # type: ignore[arg-type]
        if fresh:
            self.table.prove(connection)
        return connection

    def use(self, connection: Connection, held: int) -> None:
        self.table.connections[connection].held = held  # type: ignore[misc]
        self.table.used(connection)

    def turn(self) -> None:
        for connection in [one for one in self.table.connections if one.transport.closed]:
            self.table.remove(connection)

    def make_room(self) -> None:
        self.table.make_room(self.now)

    def end(self) -> None:
        """Nothing of it stays counted."""
        for connection in list(self.table.connections):
            self.table.remove(connection)
        assert self.table.unproven_bytes == 0 and not self.table._addresses


def closed(connections: Sequence[Connection]) -> list[int]:
    return [index for index, connection in enumerate(connections) if connection.transport.closed]


def test_who_says_to_be_a_node_goes_before_any_client_that_is_fresh() -> None:
    """A HELLO and a SEAL can be recorded, a record cannot."""
    play = Play()
    client, node = play.connect(fresh=True), play.connect(fresh=True, rank=2)
    replayed = [play.connect(known=True, rank=2) for _ in range(3)]
    for _ in range(3):
        play.make_room()
    assert closed(replayed) == [0, 1, 2] and not closed([client, node])
    play.make_room()
    assert client.transport.closed
    play.make_room()
    assert not node.transport.closed, "links of nodes that are fresh stay"
    play.turn()
    play.end()


def test_the_most_crowded_address_makes_room() -> None:
    play = Play()
    lonely, *crowd = [play.connect(address, known=True) for address in "bccc"]
    play.use(crowd[0], 0)
    for _ in range(2):
        play.make_room()
        play.turn()
    assert closed(crowd) == [1, 2], "those that have been unused for longest"
    assert not lonely.transport.closed
    play.end()


def test_strangers_go_first_unless_they_have_only_just_come() -> None:
    play = Play()
    stranger, known = play.connect(), play.connect(known=True)
    play.now = NEW_S / 2
    new = play.connect()
    play.now = NEW_S
    play.make_room()
    assert closed([stranger, known, new]) == [0]
    play.make_room()
    assert closed([stranger, known, new]) == [0, 1], "a new one may be about to say who it is"
    play.turn()
    play.end()


def test_one_that_works_goes_after_one_that_is_idle() -> None:
    for fresh in (False, True):
        play = Play()
        works, idle = play.connect(known=True, fresh=fresh), play.connect(known=True, fresh=fresh)
        works.unfinished = 1
        play.make_room()
        assert closed([works, idle]) == [1]
        play.turn()
        play.end()


def test_one_address_leaves_places_to_others() -> None:
    play = Play(places=8)
    fresh = [play.connect(fresh=True) for _ in range(3)]
    crowd = [play.connect(known=True) for _ in range(6)]
    assert not closed(crowd), "what is fresh does not count"
    late = play.connect()
    assert closed(crowd) == [0] and not late.transport.closed
    assert not closed([play.connect("b")])
    play.turn()
    assert not closed(fresh)
    play.end()


def test_one_node_has_some_links_and_no_more() -> None:
    play = Play()
    links = [play.connect(fresh=True, rank=2) for _ in range(MAX_LINKS_PER_RANK)]
    other = play.connect(fresh=True, rank=3)
    play.use(links[0], 0)
    play.connect(fresh=True, rank=2)
    assert closed(links) == [1] and not other.transport.closed
    play.turn()
    play.end()


def test_unfinished_frames_are_bounded_in_total() -> None:
    """The oldest long ones go; those of the contract never do."""
    play = Play()
    small = [play.connect(known=True) for _ in range(10)]
    for connection in small:
        play.use(connection, VALUE_SIZE)
    fresh = play.connect(fresh=True)
    play.use(fresh, 2 * MAX_UNPROVEN_BYTES)
    large = [play.connect(known=True) for _ in range(8)]
    for connection in large:
        for part in (1, 2, 3):
            play.use(connection, part * MAX_UNPROVEN_BYTES // 12)
    assert closed(large) == [0, 1, 2, 3, 4], "three of a quarter each, and the small ones"
    assert not closed([*small, fresh])
    assert play.table.unproven_bytes <= MAX_UNPROVEN_BYTES
    play.turn()
    play.end()


def test_what_has_been_counted_is_not_when_a_connection_becomes_fresh() -> None:
    play = Play()
    connection = play.connect()
    play.use(connection, 1000)
    play.table.prove(connection)
    assert play.table.unproven_bytes == 0
    play.use(connection, 5000)
    assert play.table.unproven_bytes == 0
    play.end()


def test_what_a_closed_connection_has_kept_is_freed_at_once() -> None:
    """Not when its task comes to that, behind all those that read."""
    play = Play()
    hoarder = play.connect()
    play.use(hoarder, MAX_UNPROVEN_BYTES + 1)
    assert hoarder.transport.closed and play.table.connections[hoarder].held == 0 and play.table.unproven_bytes == 0
    play.turn()
    play.end()
