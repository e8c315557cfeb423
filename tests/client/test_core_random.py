"""The client's core under random nodes: each operation ends once, and a write never changes its tags."""

from __future__ import annotations

import random

import pytest

from dsreg.client.events import (
    Abandon,
    Completed,
    Connected,
    Disconnected,
    Drop,
    Dropped,
    Event,
    Failed,
    Send,
    Start,
    Tick,
)
from dsreg.constants import NO_OWNER
from dsreg.protocol.messages import Command, CommandKind, Status
from dsreg.protocol.tags import pack_tag
from tests.client.attached_play import OWNER, AttachedPlay, attach_answer
from tests.client.play import DATA, Play, answered


class World:
    """Nodes that come and go and answer in any order, and what must hold of the effects."""

    def __init__(self, rng: random.Random, attach: bool) -> None:
        self.rng = rng
        self.attach = attach
        self.play = AttachedPlay(up=()) if attach else Play(up=())
        self.up: set[int] = set()
        self.epochs = dict.fromkeys((1, 2, 3), 0)
        self.pending: dict[tuple[int, int], Command] = {}  # (rank, request): sent and not answered
        self.tags: dict[int, bytes] = {}  # of the write of this sector, which is written once
        self.running: set[int] = set()
        self.ended: list[int] = []
        self.named = 0

    def do(self, event: Event, after_s: float = 0.0) -> None:
        for effect in self.play.do(event, after_s):
            if isinstance(effect, Send):
                assert effect.rank in self.up
                if isinstance(effect.message, Command):
                    self.sent(effect.rank, effect.message)
            elif isinstance(effect, Drop):
                self.forget(effect.rank)
            elif isinstance(effect, Completed | Failed | Dropped):
                self.running.remove(effect.operation)
                self.ended.append(effect.operation)

    def sent(self, rank: int, command: Command) -> None:
        self.pending[rank, command.request] = command
        if command.kind in (CommandKind.STORE, CommandKind.PUT):
            assert self.tags.setdefault(command.first, command.tags) == command.tags
        assert command.epoch == self.attach or command.kind is CommandKind.ATTACH

    def forget(self, rank: int) -> None:
        self.up.discard(rank)
        for key in [key for key in self.pending if key[0] == rank]:
            del self.pending[key]

    def break_connection(self, rank: int) -> None:
        if rank in self.up:
            self.forget(rank)
            self.do(Disconnected(rank))

    def connect(self, rank: int) -> None:
        if rank not in self.up:
            self.up.add(rank)
            self.do(Connected(rank))

    def start(self, operation: int) -> None:
        self.running.add(operation)
        self.do(Start(operation, operation, 1, self.rng.choice([None, DATA])), self.rng.random() * 0.1)

    def answer_one(self) -> None:
        rank, request = self.rng.choice(list(self.pending))
        command = self.pending.pop((rank, request))
        if command.kind is CommandKind.ATTACH:
            self.epochs[rank] = epoch = max(self.epochs[rank], command.epoch)
            self.do(attach_answer(command, rank, epoch, OWNER if epoch else NO_OWNER, epoch > 0))
            return
        self.named += 1
        tag = pack_tag(self.named if command.kind is CommandKind.TAG else self.rng.randrange(2), rank)
        if command.kind is CommandKind.GET and self.rng.random() < 0.7:
            tag = pack_tag(5, 1, 0, self.attach)  # what most of them have
        status = self.rng.choice([Status.OK] * 9 + [Status.STOPPING])
        self.do(answered(command, rank, status, tag), self.rng.random() * 0.3)


@pytest.mark.parametrize("attach", [False, True])
def test_every_operation_ends_once_and_no_write_changes_its_tags(rng: random.Random, attach: bool) -> None:
    world = World(rng, attach)
    for rank in (1, 2, 3):
        world.connect(rank)
    for operation in range(1, 600):
        world.start(operation)
        match rng.randrange(8):
            case 0:
                world.break_connection(rng.choice((1, 2, 3)))
            case 1 | 2:
                world.connect(rng.choice((1, 2, 3)))
            case 3:
                world.do(Tick(), rng.random() * 4)
            case 4 if world.running:
                world.do(Abandon(rng.choice(sorted(world.running))))
        for _ in range(rng.randrange(3)):
            if world.pending:
                world.answer_one()
    while world.running:
        for rank in (1, 2, 3):
            world.break_connection(rank)
            world.connect(rank)
        while world.pending:
            world.answer_one()
        world.do(Tick(), 1.0)
    assert sorted(world.ended) == list(range(1, 600))
    assert world.tags
    counters = world.play.core.counters
    assert counters.quorums and counters.coordinated
    if attach:
        assert list(world.tags.values()) == sorted(world.tags.values())
