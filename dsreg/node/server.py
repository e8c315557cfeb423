"""Accepted connections: clients and other nodes, on one port; the message type tells them apart."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable, Iterable

import trio

from dsreg.constants import (
    MAX_COMMAND_BYTES_PER_CONNECTION,
    MAX_COMMANDS_PER_CONNECTION,
    MAX_FILE_DESCRIPTORS,
    MAX_RUN_BYTES,
)
from dsreg.link.accepted_line import AcceptedLine
from dsreg.link.effects import (
    AnswerUnder,
    Close,
    Complain,
    Effect,
    Features,
    Fresh,
    GreetedBy,
    Introduce,
    LimitRecords,
    Put,
    SealedBy,
    SealWith,
    Take,
)
from dsreg.node.connection_table import ConnectionTable
from dsreg.node.interpreter import Connection, Interpreter
from dsreg.node.members import Members
from dsreg.protocol.choosing import Answered, ConfigurationReport, Proposed
from dsreg.protocol.codec import Keys, UnsealingDecoder
from dsreg.protocol.greeting import Seals
from dsreg.protocol.messages import (
    Ack,
    AddressReport,
    Command,
    DigestQuery,
    Digests,
    Fenced,
    Hello,
    LivesReport,
    Message,
    ReadProc,
    Receipt,
    RefusedCommand,
    Response,
    ScrubBegun,
    ScrubRequest,
    Status,
    StatusReport,
    StatusRequest,
    Sums,
    SumsQuery,
    Value,
    WriteProc,
)
from dsreg.register.execution import uncounted
from dsreg.transport import Transport

log = logging.getLogger("dsreg.node")

# Reading stops while this much waits to be sent: a peer that asks and does not listen is made to wait.
MAX_OUTGOING_BYTES = 4 * MAX_RUN_BYTES
# A connection whose other side has ended its part stays this long for what is still to be answered: an answer
# takes milliseconds, and without a majority nobody can say how long.
HALF_CLOSED_S = 30.0
# Between two warnings about what comes in and must not.
COMPLAIN_S = 60.0
# How often a connection that is not being read is looked at, whether anybody is there.
LOOK_S = 1.0
# Work for all clients together. Beyond it a connection is read again only once it has nothing unfinished.
MAX_OPERATIONS = 2048
MAX_OPERATION_BYTES = 128 * MAX_RUN_BYTES

# What the other nodes ask and answer.
_BETWEEN_NODES = (ReadProc, WriteProc, Value, Ack, Fenced, DigestQuery, Digests, SumsQuery, Sums, Receipt)


class Server:
    """`greeting`: the answer to a HELLO; another one may be set. `report`: makes the body of a STATUS answer. `places`:
    how many connections. What greetings decide about a connection: dsreg.link.accepted_line. Counters of decoders have
    one key more: "unproven", messages in the name of a node that has not shown its directory, or does not tell of
    configurations.
    """

    def __init__(
        self,
        interpreter: Interpreter,
        greeting: Hello,
        new_decoder: Callable[[bool], UnsealingDecoder],
        report: Callable[[], bytes],
        seals: Seals,
        members: Members,
        places: int = MAX_FILE_DESCRIPTORS,
    ) -> None:
        self.table = ConnectionTable(places)
        self.connections = self.table.connections
        self.stopping = False
        self._ended: Counter[str] = Counter()  # of the decoders of connections that are over
        self.on_node_sealed: Callable[[int], None] = lambda rank: None  # the node has sealed a connection to this one
        self.on_scrub: Callable[[], int] = lambda: 0  # a client wants a pass of dsreg.register.scrub; its number
        # What comes over the connection is of other keys than before; it is over. See dsreg.node.keys.
        self.on_other_key: Callable[[Connection, Keys], None] = lambda connection, keys: None
        self.on_end: Callable[[Connection, AcceptedLine], None] = lambda connection, line: None
        self._complain_again = -math.inf
        self._interpreter = interpreter
        self.greeting = greeting
        self._new_decoder = new_decoder
        self._report = report
        self._seals = seals
        self._members = members
        members.membership.on_gone = self._give_up

    def decoder_counters(self) -> Counter[str]:
        """Of all connections since the start."""
        counters = self._ended.copy()
        for line in self.connections.values():
            counters.update(line.decoder.counters)
        return counters

    def new_line(self) -> AcceptedLine:
        """For a connection that has been accepted."""
        return AcceptedLine(self.greeting, self._seals, self._new_decoder(False))

    async def serve(self, transport: Transport) -> None:
        """One connection, until it is over."""
        connection, line = Connection(transport), self.new_line()
        self.table.add(connection, line, self._interpreter.clock())
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(transport.run_writer)
                with connection.patience:
                    await self._receive(connection, line)
                if connection.patience.cancelled_caught:
                    self.carry_out_all(connection, line, line.tick(self._interpreter.clock()))
                await self._answer_the_rest(connection)
                nursery.cancel_scope.cancel()
        finally:
            self.table.remove(connection)
            self.on_end(connection, line)
            self._ended.update(line.decoder.counters)
            transport.close()
            self._members.left(transport, connection)
            self._interpreter.disconnected(connection)

    async def _receive(self, connection: Connection, line: AcceptedLine) -> None:
        """Until the other side has said all it has to say, or the connection is over."""
        transport = connection.transport
        while data := await transport.receive():
            for effect in line.received(data, self._interpreter.clock()):
                self.carry_out(connection, line, effect)
                if connection.unfinished and isinstance(effect, Take) and self._is_busy(connection):
                    self._interpreter.end_turn()
                    await self._room(connection)
                    if transport.closed:
                        break  # nobody is left to answer: the rest goes the way of what was not read
            self._interpreter.end_turn()
            if connection.patience.deadline != line.next_due:
                connection.patience.deadline = line.next_due
            self.table.used(connection)
            await transport.drained(MAX_OUTGOING_BYTES)

    async def _answer_the_rest(self, connection: Connection) -> None:
        """The other side has said all it will say, but may still listen."""
        with trio.move_on_after(HALF_CLOSED_S):
            while connection.unfinished and not connection.transport.closed:
                await self._wait_for_answer(connection)
            await connection.transport.drained(0)

    def _is_busy(self, connection: Connection) -> bool:
        interpreter = self._interpreter
        return connection.unfinished > 0 and (
            connection.unfinished >= MAX_COMMANDS_PER_CONNECTION
            or connection.unfinished_bytes >= MAX_COMMAND_BYTES_PER_CONNECTION
            or interpreter.unfinished_bytes >= MAX_OPERATION_BYTES
            or interpreter.replica.unfinished() >= MAX_OPERATIONS
        )

    async def _room(self, connection: Connection) -> None:
        """Back-pressure: not reading leaves the rest in the TCP buffers, which stops the sender."""
        await connection.transport.drained(MAX_OUTGOING_BYTES)
        while self._is_busy(connection) and not connection.transport.closed:
            await self._wait_for_answer(connection)

    async def _wait_for_answer(self, connection: Connection) -> None:
        """Until a command is answered. Meanwhile nothing is read, so the end of the connection must be looked for."""
        answered = connection.room = trio.Event()
        waits = True
        while waits and not connection.transport.closed:
            with trio.move_on_after(LOOK_S) as look:
                await answered.wait()
            waits = look.cancelled_caught
            if connection.transport.is_dead():
                connection.transport.close()
        connection.room = None

    # --- effects of a line, and messages ------------------------------------------------------------
    def carry_out_all(self, connection: Connection, line: AcceptedLine, effects: Iterable[Effect]) -> None:
        for effect in effects:
            self.carry_out(connection, line, effect)

    def carry_out(self, connection: Connection, line: AcceptedLine, effect: Effect) -> None:
        if isinstance(effect, Take):
            self._take(connection, line, effect.message)
        elif isinstance(effect, Put):
            for message in effect.messages:
                self._interpreter.tell(connection.transport, message)
        elif isinstance(effect, SealWith):
            connection.transport.seal(effect.sealer)
        elif isinstance(effect, Features):
            connection.transport.features = effect.features
        elif isinstance(effect, LimitRecords):
            connection.transport.record_bytes = effect.size
        elif isinstance(effect, Fresh):
            self.table.prove(connection)
        elif isinstance(effect, Introduce):
            self._members.listens(
                connection.transport, node=line.rank != 0, answer=True, features=effect.features
            )
        elif isinstance(effect, GreetedBy):
            self._members.greets(effect.rank, effect.incarnation)
        elif isinstance(effect, SealedBy):
            self.on_node_sealed(effect.rank)
        elif isinstance(effect, AnswerUnder):
            self.on_other_key(connection, effect.keys)
        elif isinstance(effect, Close):
            self._interpreter.end_turn()  # what has been answered is sent before
            connection.transport.close()
        else:
            assert isinstance(effect, Complain)
            self._complain(connection, effect.text)

    def _complain(self, connection: Connection, text: str) -> None:
        """What somebody must mend is said, but not a thousand times."""
        if self._interpreter.clock() >= self._complain_again:
            self._complain_again = self._interpreter.clock() + COMPLAIN_S
            log.warning("%s %s", connection.transport.peer, text, extra={"peer": connection.transport.peer})

    def _take(self, connection: Connection, line: AcceptedLine, message: Message) -> None:
        interpreter = self._interpreter
        if isinstance(message, Command):
            if self.stopping or not self._members.membership.is_member:
                self._refuse(connection, message)
            elif not self._members.may_count(connection.transport) and (refusal := uncounted(message)):
                interpreter.tell(connection.transport, refusal)
            else:
                interpreter.command(connection, message)
        elif isinstance(message, _BETWEEN_NODES):
            configuring = self._members.configuring
            if self._members.admits(connection, message.rank) and configuring.admits(connection.transport, message):
                interpreter.message(connection, message)
            else:
                line.decoder.counters["unproven"] += 1
        elif isinstance(message, (LivesReport, ConfigurationReport)):
            self._members.told(message, connection)
        elif isinstance(message, AddressReport):
            self._members.addressing.told(message)
        elif isinstance(message, RefusedCommand):
            response = Response(message.status, message.kind, message.request, extended=message.extended)
            interpreter.tell(connection.transport, response)
        elif isinstance(message, StatusRequest):
            interpreter.tell(connection.transport, StatusReport(message.request, self._report()))
        elif isinstance(message, Proposed):
            answer = self._members.configuring.asked(message.question)
            interpreter.tell(connection.transport, Answered(message.request, answer))
        elif isinstance(message, ScrubRequest):
            interpreter.tell(connection.transport, ScrubBegun(message.request, self.on_scrub()))

    def _give_up(self) -> None:
        """The node has left the cluster. What it has begun it completes, unless it never came to serve."""
        if not self._interpreter.started:
            for connection, command in self._interpreter.give_up():
                self._refuse(connection, command)

    def _refuse(self, connection: Connection, command: Command) -> None:
        """The node is stopping, or is no member. The contract has no word for it: its clients see the connection end.
        """
        if command.extended:
            response = Response(Status.STOPPING, command.kind, command.request, extended=True)
            self._interpreter.tell(connection.transport, response)
        elif not self.stopping:
            connection.transport.close()
