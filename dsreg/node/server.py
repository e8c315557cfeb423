"""Accepted connections: clients and other nodes, on one port; the message type tells them apart."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

import trio

from dsreg.constants import (
    MAX_COMMAND_BYTES_PER_CONNECTION,
    MAX_COMMANDS_PER_CONNECTION,
    MAX_FILE_DESCRIPTORS,
    MAX_RUN_BYTES,
)
from dsreg.node.connection_table import HANDSHAKE_S, ConnectionTable
from dsreg.node.interpreter import Connection, Interpreter
from dsreg.node.members import Members
from dsreg.protocol.codec import UnsealingDecoder
from dsreg.protocol.greeting import Seals
from dsreg.protocol.messages import (
    FEATURE_LIVES,
    FEATURE_SEALED,
    Ack,
    Command,
    Fenced,
    Hello,
    LivesReport,
    Message,
    ReadProc,
    Receipt,
    RefusedCommand,
    Response,
    Seal,
    Status,
    StatusReport,
    StatusRequest,
    Value,
    WriteProc,
)
from dsreg.protocol.record_bound import RecordBound
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

# What may come over a connection that is not sealed where they have to be: greetings, and what has no effect anyway.
_UNSEALED = (Hello, Seal, RefusedCommand)
# By counter of a decoder.
_COMPLAINTS = {
    "bad_mac": "sends frames with a wrong HMAC: its keys differ, or data is corrupted in transit",
    "bad_record": "is disconnected: data on its sealed connection was corrupted or reordered in transit",
    "bad_seal": "is disconnected: its handshake message does not fit this connection",
    "unsealed": "does not seal its connection, which require_sealed demands: its requests are refused",
}

# Counters of bytes that are none of a good frame.
_DAMAGED = ("bad_mac", "bad_header", "skipped_bytes")


class Server:
    """`greeting`: the answer to a HELLO. `report`: makes the body of a STATUS answer. `places`: how many connections.
    Counters of decoders have one key more: "unproven", messages in the name of a node that has not shown its directory.

    Where `seals.required` is set, only greetings have an effect on a connection that is not sealed.
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
        self.decoder_counters: dict[str, int] = {}
        self.on_node_sealed: Callable[[int], None] = lambda rank: None  # the node has sealed a connection to this one
        self._complain_again = -math.inf
        self._interpreter = interpreter
        self._greeting = greeting
        self._new_decoder = new_decoder
        self._report = report
        self._seals = seals
        self._members = members

    async def serve(self, port: Transport) -> None:
        """One connection, until it is over."""
        connection = Connection(port)
        decoder = self._new_decoder(False)
        self.table.add(connection, decoder, self._interpreter.clock())
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(port.run_writer)
                with connection.patience:
                    await self._receive(connection, decoder)
                if connection.patience.cancelled_caught:
                    port.close()
                await self._answer_the_rest(connection)
                nursery.cancel_scope.cancel()
        finally:
            self.table.remove(connection)
            for name, count in decoder.counters.items():
                self.decoder_counters[name] = self.decoder_counters.get(name, 0) + count
            port.close()
            self._members.left(port, connection)
            self._interpreter.disconnected(connection)

    async def _receive(self, connection: Connection, decoder: UnsealingDecoder) -> None:
        """Until the other side has said all it has to say, or the connection is over."""
        port = connection.port
        while data := await port.receive():
            messages = decoder.feed(data)
            self._prove(connection, decoder)
            if messages and connection.records is not None:
                connection.records.heard()
                port.record_bytes = connection.records.bound
            for message in messages:
                self._take(connection, decoder, message)
                if self._is_busy(connection):
                    self._interpreter.end_turn()
                    await self._room(connection)
                    if port.closed:
                        break  # nobody is left to answer: the rest goes the way of what was not read
            self._interpreter.end_turn()
            self._judge(connection, decoder)
            self._prove(connection, decoder)
            self.table.used(connection)
            await port.drained(MAX_OUTGOING_BYTES)

    def _prove(self, connection: Connection, decoder: UnsealingDecoder) -> None:
        if decoder.proven and not connection.is_fresh:
            self.table.prove(connection)

    def _judge(self, connection: Connection, decoder: UnsealingDecoder) -> None:
        """Close a connection that is of no use any more. What somebody must mend is said, but not a thousand times."""
        if not decoder.counters:
            return  # it counts only what is wrong
        port = connection.port
        # After a HELLO comes a SEAL or nothing. Who has sent it waits for the answer as long as this stays open.
        is_seal_lost = connection.greeting is not None and any(decoder.counters[name] for name in _DAMAGED)
        if decoder.broken or is_seal_lost:
            port.close()
        found = next((what for counter, what in _COMPLAINTS.items() if decoder.counters[counter]), None)
        if found is not None and self._interpreter.clock() >= self._complain_again:
            self._complain_again = self._interpreter.clock() + COMPLAIN_S
            log.warning("%s %s", port.peer, found)

    async def _answer_the_rest(self, connection: Connection) -> None:
        """The other side has said all it will say, but may still listen."""
        with trio.move_on_after(HALF_CLOSED_S):
            while connection.unfinished and not connection.port.closed:
                await self._wait_for_answer(connection)
            await connection.port.drained(0)

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
        await connection.port.drained(MAX_OUTGOING_BYTES)
        while self._is_busy(connection) and not connection.port.closed:
            await self._wait_for_answer(connection)

    async def _wait_for_answer(self, connection: Connection) -> None:
        """Until a command is answered. Meanwhile nothing is read, so the end of the connection must be looked for."""
        answered = connection.room = trio.Event()
        waits = True
        while waits and not connection.port.closed:
            with trio.move_on_after(LOOK_S) as look:
                await answered.wait()
            waits = look.cancelled_caught
            if connection.port.is_dead():
                connection.port.close()
        connection.room = None

    def _take(self, connection: Connection, decoder: UnsealingDecoder, message: Message) -> None:
        interpreter = self._interpreter
        if self._seals.required and not connection.port.is_sealed and not isinstance(message, _UNSEALED):
            decoder.counters["unsealed"] += 1
            if isinstance(message, Command):
                refusal = Response(Status.AUTH_FAILURE, message.kind, message.request, extended=message.extended)
                interpreter.tell(connection.port, refusal)
            return
        connection.is_known |= not isinstance(message, RefusedCommand)
        if isinstance(message, Command):
            if self.stopping:
                self._refuse(connection, message)
            else:
                interpreter.command(connection, message)
        elif isinstance(message, (ReadProc, WriteProc, Value, Ack, Fenced, Receipt)):
            if self._members.admits(connection, message.rank):
                interpreter.message(connection, message)
            else:
                decoder.counters["unproven"] += 1
        elif isinstance(message, LivesReport):
            self._members.told(message, connection)
        elif isinstance(message, RefusedCommand):
            response = Response(message.status, message.kind, message.request, extended=message.extended)
            interpreter.tell(connection.port, response)
        elif isinstance(message, Hello) and not message.answer:
            self._greet(connection, decoder, message)
        elif isinstance(message, Seal) and not message.answer:
            self._seal(connection, decoder, message)
        elif isinstance(message, StatusRequest):
            interpreter.tell(connection.port, StatusReport(message.request, self._report()))

    def _greet(self, connection: Connection, decoder: UnsealingDecoder, hello: Hello) -> None:
        decoder.extended = True
        connection.rank = hello.rank
        answer = self._greeting._replace(answer=True, rank=self._greeting.rank if hello.rank else 0)
        if hello.features & answer.features & FEATURE_SEALED:
            connection.greeting = (hello, answer)
            connection.patience.deadline = self._interpreter.clock() + HANDSHAKE_S
        self._interpreter.tell(connection.port, answer)
        if hello.rank:
            self._members.greets(hello.rank)
        if connection.greeting is None:
            self._tell_lives(connection, hello)

    def _seal(self, connection: Connection, decoder: UnsealingDecoder, seal: Seal) -> None:
        greeting, connection.greeting = connection.greeting, None
        sealed = self._seals.accept(*greeting, seal) if greeting is not None else None
        if greeting is None or sealed is None:
            decoder.counters["bad_seal"] += 1
            decoder.broken = True
            return
        hello, _ = greeting
        self._interpreter.tell(connection.port, sealed.reply)
        connection.port.seal(sealed.sealer)
        connection.records = RecordBound()
        connection.port.record_bytes = connection.records.bound
        self._tell_lives(connection, hello)
        if hello.rank:
            self.on_node_sealed(hello.rank)
        for message in decoder.unseal(sealed.opener, between_nodes=hello.rank != 0):
            self._take(connection, decoder, message)

    def _tell_lives(self, connection: Connection, hello: Hello) -> None:
        """The first message after the greeting, to those that want it."""
        if hello.features & FEATURE_LIVES:
            self._members.listens(connection.port, node=hello.rank != 0, answer=True)

    def _refuse(self, connection: Connection, command: Command) -> None:
        """The node is stopping. The contract has no word for it: its clients see the connection end."""
        if command.extended:
            response = Response(Status.STOPPING, command.kind, command.request, extended=True)
            self._interpreter.tell(connection.port, response)
