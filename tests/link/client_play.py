"""A client's connection to one node, for plays of it."""

from __future__ import annotations

from dsreg.link.client_line import (
    ClientLine,
    Phase,
)
from dsreg.link.effects import (
    Close,
    Connect,
    Effect,
)
from dsreg.protocol.codec import Bounds, Keys, Side, UnsealingDecoder
from dsreg.protocol.greeting import Seals
from dsreg.protocol.messages import (
    CommandKind,
    Response,
    Status,
    StatusReport,
)
from dsreg.register.assembly import client_hello
from tests.link.parties import KEYS, SECTORS, Party, fresh

NOW = 100.0
ANSWERED = Response(Status.INVALID_SECTOR_INDEX, CommandKind.READ, 0)  # to the question about the key
REPORT = StatusReport(1, b"{}")


def new_line(*, seals: bool = True, required: bool = False, keys: Keys = KEYS) -> ClientLine:
    def new_decoder() -> UnsealingDecoder:
        return UnsealingDecoder(
            Keys(keys.client, b""), bounds=Bounds(SECTORS, frozenset()), side=Side.CLIENT, extended=True
        )

    return ClientLine(
        client_hello(SECTORS, seals=seals), Seals(Keys(keys.client, b""), fresh, required=required), new_decoder,
        lambda: 1.0,
    )


def greeting(line: ClientLine, number: int = 1, now: float = NOW) -> list[Effect]:
    """The line has connected; what it says."""
    assert line.phase in (Phase.PAUSED, Phase.CONNECTING)
    if line.phase is Phase.PAUSED:
        assert (line.start(now) if number == 1 else line.tick(line.next_due)) == [Connect(number)]
    return line.connected(number, now)


def up(line: ClientLine, party: Party, number: int = 1) -> list[Effect]:
    effects = line.received(number, party.reply(greeting(line, number)), NOW)
    assert line.phase is Phase.UP
    return effects


def refused(line: ClientLine, data: bytes, number: int) -> list[Effect]:
    """The node's bytes end the attempt."""
    greeting(line, number)
    effects = line.received(number, data, NOW)
    assert effects[-1] == Close(number)
    return [*effects, *line.closed(number, 0, NOW)]
