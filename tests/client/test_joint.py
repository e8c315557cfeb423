"""The client's core with a joint quorum: attaching and operations need a majority of both."""

from __future__ import annotations

from dsreg.client.attachment import Claim
from dsreg.client.core import ClientCore
from dsreg.client.events import Attached, Completed, Connected, Effect, Event, Start
from dsreg.protocol.messages import Command, CommandKind
from dsreg.protocol.tags import ATTACHED, pack_tag, ts_of
from dsreg.register.quorum import Joint, majority_of
from tests.client.attached_play import OWNER, AttachedPlay, attach_answer, gets, puts
from tests.client.play import DATA, commands, ok

JOINT = Joint(majority_of((1, 2, 3)), majority_of((3, 4, 5)))
MINE = pack_tag(ts_of(1, 5), ATTACHED, 0, 1)


class JointPlay(AttachedPlay):
    """Five nodes in two sets of three, which share one."""

    def __init__(self) -> None:
        self.core = ClientCore((1, 2, 3, 4, 5), Claim(OWNER))
        self.core._selector.quorum = JOINT
        self.now_s = 100.0
        self.asked = {rank: self.sends(Connected(rank))[1] for rank in (1, 2, 3, 4, 5)}

    def in_turn(self, ranks: tuple[int, ...], event: dict[int, Event]) -> list[list[Effect]]:
        return [self.do(event[rank]) for rank in ranks]


def answers(asked: dict[int, Command], tags: bytes = MINE) -> dict[int, Event]:
    return {rank: ok(command, rank, tags) for rank, command in asked.items()}


def attached() -> JointPlay:
    play = JointPlay()
    *too_few, claims = play.in_turn((1, 2, 3, 4), {r: attach_answer(play.asked[r], r) for r in play.asked})
    assert too_few == [[], [], []], "1, 2 and 3 are one node of the second set"
    sent = dict(commands(claims))
    assert set(sent) == {1, 2, 3, 4, 5}
    accepted: dict[int, Event] = {rank: attach_answer(claim, rank, 1, OWNER, True) for rank, claim in sent.items()}
    assert play.in_turn((4, 5, 3, 1), accepted) == [[], [], [], [Attached(1)]]
    return play


def test_a_disk_is_attached_and_a_put_is_done_by_both() -> None:
    play = attached()
    put = answers(puts(play))
    assert play.in_turn((1, 2, 3), put) == [[], [], []]
    assert play.do(put[5]) == [Completed(5, b"")]


def test_a_get_asks_as_many_as_decide_and_is_done_by_both() -> None:
    play = attached()
    asked = gets(play)
    assert set(asked) == {1, 2, 3, 4}, "the first of them that decide"
    *too_few, done = play.in_turn(tuple(asked), answers(asked))
    assert too_few == [[], [], []] and done == [Completed(5, DATA)]


def test_with_one_set_out_of_reach_a_node_is_left_to_see_to_it() -> None:
    play = JointPlay()
    for rank in (4, 5):
        play.core._selector.by_rank[rank].up = False
    assert play.core.obstacle(play.now_s)[0].startswith(
        "no majority: 3 of nodes 1 2 3 are connected, 2 are needed; only 1 of nodes 3 4 5 are connected, 2 are needed")
    whole = attached()
    for rank in (4, 5):
        whole.core._selector.by_rank[rank].up = False
    sent = commands(whole.do(Start(9, 0, 1)))
    assert [command.kind for _, command in sent] == [CommandKind.READ]
