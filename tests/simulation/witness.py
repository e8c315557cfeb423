"""Looks into a node for what no client would see until much more has gone wrong.

Four promises that others rest on: an acknowledgement follows what it acknowledges to stable storage; after an answer
under an epoch nothing of an older one is stored, nor is the epoch forgotten; no two incarnations are the same; a disk
that was not damaged holds every value that its tags name.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable

from dsreg.constants import MAX_RUN_SECTORS
from dsreg.node.interpreter import Connection, Interpreter
from dsreg.protocol.messages import Ack, CommandKind, Response, Status, Value, WriteProc
from dsreg.protocol.tags import highest_epoch, iter_tags
from dsreg.register.effects import Adopt, Effect, Persist, Reply, Reserve, Tell
from dsreg.register.now import Now
from dsreg.storage import Commit, StableStorage


class Moment(enum.Enum):
    """What a node does that faults may wait for."""

    NAMED = "it has named tags for a client"
    ACCEPTED = "it has accepted a client's claim to the disk"
    DECIDED = "it has told a client what that is to be restamped"
    PROMISES = "it is to promise tags"


class BrokenPromise(Exception):
    """The product has not done what others rest on."""


class Witness:
    """Looks at the acknowledgements of a node on their way out of its interpreter, which is the production code. (Not
    derived from it, which it could not be in the compiled build.) `told`: the newest epoch under which the node has
    answered, in this life or an earlier one. `happens`: called at the moments that faults wait for, with the client."""

    def __init__(
        self, interpreter: Interpreter, told: int, happens: Callable[[Moment, int], None]
    ) -> None:
        self.told = told
        self._happens = happens
        self._repairs: set[tuple[int, bytes]] = set()  # sector and tag: restored as they are elsewhere
        self._storage = interpreter.storage
        self._asked: dict[tuple[int, int, int, int], bytes] = {}  # tags, by who has asked, rid, first sector, count
        carry = interpreter._carry
        self._carry_out_send, self._carry_out_answer = carry[Tell], carry[Reply]
        self._carry_out_persist, self._carry_out_reserve = carry[Persist], carry[Reserve]
        carry[Tell], carry[Reply] = self._send, self._answer
        carry[Persist], carry[Reserve] = self._persist, self._reserve
        self._carry_out_adopt, carry[Adopt] = carry[Adopt], self._adopt

    def was_asked(self, message: WriteProc) -> None:
        self._asked[message.rank, message.rid, message.first, message.count] = message.tags

    def _send(self, effect: Tell, now: Now) -> Iterable[Effect] | None:
        if isinstance(effect.message, Ack):
            self._acknowledges(effect.rank, effect.message)
        return self._carry_out_send(effect, now)

    def _answer(self, effect: Reply, now: Now) -> Iterable[Effect] | None:
        if isinstance(effect.message, Ack):
            assert isinstance(effect.connection, Connection)
            self._acknowledges(effect.connection.transport.peer_host, effect.message)  # type: ignore[attr-defined]
        elif isinstance(effect.message, Value):
            self.told = max(self.told, effect.message.epoch)
        elif isinstance(effect.message, Response) and effect.message.status is Status.OK:
            self.told = max(self.told, effect.message.epoch)
            self._tell_who(effect, effect.message.kind)
        return self._carry_out_answer(effect, now)

    def _tell_who(self, effect: Reply, kind: CommandKind) -> None:
        assert isinstance(effect.connection, Connection)
        host = effect.connection.transport.peer_host  # type: ignore[attr-defined]
        if kind is CommandKind.TAG:
            self._happens(Moment.NAMED, host)
        elif kind is CommandKind.ATTACH and effect.completes is not None and effect.completes.epoch:
            self._happens(Moment.ACCEPTED, host)
        elif kind is CommandKind.READ and isinstance(effect.message, Response) and effect.message.tags:
            self._happens(Moment.DECIDED, host)

    def _persist(self, effect: Persist, now: Now) -> Iterable[Effect] | None:
        if effect.repair:
            self._is_elsewhere(effect)
        return self._carry_out_persist(effect, now)

    def _adopt(self, effect: Adopt, now: Now) -> Iterable[Effect] | None:
        self._is_elsewhere(effect)
        return self._carry_out_adopt(effect, now)

    def _is_elsewhere(self, effect: Persist | Adopt) -> None:
        self._repairs.update((effect.first + index, tag) for index, tag in enumerate(iter_tags(effect.tags)))

    def _reserve(self, effect: Reserve, now: Now) -> Iterable[Effect] | None:
        self._happens(Moment.PROMISES, 0)
        return self._carry_out_reserve(effect, now)

    def stored(self, commit: Commit) -> None:
        """The commit has become durable."""
        for record in commit.records:
            for index, tag in enumerate(iter_tags(record.tags)):
                sector = record.first + index
                if highest_epoch(tag) < self.told and not record.refused and (sector, tag) not in self._repairs:
                    raise BrokenPromise(f"sector {sector}: {tag.hex()} is stored after an answer in epoch {self.told}")

    def _acknowledges(self, rank: int, ack: Ack) -> None:
        tags = self._asked[rank, ack.rid, ack.first, ack.count]
        durable = self._storage.tags(ack.first, ack.count)
        if any(own < tag for own, tag in zip(iter_tags(durable), iter_tags(tags), strict=True)):
            raise BrokenPromise(f"{ack} is sent, and the tags {tags.hex()} are not durable")


def check_start(storage: StableStorage, last_incarnation: int, told: int, damaged: bool) -> None:
    """What must be true of a storage that was just opened. `told`: see Witness. `damaged`: something was done to its
    disk."""
    if storage.epoch < told and not damaged:
        raise BrokenPromise(f"it answered in epoch {told}, and now is in epoch {storage.epoch}")
    if storage.incarnation <= last_incarnation:
        raise BrokenPromise(f"incarnation {storage.incarnation} comes after {last_incarnation}")
    for first in range(0, storage.sectors if not damaged else 0, MAX_RUN_SECTORS):
        job = storage.load_job(first, min(MAX_RUN_SECTORS, storage.sectors - first))
        job.run()
        if lost := [*job.bad, *job.absent]:
            raise BrokenPromise(f"sectors {lost} are lost, and nobody has damaged the disk")
