"""Which chunks are holes: MAP at all nodes, and what of their answers is a read of zeros. docs/protocol.md, Part 9."""

from __future__ import annotations

import random

import pytest

from dsreg.client.events import Abandon, Completed, Connected, Disconnected, Dropped, Failed, Received, Start, Tick
from dsreg.client.limits import PUT_ATTEMPT_S
from dsreg.client.mapping import MapTally
from dsreg.constants import ZERO_TAG
from dsreg.errors import DiskFenced
from dsreg.protocol.extents import Extent, encode_extents
from dsreg.protocol.messages import Command, CommandKind, Response, Status
from dsreg.protocol.tags import ATTACHED, pack_tag, ts_of
from dsreg.register.one_round import may_return
from dsreg.register.quorum import majority_of
from tests.client.attached_play import AttachedPlay, attach_answer
from tests.client.play import Play, answered, commands

CHUNKS = 4
START = Start(5, 512, CHUNKS * 256, maps=True)
HOLE, DATA = b"\1", b"\0"


def zeros(counter: int, epoch: int = 0, of_epoch: int = 0) -> bytes:
    """A tag that the attachment of `of_epoch` has chosen, stored under `epoch`."""
    return pack_tag(ts_of(of_epoch, counter), ATTACHED, 0, epoch)


def knows(play: Play, *ranks: int) -> Play:
    """Nodes that know the command."""
    for rank in ranks:
        play.do(Disconnected(rank))
        for other, asked in commands(play.do(Connected(rank, 3, True, True))):
            if asked.kind is CommandKind.ATTACH:
                play.do(attach_answer(asked, other, 1))
    return play


def ask(play: Play) -> dict[int, Command]:
    sent = dict(commands(play.do(START)))
    assert {command.kind for command in sent.values()} == {CommandKind.MAP} and len(set(sent.values())) == 1
    return sent


def told(command: Command, rank: int, *tags: bytes | None) -> Received:
    content = encode_extents(Extent(1, tag) for tag in tags)
    return Received(rank, (Response(Status.OK, CommandKind.MAP, command.request, b"", content, True, command.epoch),))


def holes(play: Play, answers: dict[int, tuple[bytes | None, ...]]) -> bytes:
    """What the client says once these have answered, and no other does in time."""
    sent = ask(play)
    effects = []
    for rank, tags in answers.items():
        effects += play.do(told(sent[rank], rank, *tags))
    if len(answers) < len(sent):
        assert not [effect for effect in effects if isinstance(effect, Completed)]
        effects = play.do(Tick(), PUT_ATTEMPT_S)
    [ended] = [effect for effect in effects if isinstance(effect, Completed)]
    assert ended.operation == 5 and play.core.outcome(5) is None and not play.core.unfinished
    return ended.data


def test_a_hole_is_what_a_majority_says_under_one_tag() -> None:
    play = knows(Play(), 1, 2, 3)
    one, two = zeros(1), zeros(2)
    assert holes(play, {
        1: (ZERO_TAG, two, None, one), 2: (ZERO_TAG, two, None, two), 3: (None, ZERO_TAG, None, two),
    }) == HOLE + HOLE + DATA + HOLE


def test_zeros_of_one_node_over_data_that_it_has_not_seen() -> None:
    """Tag 4, a value, is at nodes 1 and 3; of tag 5, zeros, only node 1 has heard, and covers tag 4 with it. Node 2 has
    neither. A read that meets nodes 2 and 3 finds 4: so nodes 1 and 2 must not make a hole."""
    play = knows(Play(), 1, 2, 3)
    assert holes(play, {1: (zeros(5),) * CHUNKS, 2: (ZERO_TAG,) * CHUNKS}) == DATA * CHUNKS
    play = knows(Play(), 1, 2, 3)
    assert holes(play, {1: (zeros(5),) * 4, 2: (ZERO_TAG,) * 4, 3: (None,) * 4}) == DATA * CHUNKS


def test_an_attachment_takes_what_is_older_only_from_all_nodes() -> None:
    """Rule 5 of docs/attachments.md: the node that was not heard may have a newer value of an older attachment."""
    play = knows(AttachedPlay(), 1, 2, 3)
    old, own = zeros(5, 0), zeros(6, 1)
    assert holes(play, {1: (ZERO_TAG, old, own, own), 2: (ZERO_TAG, old, own, None)}) == DATA + DATA + HOLE + DATA
    play = knows(AttachedPlay(), 1, 2, 3)
    answer = (ZERO_TAG, old, own, own)
    assert holes(play, {1: answer, 2: answer, 3: (ZERO_TAG, old, None, None)}) == HOLE * CHUNKS
    assert holes(play, {1: answer, 2: answer, 3: (old, ZERO_TAG, None, own)}) == DATA + DATA + HOLE + HOLE


