"""A proposal over the connections of a client: who is asked, again, and whose answers count. Nodes are voters here."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import pytest
import trio
import trio.testing

from dsreg.cli.changing import may_vote, why_it_would_stop, why_not, why_not_new
from dsreg.cli.proposing import choose, finish
from dsreg.client import Client
from dsreg.protocol.choosing import Answer, Ask, Elect, Question
from dsreg.protocol.configuration import Ballot, Configuration
from dsreg.protocol.life import Life
from dsreg.register.configuration import Goal, Record, Voter
from dsreg.register.quorum import mask
from tests.cli.test_health import answer

THREE, FIVE = mask((1, 2, 3)), mask((1, 2, 3, 4, 5))
FIRST = Configuration(1, 64, THREE, 0, THREE)
JOINT = Configuration(2, 64, THREE, FIVE, FIVE)


class Heard(NamedTuple):
    nodes: Nodes
    heard: dict[int, str]

    def objections(self, reasons: Mapping[int, str]) -> None:
        self.heard.update(reasons)

    def holds(self, rank: int, following: Configuration) -> bool:
        return rank in self.nodes.held


class Nodes:
    """In the place of a client and what it is connected to. `silent`: nodes that do not answer. `lacking`: those that
    have not learned. `held`: those that are not to vote yet."""

    def __init__(self, first: Configuration = FIRST, ranks: tuple[int, ...] = (1, 2, 3)) -> None:
        self.voters = {rank: Voter(rank, Record(first)) for rank in ranks}
        self.silent: set[int] = set()
        self.lacking: set[int] = set()
        self.held: set[int] = set()
        self.configuration: Configuration | None = None  # that was told
        self.lives = {rank: Life(1, bytes([rank]) * 16) for rank in ranks}
        self.asked: list[tuple[int, Question]] = []
        self.first_asked = trio.Event()

    def life(self, rank: int) -> Life | None:
        return self.lives[rank]

    async def propose(self, rank: int, question: Question, timeout_s: float) -> Answer | None:
        await trio.sleep(random.uniform(0, 0.05))
        if rank in self.silent:
            await trio.sleep(timeout_s)
            return None
        self.asked.append((rank, question))
        self.first_asked.set()
        voter = self.voters[rank]
        if (record := voter.heard(question.base)) is not None:
            voter.record = record
        if isinstance(question, Ask):
            voter.record, said = voter.ask(*question)
        else:
            voter.record, said = voter.vote(*question, has_learned=rank not in self.lacking)
        await trio.sleep(random.uniform(0, 0.05))
        return said

    async def choose(self, base: Configuration, goal: Goal, heard: dict[int, str] | None = None) -> Configuration:
        with trio.fail_after(60):
            return await choose(cast(Client, self), base, goal, Heard(self, {} if heard is None else heard))


    async def finish(self, base: Configuration) -> Configuration | None:
        with trio.fail_after(60):
            return await finish(cast(Client, self), base, Heard(self, {}))

    def have_voted(self, following: Configuration, *ranks: int) -> None:
        """For somebody who was killed before anybody was told."""
        ballot = Ballot(3, b"k" * 16)
        for rank in ranks:
            voter = self.voters[rank]
            voter.record, _ = voter.vote(FIRST, ballot, following, has_learned=True)


async def test_a_majority_of_each_set_is_enough(autojump_clock: trio.testing.MockClock) -> None:
    nodes = Nodes(JOINT, (1, 2, 3, 4, 5))
    nodes.silent = {3, 5}
    assert await nodes.choose(JOINT, Goal(FIVE, 64)) == Configuration(3, 64, FIVE, 0, FIVE)


@pytest.mark.parametrize(("voted", "silent"), [((1, 2), 3), ((1, 2), 1), ((2,), 3)])
async def test_what_was_voted_for_and_told_to_nobody_is_finished(
    autojump_clock: trio.testing.MockClock, voted: tuple[int, ...], silent: int
) -> None:
    """It is chosen, or may be: no two others can tell."""
    nodes = Nodes()
    nodes.have_voted(JOINT, *voted)
    nodes.silent = {silent}
    assert await nodes.finish(FIRST) == JOINT
    assert all(nodes.voters[rank].record.voted for rank in {1, 2, 3} - {silent})


async def test_where_nobody_has_voted_nothing_is_chosen_by_asking(autojump_clock: trio.testing.MockClock) -> None:
    nodes = Nodes()
    nodes.silent = {3}
    assert await nodes.finish(FIRST) is None
    assert not any(isinstance(question, Elect) for _, question in nodes.asked)
    # Who has voted for something that only the silent one knows is outbid: it was not chosen, nor is it any more.
    assert all(nodes.voters[rank].record.promised > Ballot(0, b"") for rank in (1, 2))
    nodes = Nodes()
    nodes.have_voted(JOINT, 3)
    nodes.silent = {3}
    assert await nodes.finish(FIRST) is None


async def test_who_lacks_something_is_asked_until_it_has_it(autojump_clock: trio.testing.MockClock) -> None:
    nodes, heard = Nodes(JOINT, (1, 2, 3, 4, 5)), dict[int, str]()
    nodes.lacking = {3, 4, 5}

    async def learn() -> None:
        await trio.sleep(10)
        nodes.lacking = {4, 5}

    async with trio.open_nursery() as nursery:
        nursery.start_soon(learn)
        assert (await nodes.choose(JOINT, Goal(FIVE, 64), heard)).number == 3
        assert trio.current_time() >= 10
    assert heard == {rank: f"node {rank} does not have all data yet" for rank in (3, 4, 5)}


async def test_who_is_held_does_not_vote_and_the_change_can_be_taken_back(
    autojump_clock: trio.testing.MockClock
) -> None:
    nodes = Nodes(JOINT, (1, 2, 3, 4, 5))
    nodes.lacking, nodes.held = {4, 5}, {1, 2}
    nodes.silent = {3}
    with trio.move_on_after(20):
        await nodes.choose(JOINT, Goal(FIVE, 64))
        raise AssertionError("nobody has voted")
    assert not any(voter.record.voted for voter in nodes.voters.values())
    nodes.held = set()
    assert (await nodes.choose(JOINT, Goal(THREE, 64, cancels=True))).ranks == THREE


async def test_what_another_one_has_chosen_is_heard_also_while_nobody_is_asked(
    autojump_clock: trio.testing.MockClock
) -> None:
    nodes = Nodes(JOINT, (1, 2, 3, 4, 5))
    nodes.held = {1, 2, 3, 4, 5}
    back = Configuration(3, 64, THREE, 0, FIVE)

    async def cancel() -> None:
        await trio.sleep(10)
        nodes.configuration = back

    async with trio.open_nursery() as nursery:
        nursery.start_soon(cancel)
        assert await nodes.choose(JOINT, Goal(FIVE, 64)) == back


@pytest.mark.parametrize("seed", range(20))
async def test_of_two_at_once_one_is_chosen_for_both(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    random.seed(seed)
    nodes = Nodes()
    chosen: list[Configuration] = []

    async def one(ranks: int) -> None:
        chosen.append(await nodes.choose(FIRST, Goal(ranks, 64)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(one, FIVE)
        nursery.start_soon(one, mask((1, 2)))
    assert chosen[0] == chosen[1] and chosen[0].joining in (FIVE, mask((1, 2)))


async def test_who_has_forgotten_what_it_promised_is_asked_again(autojump_clock: trio.testing.MockClock) -> None:
    """Node 2 promises, and is wiped; then node 1 answers. These two promises are no majority."""
    nodes = Nodes()
    nodes.silent = {1, 3}
    phases: list[int] = []

    async def wipe() -> None:
        await nodes.first_asked.wait()
        await trio.sleep(1)
        nodes.lives[2] = Life(2, b"n" * 16)
        nodes.silent = {2, 3}
        await trio.sleep(10)
        phases.append(sum(isinstance(question, Elect) for _, question in nodes.asked))
        nodes.silent = {3}

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wipe)
        assert await nodes.choose(FIRST, Goal(FIVE, 64)) == JOINT
    assert phases == [0]


async def test_a_minority_chooses_nothing_and_it_is_said_who_is_missing(
    autojump_clock: trio.testing.MockClock
) -> None:
    nodes, heard = Nodes(), dict[int, str]()
    nodes.silent = {2, 3}
    with trio.move_on_after(20):
        await nodes.choose(FIRST, Goal(FIVE, 64), heard)
        raise AssertionError("one of three has chosen")
    assert heard == {2: "node 2 does not answer", 3: "node 3 does not answer"}


# --- what is in the way -----------------------------------------------------------------------------
def member(rank: int, **report: Any) -> Any:
    usual = {"configuration": {"number": 1, "members": [1, 2, 3], "joining": []}, "version": "1.2.3",
             "peers": {str(peer): "sealed" for peer in (1, 2, 3) if peer != rank}}
    return answer(rank, **{**usual, **report})


def test_who_keeps_no_configurations_is_in_the_way_whatever_is_forced() -> None:
    old = answer(3, version="0.0.1", peers={})
    must, may = why_not([member(1), member(2), old], FIRST, 0)
    assert must == ["node 3 is of version 0.0.1, which keeps no configurations: upgrade it first"] and may == []
    contract = [member(1, peers={"2": "sealed", "3": "contract"}), member(2), answer(3, "connects, but: no status")]
    for leaving in (0, mask((3,))):
        must, _ = why_not(contract, FIRST, leaving)
        assert must == ["node 3 speaks the contract alone, and would count by the nodes of before"]


def test_who_does_not_serve_is_in_the_way_unless_it_leaves_or_it_is_forced() -> None:
    answers = [member(1, lives={"faults": {"2": "its directory has changed"}}), member(2), answer(3, "refused")]
    assert why_not(answers, FIRST, 0) == ([], [
        "node 2 does not count: its directory has changed", "node 3 does not answer: refused"])
    assert why_not(answers, FIRST, mask((2, 3))) == ([], [])
    waits = [member(1), member(2, lives={"waits_for": "others"}), member(4)]
    assert why_not(waits, FIRST, 0) == ([], [
        "node 2 does not serve: others", "node 3 is not in the file, and was not found"])


@pytest.mark.parametrize(("members", "down", "later", "expected"), [
    ((1, 2, 3, 5), (5,), (1, 5), "of nodes 1 5 only 1 answers and serves, and 2 are needed: the disk would stop at "
     "once. Start node 5"),
    ((1, 2, 3, 4, 5), (4, 5), (3, 4, 5), "of nodes 3 4 5 only 3 answers and serves, and 2 are needed: the disk would "
     "stop at once. Start 1 of nodes 4 5"),
    ((1, 2, 3, 4, 5), (4, 5), (4, 5), "of nodes 4 5 none answers and serves, and 2 are needed: the disk would stop at "
     "once. Start nodes 4 5"),
    ((1, 2, 3, 4), (3, 4), (1, 2), "of nodes 1 2 3 4 only 1 2 answer and serve, and 3 are needed: the disk would "
     "stop at once. Start 1 of nodes 3 4"),
    ((1, 2, 3), (2, 3), (1, 2, 3, 4, 5), "of nodes 1 2 3 only 1 answers and serves, and 2 are needed: the disk would "
     "stop at once. Start 1 of nodes 2 3"),
    ((1, 2, 3, 5), (5,), (1, 2, 5), ""),
    ((1, 2, 3), (3,), (1, 2, 3, 4), ""),  # node 4 is waited for
    ((1, 2, 3), (3,), (1, 2), ""),
])
def test_both_sets_of_members_have_to_decide_or_the_disk_would_stop(
    members: tuple[int, ...], down: tuple[int, ...], later: tuple[int, ...], expected: str
) -> None:
    current = Configuration(3, 64, mask(members), 0, mask(members))
    silent = [answer(rank, "refused") if rank in down else member(rank) for rank in members]
    waiting = [member(rank, lives={"waits_for": "others"}) if rank in down else member(rank) for rank in members]
    for answers in (silent, waiting):
        assert why_it_would_stop(answers, current, mask(later)) == [expected] * bool(expected)


def test_a_new_node_counts_as_up_only_if_it_is_where_nobody_waits_for_it() -> None:
    current = Configuration(1, 64, THREE, 0, THREE)
    answers = [member(1), member(2), member(3)]
    assert why_it_would_stop(answers, current, mask((1, 4, 5))) == []
    assert why_it_would_stop(answers, current, mask((1, 4, 5)), mask((4,))) == []
    (line,) = why_it_would_stop(answers, current, mask((1, 4, 5)), 0)
    assert line.startswith("of nodes 1 4 5 only 1 answers and serves")


def test_a_new_node_waits_to_be_told() -> None:
    assert why_not_new({"configuration": {"number": 0, "members": [], "joining": []}}, FIRST) == ""
    assert why_not_new({"configuration": {"number": 2, "members": [1, 2, 3], "joining": [1, 2, 3, 4]}}, FIRST) == ""
    own_list = {"configuration": {"number": 1, "members": [1, 2, 3, 4], "joining": []}}
    assert "start it with --join" in why_not_new(own_list, FIRST)
    assert "keeps no configurations" in why_not_new({"version": "0.0.1"}, FIRST)


def test_a_new_node_can_have_a_disk_of_that_size() -> None:
    """It would take no configuration with it, and so would never serve."""
    waiting = {"configuration": {"number": 0, "members": [], "joining": []}}
    assert why_not_new({**waiting, "largest_sectors": FIRST.sectors}, FIRST) == ""
    fault = why_not_new({**waiting, "largest_sectors": FIRST.sectors - 1}, FIRST)
    assert f"can have a disk of {FIRST.sectors - 1} sectors at most" in fault and "ulimit -f" in fault


def test_votes_are_asked_for_once_enough_have_learned() -> None:
    """Of 1 2 3 together with 1 2 4: node 3 has nothing to learn, and 1, 2 and 4 have."""
    joint = Configuration(2, 64, THREE, mask((1, 2, 4)), mask((1, 2, 3, 4)))

    def says(rank: int, learned: bool, number: int = 2) -> Any:
        return member(rank, configuration={"number": number, "members": [], "joining": [], "learned": learned})

    assert may_vote([says(1, True), says(2, False), says(3, False), says(4, True)], joint) == mask((1, 3, 4))
    assert may_vote([says(1, True, 1), answer(2, "refused"), says(3, False, 3), answer(4)], joint) == 0
