"""Scripts of the client's core: an event at a time, then the effects expected."""

from __future__ import annotations

from dsreg.client.core import ClientCore
from dsreg.client.events import Connected, Effect, Event, Failed, Received, Send, Start
from dsreg.constants import SECTOR_SIZE
from dsreg.protocol.messages import Command, CommandKind, Message, Response, Status
from dsreg.protocol.tags import pack_tag

DATA = b"d" * SECTOR_SIZE
TAGS = pack_tag(7, 1)


class Play:
    """A core with three nodes and a clock that the script moves."""

    def __init__(self, *ranks: int, up: tuple[int, ...] = (1, 2, 3)) -> None:
        self.core = ClientCore(ranks or (1, 2, 3))
        self.now_s = 100.0
        for rank in up:
            assert self.do(Connected(rank)) == []

    def do(self, event: Event, after_s: float = 0.0) -> list[Effect]:
        self.now_s += after_s
        return self.core.step(event, self.now_s)

    def sends(self, event: Event, after_s: float = 0.0) -> tuple[int, Command]:
        """The one command that the event leads to, and where it goes."""
        [effect] = self.do(event, after_s)
        assert isinstance(effect, Send) and isinstance(effect.message, Command)
        return effect.rank, effect.message

    def tag(
        self, operation: int, first: int = 0, count: int = 1, after_s: float = 0.0, *, force: bool = False
    ) -> tuple[int, Command]:
        """Begin a write whose tags no majority names: the TAG that is left to a node, and where it goes."""
        asked = commands(self.do(Start(operation, first, count, DATA * count, force), after_s))
        if asked[0][1].alone:
            last, refused = asked[-1]
            asked = commands(self.do(answered(refused, last, Status.REFUSED)))
        [(rank, command)] = asked
        assert command.kind is CommandKind.TAG and not command.alone
        return rank, command

    def read(self, operation: int, first: int = 0, count: int = 1) -> tuple[int, Command]:
        """Begin a read that two nodes answer differently: its READ, and where it goes."""
        gets = commands(self.do(Start(operation, first, count)))
        assert [command.kind for _, command in gets] == [CommandKind.GET] * 2
        assert self.do(ok(gets[0][1], gets[0][0])) == []
        rank, command = self.sends(ok(gets[1][1], gets[1][0], pack_tag(8, 2)))
        assert command.kind is CommandKind.READ
        return rank, command


def ok(command: Command, rank: int, tags: bytes = TAGS) -> Received:
    return answered(command, rank, Status.OK, tags)


def answered(command: Command, rank: int, status: Status, tags: bytes = TAGS, epoch: int = 0) -> Received:
    """Any answer to the command; `tags`: of each sector."""
    good, kind = status is Status.OK, command.kind
    with_data = kind is CommandKind.READ or kind is CommandKind.GET and command.values
    message: Message = Response(
        status,
        kind,
        command.request,
        tags * command.count if good and kind in (CommandKind.TAG, CommandKind.GET) else b"",
        DATA * command.count if good and with_data else b"",
        True,
        epoch,
    )
    return Received(rank, (message,))


def commands(effects: list[Effect]) -> list[tuple[int, Command]]:
    """The commands sent among the effects, and where to."""
    sends = [effect for effect in effects if isinstance(effect, Send)]
    return [(send.rank, send.message) for send in sends if isinstance(send.message, Command)]


def failure(effects: list[Effect]) -> Failed:
    [effect] = effects
    assert isinstance(effect, Failed)
    return effect