def test_it_is_under_the_epoch_of_the_attachment() -> None:
    assert {command.epoch for command in ask(knows(AttachedPlay(), 1, 2, 3)).values()} == {1}
    assert {command.epoch for command in ask(knows(Play(), 1, 2, 3)).values()} == {0}


def test_an_attachment_that_is_fenced_is_told() -> None:
    play = knows(AttachedPlay(), 1, 2, 3)
    command = ask(play)[1]
    effects = play.do(answered(command, 1, Status.FENCED, epoch=2))
    [failed] = [effect for effect in effects if isinstance(effect, Failed)]
    assert failed.operation == 5 and isinstance(failed.error, DiskFenced)


def test_what_all_have_told_of_is_said() -> None:
    play = knows(Play(), 1, 2, 3)
    assert holes(play, {1: (ZERO_TAG,) * 3, 2: (ZERO_TAG,) * 2, 3: (ZERO_TAG,) * 4}) == HOLE * 2


@pytest.mark.parametrize("content", [b"", b"\0" * 24, encode_extents([Extent(CHUNKS + 1, ZERO_TAG)])])
def test_an_answer_that_cannot_be_does_not_count(content: bytes) -> None:
    play = knows(Play(), 1, 2, 3)
    command = ask(play)[1]
    play.do(Received(1, (Response(Status.OK, CommandKind.MAP, command.request, b"", content, True),)))
    play.do(told(command, 2, *(ZERO_TAG,) * CHUNKS))
    assert Completed(5, DATA * CHUNKS) in play.do(Tick(), PUT_ATTEMPT_S)


def test_without_a_majority_everything_is_data_at_once() -> None:
    """Nodes of older versions, and of the contract; and nodes that are not there."""
    assert Completed(5, DATA * CHUNKS) in Play().do(START)
    assert Completed(5, DATA * CHUNKS) in knows(Play(), 2).do(START)
    play = knows(Play(), 1, 3)
    assert set(ask(play)) == {1, 3}
    play.do(Disconnected(1))
    play = knows(Play(), 1, 2, 3)
    command = ask(play)[1]
    play.do(told(command, 1, *(ZERO_TAG,) * CHUNKS))
    play.do(Disconnected(2))
    assert Completed(5, DATA * CHUNKS) in play.do(Disconnected(3))


def test_a_node_that_is_silent_is_not_waited_for_again() -> None:
    play = knows(Play(), 1, 2, 3)
    assert holes(play, {1: (ZERO_TAG,) * CHUNKS, 2: (ZERO_TAG,) * CHUNKS}) == HOLE * CHUNKS
    assert set(ask(play)) == {1, 2}


def test_a_node_that_refuses_is_not_waited_for() -> None:
    play = knows(Play(), 1, 2, 3)
    command = ask(play)[1]
    play.do(answered(command, 3, Status.STOPPING))
    play.do(told(command, 1, *(ZERO_TAG,) * CHUNKS))
    assert play.do(told(command, 2, *(ZERO_TAG,) * CHUNKS)) == [Completed(5, HOLE * CHUNKS)]


def test_it_can_be_given_up() -> None:
    play = knows(Play(), 1, 2, 3)
    ask(play)
    assert Dropped(5) in play.do(Abandon(5))


def test_any_answers_against_one_chunk_after_the_other(rng: random.Random) -> None:
    """As a GET of each chunk is judged."""
    quorum = majority_of((1, 2, 3, 4, 5))
    tags = [ZERO_TAG, zeros(5, 3), zeros(6, 2), None]
    for _ in range(200):
        epoch, size = rng.choice((0, 3)), rng.randint(1, 12)
        tally = MapTally(quorum, epoch, size)
        chunks: dict[int, list[bytes | None]] = {}
        for rank in rng.sample(range(1, 6), rng.randint(0, 5)):
            extents, left = [], rng.randint(1, size)
            while left:
                extents.append(Extent(rng.randint(1, left), rng.choice(tags)))
                left -= extents[-1].chunks
            chunks[rank] = [tag for count, tag in extents for _ in range(count)]
            tally.add(rank, Response(Status.OK, CommandKind.MAP, 9, b"", encode_extents(extents), True))
        found = tally.holes()
        assert len(found) == min(map(len, chunks.values()), default=size)
        for index, is_hole in enumerate(found):
            said = {rank: told[index] for rank, told in chunks.items()}
            assert is_hole == any(
                may_return(quorum, sum(1 << rank for rank in said if said[rank] == tag), tag, epoch)
                for tag in said.values() if tag is not None
            )
