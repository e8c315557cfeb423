"""The script of a client that attaches the disk: tests.client.play.Play, with the way there."""

from __future__ import annotations

from dsreg.client.attachment import Claim
from dsreg.client.core import ClientCore
from dsreg.client.events import Attached, Connected, Effect, Received
from dsreg.constants import NO_OWNER
from dsreg.core.messages import Command, CommandKind, Response, Status, owner_of
from tests.client.play import Play, commands

OWNER = owner_of(b"m" * 16, "this client")
RIVAL = owner_of(b"r" * 16, "the other client")


def attach_answer(command: Command, rank: int, epoch: int = 0, owner: bytes = NO_OWNER, alive: bool = False,
                  status: Status = Status.OK) -> Received:
    data = owner if status is Status.OK else b""
    return Received(rank, (Response(status, CommandKind.ATTACH, command.request, b"", data, True, epoch, alive),))


class AttachedPlay(Play):
    """Three nodes, of which `up` are connected; attached in epoch 1 if these are a majority and it is not `held`
    back."""

    def __init__(self, up: tuple[int, ...] = (1, 2, 3), held: bool = True, take_over: bool = False) -> None:
        self.core = ClientCore((1, 2, 3), Claim(OWNER, take_over))
        self.now_s = 100.0
        self.asked = {rank: self.sends(Connected(rank))[1] for rank in up}
        if held and len(up) >= 2:
            assert self.attach() == [Attached(1)]

    def attach(self) -> list[Effect]:
        """Two nodes answer and accept."""
        first, second, *_ = self.asked
        assert self.do(attach_answer(self.asked[first], first)) == []
        claims = dict(commands(self.do(attach_answer(self.asked[second], second))))
        assert {(claim.kind, claim.epoch, claim.data) for claim in claims.values()} == {(CommandKind.ATTACH, 1, OWNER)}
        assert set(claims) == set(self.asked)
        assert self.do(attach_answer(claims[first], first, 1, OWNER, True)) == []
        return self.do(attach_answer(claims[second], second, 1, OWNER, True))
