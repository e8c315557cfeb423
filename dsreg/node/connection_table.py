"""ConnectionTable: the accepted connections, and which of them go when places or memory run short.

A connection is *fresh* once its other side has shown that it has the key, now: it is sealed, and a record has come that
opens. Everything else may have been recorded and be sent again by anybody: a HELLO and a SEAL as well, whose answer a
replay can do nothing with. So what is not fresh holds a place only as long as there are others, and little memory.
A party of the contract is never fresh; it may idle for as long as it likes, until places run short.
"""

from __future__ import annotations

from collections import Counter

from dsreg.constants import MAX_RUN_BYTES
from dsreg.link.accepted_line import AcceptedLine
from dsreg.node.interpreter import Connection
from dsreg.protocol.wire import VALUE_SIZE

# Places for fresh connections of one node. It uses one, and for a while has old ones that nobody has closed.
MAX_LINKS_PER_RANK = 4
# Bytes of unfinished frames that all connections keep together that are not fresh. There is always room for a short
# frame of the contract on each of MAX_FILE_DESCRIPTORS connections. The rest is for some runs of a megabyte.
MAX_UNPROVEN_BYTES = 16 * MAX_RUN_BYTES
# A connection over which nothing authentic has come counts as new for so long, and is not the first to go.
NEW_S = 2.0


class ConnectionTable:
    """`places`: how many connections there may be; the caller waits for one to end if there are more.

    The set `connections` is kept in the order of last use. Times (`now`) in seconds.
    """

    def __init__(self, places: int) -> None:
        self.connections: dict[Connection, AcceptedLine] = {}
        self.places = places
        # One address leaves some places to the others, as long as it has not shown that it has the key.
        self.places_of_an_address = max(1, places - places // 4)
        self.unproven_bytes = 0
        self._addresses: Counter[str] = Counter()  # connections that are not fresh

    def add(self, connection: Connection, line: AcceptedLine, now: float) -> None:
        """A new one, and what is known of it. For it another one of its address may have to go."""
        connection.since_s = now
        self.connections[connection] = line
        self._addresses[connection.address] += 1
        if self._addresses[connection.address] > self.places_of_an_address:
            others = [one for one in self._unproven() if one.address == connection.address and one is not connection]
            if len(others) >= self.places_of_an_address:
                self._least(others, now).transport.close()

    def unsealed(self, now: float) -> int:
        """How many are not sealed, although they have had the time for it."""
        return sum(not one.transport.is_sealed and now - one.since_s >= NEW_S for one in self.connections)

    def remove(self, connection: Connection) -> None:
        """It is over."""
        del self.connections[connection]
        if not connection.is_fresh:
            self._leave_unproven(connection)

    def used(self, connection: Connection) -> None:
        """Something has come over it."""
        self.connections[connection] = line = self.connections.pop(connection)
        if connection.is_fresh or (held := line.decoder.held) == connection.held:
            return
        self.unproven_bytes += held - connection.held
        connection.held = held
        while self.unproven_bytes > MAX_UNPROVEN_BYTES:
            self._close_hoarder()

    def prove(self, connection: Connection) -> None:
        """Its other side has shown that it has the key, and that it is there now."""
        if connection.is_fresh:
            return
        self._leave_unproven(connection)
        connection.is_fresh = True
        rank = self.connections[connection].rank
        if rank:
            links = [
                one for one, line in self.connections.items()
                if one.is_fresh and line.rank == rank and not one.transport.closed and one is not connection
            ]
            if len(links) >= MAX_LINKS_PER_RANK:
                links[0].transport.close()

    def make_room(self, now: float) -> None:
        """Close a connection for a new one: one that is not fresh, else an idle client's, else a client's; of these the
        one that has been unused for longest. Links of other nodes that are fresh keep their places."""
        unproven = self._unproven()
        clients = [
            one for one, line in self.connections.items() if one.is_fresh and not line.rank and not one.transport.closed
        ]
        if unproven:
            self._least(unproven, now).transport.close()
        elif clients:
            min(clients, key=lambda one: one.unfinished > 0).transport.close()

    # --- what is not fresh --------------------------------------------------------------------------
    def _unproven(self) -> list[Connection]:
        return [one for one in self.connections if not one.is_fresh and not one.transport.closed]

    def _least(self, candidates: list[Connection], now: float) -> Connection:
        """One of the address that has most of them: one over which nothing authentic has come for a while, else an idle
        one; of these the one that has been unused for longest."""

        def merit(one: Connection) -> tuple[int, bool, bool]:
            is_wanted = self.connections[one].is_known or now - one.since_s < NEW_S
            return -self._addresses[one.address], is_wanted, one.unfinished > 0

        return min(candidates, key=merit)

    def _close_hoarder(self) -> None:
        """The one that has been unused for longest of those that keep more than a frame of the contract."""
        hoarder = next(one for one in self.connections if not one.is_fresh and one.held > VALUE_SIZE)
        self.unproven_bytes -= hoarder.held
        hoarder.held = 0
        hoarder.transport.close()
        self.connections[hoarder].decoder.drop()  # its task comes to that only when many others have read a megabyte

    def _leave_unproven(self, connection: Connection) -> None:
        self._addresses[connection.address] -= 1
        if not self._addresses[connection.address]:
            del self._addresses[connection.address]
        self.unproven_bytes -= connection.held
        connection.held = 0
