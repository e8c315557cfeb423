"""The script of a client that attaches the disk: tests.client.play.Play, with the way there."""

from __future__ import annotations

from dsreg.client.attachment import Claim
from dsreg.client.core import ClientCore
from dsreg.client.events import Attached, Connected, Effect, Failed, Received, Start
from dsreg.constants import NO_OWNER
from dsreg.errors import Outcome
from dsreg.protocol.messages import Command, CommandKind, Response, Status, owner_of
from dsreg.protocol.tags import MAX_EPOCH
from tests.client.play import DATA, Play, commands

OWNER = owner_of(b"m" * 16, "this client")
RIVAL = owner_of(b"r" * 16, "the other client")


def attach_answer(command: Command, rank: int, epoch: int = 0, owner: bytes = NO_OWNER, alive: bool = False,
                  status: Status = Status.OK, believed: int = MAX_EPOCH) -> Received:
    message = Response(status, CommandKind.ATTACH, command.request, extended=True, epoch=epoch, alive=alive,
                       believed=believed, owner=owner if status is Status.OK else b"")
    return Received(rank, (message,))


class AttachedPlay(Play):
    """Nodes (three), of which `up` are connected; attached in epoch 1 if these are a majority and it is not `held`
    back."""

    def __init__(
        self, up: tuple[int, ...] = (1, 2, 3), held: bool = True, take_over: bool = False,
        nodes: tuple[int, ...] = (1, 2, 3),
    ) -> None:
        self.core = ClientCore(nodes, Claim(OWNER, take_over))
        self.now_s = 100.0
        self.asked = {rank: self.sends(Connected(rank))[1] for rank in up}
        if held and len(up) >= 2:
            assert self.attach() == [Attached(1)]

    def attach(self) -> list[Effect]:
        """Two nodes answer and accept."""
        first, second, *_ = self.asked
        assert self.do(attach_answer(self.asked[first], first)) == []
        claims = dict(commands(self.do(attach_answer(self.asked[second], second))))
        assert {(claim.kind, claim.epoch, claim.owner) for claim in claims.values()} == {(CommandKind.ATTACH, 1, OWNER)}
        assert set(claims) == set(self.asked)
        assert self.do(attach_answer(claims[first], first, 1, OWNER, True)) == []
        return self.do(attach_answer(claims[second], second, 1, OWNER, True))


def puts(play: AttachedPlay, operation: int = 5, first: int = 0, count: int = 1) -> dict[int, Command]:
    """Begin a write: its PUT by rank, the same to each."""
    sent = dict(commands(play.do(Start(operation, first, count, DATA * count))))
    assert {command.kind for command in sent.values()} == {CommandKind.PUT} and len(set(sent.values())) == 1
    return sent


def gets(play: AttachedPlay, operation: int = 5) -> dict[int, Command]:
    sent = dict(commands(play.do(Start(operation, 0, 1))))
    assert {command.kind for command in sent.values()} == {CommandKind.GET}
    return sent


def one(effects: list[Effect]) -> tuple[int, Command]:
    [sent] = commands(effects)
    return sent


def errors(effects: list[Effect]) -> dict[int, tuple[type, Outcome]]:
    failed = [effect for effect in effects if isinstance(effect, Failed)]
    return {effect.operation: (type(effect.error), effect.error.outcome) for effect in failed}
