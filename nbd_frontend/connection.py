"""One client, from its greeting to its end."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Sequence
from typing import NamedTuple

import trio

from dsreg.store import Buffer
from dsreg.transport import Transport
from dsreg.volume import Volume
from nbd_frontend import codec
from nbd_frontend.attachment import Attacher, Refused
from nbd_frontend.channel import Channel
from nbd_frontend.codec import Broken, Option, OptionDecoder, Request, RequestDecoder
from nbd_frontend.commands import Commands
from nbd_frontend.negotiation import Answer, End, Enter, Export, Negotiation, StartTls, Tls
from nbd_frontend.numbers import CommandType, Reply

log = logging.getLogger(__name__)

# A client that says nothing for so long before it has an export is cut off: it may be somebody who only takes places.
PATIENCE_S = 60.0
# Replies to options that may wait to be sent; then no more options are read.
MAX_UNSENT_BYTES = 64 << 10
# How often a client that is not being read is looked at, whether it is there.
LOOK_S = 0.5
# What is in flight when a client, or the server, wants to end may take so long. Without a majority nobody can say how
# long it would.
GRACE_S = 10.0


class Service(NamedTuple):
    """What all connections share. `tls` holds for this kind of socket; `certificates`: None with Tls.NONE."""

    export: Export
    attacher: Attacher
    tls: Tls
    certificates: ssl.SSLContext | None


class _Gone(Exception):
    """The connection is over; the message says why, "" where nobody has to be told."""


class ClientConnection:
    """Serves the client at the other end of `transport` until `run` ends. `stop` asks for that."""

    def __init__(self, transport: Transport, service: Service) -> None:
        self.peer = transport.peer
        self._service = service
        self._transport = transport
        self._channel = Channel(transport)
        self._commands: Commands | None = None  # once it has the export
        self._changed = trio.lowlevel.ParkingLot()  # for those who wait until a command has ended, or bytes have gone
        self._has_replies = trio.Event()  # that are put and not yet flushed
        transport.on_room = self._note_change

    @property
    def held_bytes(self) -> int:
        """Of commands in flight and of replies that are not sent."""
        commands = self._commands
        return self._transport.outgoing_bytes + (commands.in_flight_bytes if commands is not None else 0)

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._transport.run_writer)
            nursery.start_soon(self._flush_replies)
            try:
                await self._serve()
            except _Gone as gone:
                if reason := str(gone) or self._channel.fault:
                    log.info("%s: %s", self.peer, reason, extra={"peer": self.peer})
            finally:
                self._transport.flush()  # what has been answered in this turn
                self._transport.close()
                nursery.cancel_scope.cancel()

    async def stop(self) -> None:
        """The server ends, and with it the connection, when what is in flight has ended, or after GRACE_S."""
        if self._commands is not None:
            self._commands.is_stopping = True
            await self._finish(self._commands)
        self._transport.close()

    async def _serve(self) -> None:
        self._channel.send((codec.greeting(),))
        decoder, negotiation = OptionDecoder(), None
        while True:
            option = await self._option(decoder)
            negotiation = negotiation or self._negotiation(decoder)
            step = negotiation.step(option)
            if isinstance(step, Enter):
                step = await self._enter(negotiation, step, decoder)
            self._channel.send((step.data,))
            if isinstance(step, End):
                await self._drain()
                raise _Gone(step.reason)
            if isinstance(step, StartTls):
                await self._start_tls(decoder)
                # What was agreed on in clear text is void.
                decoder = OptionDecoder(decoder.flags)
                negotiation = None
            await self._drain(MAX_UNSENT_BYTES)

    # --- the options ------------------------------------------------------------------------------
    def _negotiation(self, decoder: OptionDecoder) -> Negotiation:
        assert decoder.flags is not None, "there is an option"
        export = self._service.export._replace(size=self._service.attacher.size)
        return Negotiation(export, decoder.flags, self._service.tls, self._channel.is_encrypted)

    async def _option(self, decoder: OptionDecoder) -> Option:
        while (option := decoder.next()) is None:
            with trio.move_on_after(PATIENCE_S) as patience:
                data = await self._channel.receive()
            if patience.cancelled_caught:
                raise _Gone(f"has said nothing for {PATIENCE_S:.0f} s")
            if not data:
                raise _Gone
            decoder.feed(data)
        if isinstance(option, Broken):
            raise _Gone(option.reason)
        return option

    async def _start_tls(self, decoder: OptionDecoder) -> None:
        """What came behind the option is TLS already."""
        assert self._service.certificates is not None, "else it is refused"
        with trio.move_on_after(PATIENCE_S) as patience:
            await self._channel.start_tls(self._service.certificates, decoder.rest())
        if patience.cancelled_caught:
            raise _Gone(f"no TLS within {PATIENCE_S:.0f} s")
        if self._channel.fault:
            raise _Gone

    async def _drain(self, unsent: int = 0) -> None:
        """Wait until the client has taken what was sent, but for so many bytes."""
        with trio.move_on_after(PATIENCE_S) as patience:
            await self._transport.drained(unsent)
        if patience.cancelled_caught:
            raise _Gone(f"has taken no answer for {PATIENCE_S:.0f} s")

    # --- the export -------------------------------------------------------------------------------
    async def _enter(self, negotiation: Negotiation, enter: Enter, decoder: OptionDecoder) -> Answer | End:
        """Serve commands to the end, which is a _Gone; or what to say to the client that does not get the export."""
        refusal, reason = None, ""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch, nursery.cancel_scope)
            try:
                async with self._service.attacher.use(self._transport) as volume:
                    log.info("%s has the disk", self.peer, extra={"peer": self.peer})
                    self._commands = Commands(volume, enter.terms, self._service.export.is_read_only,
                                              self._reply, self._note_change)
                    self._channel.send((negotiation.entered(enter, volume.size),))
                    reason = await self._serve_commands(volume, self._commands, decoder.rest())
            except Refused as error:
                refusal = str(error)
            nursery.cancel_scope.cancel()
        if refusal is None:
            log.info("%s has the disk no longer", self.peer, extra={"peer": self.peer})
            raise _Gone(reason)
        log.warning("%s does not get the disk: %s", self.peer, refusal, extra={"peer": self.peer})
        return negotiation.refused(enter, Reply.ERR_POLICY, refusal)

    async def _watch(self, scope: trio.CancelScope) -> None:
        """Until the client has the export nothing is read from it, and it is looked whether it is there: who is not has
        no claim."""
        while self._commands is None:
            if self._transport.has_ended():
                scope.cancel()
            await trio.sleep(LOOK_S)

    # --- the commands -----------------------------------------------------------------------------
    async def _serve_commands(self, volume: Volume, commands: Commands, received: bytes) -> str:
        """Until the client disconnects, or is gone. The reason, if somebody has to be told."""
        decoder = RequestDecoder()
        decoder.feed(received)
        while True:
            while (request := decoder.next()) is not None:
                if isinstance(request, Broken):
                    return request.reason
                if request.kind == CommandType.DISC:
                    volume.end_turn()
                    await self._finish(commands)
                    return ""
                if not commands.has_room(request, self._transport.outgoing_bytes):
                    volume.end_turn()
                    if not await self._room(commands, request):
                        return "is gone"
                commands.take(request)
            volume.end_turn()
            data = await self._channel.receive()
            if not data:
                return self._channel.fault
            decoder.feed(data)

    def _reply(self, buffers: Sequence[Buffer]) -> None:
        """At once if no other command is in flight; else with those that end in this turn. That saves system calls, and
        wakes the client once, which then sends as many new requests in one go."""
        self._channel.put(buffers)
        if self._commands is not None and self._commands.in_flight > 1:
            self._has_replies.set()
        else:
            self._transport.flush()

    async def _flush_replies(self) -> None:
        while True:
            await self._has_replies.wait()
            self._has_replies = trio.Event()
            self._transport.flush()

    async def _room(self, commands: Commands, request: Request) -> bool:
        """Back-pressure: not reading leaves the rest with the client. Whether that is still there."""
        while not commands.has_room(request, self._transport.outgoing_bytes):
            if not await self._change() and self._transport.has_ended():
                return False
        return True

    async def _finish(self, commands: Commands) -> None:
        """Answer what is in flight, and say goodbye."""
        with trio.move_on_after(GRACE_S) as grace:
            while commands.in_flight and not self._transport.closed:
                await self._change()
            await self._transport.drained(0)
        if grace.cancelled_caught:
            log.warning("%s: %d requests are not answered within %.0f s, and given up", self.peer, commands.in_flight,
                        GRACE_S)
        self._channel.say_goodbye()

    async def _change(self) -> bool:
        """Wait until a command has ended, or bytes have gone; whether that was within LOOK_S."""
        with trio.move_on_after(LOOK_S) as look:
            await self._changed.park()
        return not look.cancelled_caught

    def _note_change(self) -> None:
        self._changed.unpark_all()
