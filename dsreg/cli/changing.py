"""What `dsreg members` and `dsreg resize` ask of the nodes: who there is, whether a change is safe, and to choose it,
step by step.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import click
import trio

from dsreg.cli.faults import EXIT_FAILED, EXIT_NO_QUORUM
from dsreg.cli.proposing import choose, finish
from dsreg.client import Client
from dsreg.config import ClusterConfig, NodeAddress, format_size
from dsreg.constants import SECTOR_SIZE
from dsreg.errors import DsregError, is_config_fault
from dsreg.health.answers import NodeAnswer
from dsreg.health.in_sync import Copy, copies
from dsreg.health.serving import changed_directories, serves
from dsreg.protocol.configuration import Configuration
from dsreg.register.configuration import must_learn, quorum_of
from dsreg.register.course import Course, described, named
from dsreg.register.quorum import Majority, bit, mask, ranks_in
from dsreg.survey import ask_all, ask_cluster, survey
from dsreg.units import duration_text, share_text, size_text

# How long the answers of the nodes are waited for, and between two questions.
ASK_S: Final = 2.0
POLL_S: Final = 0.5
# Between two lines on what is waited for, where there is no terminal.
EVERY_S: Final = 5.0
# Who lacks something looks for it by itself. After so long it is asked to vote all the same, so that it looks again.
ASK_ANYWAY_S: Final = 20.0

Show = Callable[[str], None]


class Refused(DsregError):
    """What is wanted is not safe, not possible, or not wanted any more; a line for each reason, and the exit code."""

    def __init__(self, lines: Sequence[str], code: int = EXIT_FAILED) -> None:
        super().__init__("; ".join(lines))
        self.lines = tuple(lines)
        self.code = code


class Line:
    """What is waited for, on stderr: one line that changes on a terminal, elsewhere one now and then. `text`: the
    latest. `is_proposing`: whether something may have been chosen."""

    def __init__(self) -> None:
        self.text = "waiting for the nodes to answer"
        self.is_proposing = False
        self._is_terminal = sys.stderr.isatty()
        self._text = ""
        self._said_s = -EVERY_S

    def show(self, text: str) -> None:
        self.text = text or self.text
        if text == self._text:
            return
        if self._is_terminal:
            self._text = text
            width = shutil.get_terminal_size().columns
            sys.stderr.write(f"\r\x1b[K{text[:width - 1]}")
            sys.stderr.flush()
        elif text and time.monotonic() >= self._said_s + EVERY_S:
            self._text, self._said_s = text, time.monotonic()
            click.echo(text, err=True)


# --- who there is ---------------------------------------------------------------------------------
async def survey_members(
    client: Client, config: ClusterConfig
) -> tuple[Configuration, tuple[NodeAnswer, ...]]:
    """The latest configuration that the nodes of the file tell, and what they answer. Raises Refused, or what is wrong
    with the file or its key if no node can be used for that."""
    answers = await ask_cluster(client, config, ASK_S)
    if client.configuration is not None:
        return client.configuration, answers
    found = await survey(client, config, ASK_S)  # an operation finds out whether it is the file
    if found.error is not None and is_config_fault(found.error):
        raise found.error
    silent = [f"node {answer.node.rank}: {answer.fault}" for answer in found.answers if answer.report is None]
    what = "no node" if len(silent) == len(found.answers) else "no node that keeps configurations"
    raise Refused([f"nothing is changed: {what} answers", *silent], EXIT_NO_QUORUM)


def why_not(
    answers: Sequence[NodeAnswer], current: Configuration, leaving: int
) -> tuple[list[str], list[str]]:
    """What stands in the way of a change: what has to be mended before, and what may be overruled. `leaving`: a mask of
    nodes that need not be up."""
    must, may = [], []
    changed = changed_directories(answers)
    reports = {answer.node.rank: answer for answer in answers}
    for rank in ranks_in(current.members):
        answer = reports.get(rank)
        if any(_link(other, rank) == "contract" for other in answers):
            must.append(f"node {rank} speaks the contract alone, and would count by the nodes of before")
        elif answer is not None and answer.report is not None and "configuration" not in answer.report:
            must.append(f"node {rank} is of version {answer.report.get('version')}, which keeps no configurations: "
                        "upgrade it first")
        elif bit(rank) & leaving:
            continue
        elif answer is None:
            may.append(f"node {rank} is not in the file, and was not found")
        elif answer.report is None:
            may.append(f"node {rank} does not answer: {answer.fault}")
        elif rank in changed:
            may.append(f"node {rank} does not count: {changed[rank]}")
        elif waits_for := answer.report.get("lives", {}).get("waits_for"):
            may.append(f"node {rank} does not serve: {waits_for}")
    return must, may


def _link(answer: NodeAnswer, rank: int) -> str:
    """Of the node that answers, to that one."""
    return str(answer.report.get("peers", {}).get(str(rank), "")) if answer.report is not None else ""


def why_it_would_stop(
    answers: Sequence[NodeAnswer], current: Configuration, later: int, new: int | None = None
) -> list[str]:
    """Why the disk would stop as soon as the joint configuration is chosen, a line for each set that too few nodes of
    are up: that of now, and `later`, a mask. `new`: those of the new ones that are up, None: all, as they are waited
    for. There is no way back either, as both sets have to decide for it too."""
    changed = changed_directories(answers)
    up = later & ~current.ranks if new is None else new
    up |= mask(answer.node.rank for answer in answers if serves(answer, changed))
    sets = [Majority(members) for members in dict.fromkeys((current.ranks, later))]
    return [_too_few(quorum, up & quorum.members) for quorum in sets if not quorum.decided(up)]


def _too_few(quorum: Majority, up: int) -> str:
    down, lacking = quorum.members & ~up, quorum.needed - up.bit_count()
    answer = "answers and serves" if up.bit_count() < 2 else "answer and serve"
    who = f"only {named(up)}" if up else "none"
    if down.bit_count() > lacking:
        start = f"{lacking} of nodes {named(down)}"
    else:
        start = f"node {named(down)}" if lacking == 1 else f"nodes {named(down)}"
    return (f"of nodes {named(quorum.members)} {who} {answer}, and {quorum.needed} are needed: the disk would stop at "
            f"once. Start {start}")


def why_not_so_large(answers: Sequence[NodeAnswer], current: Configuration, sectors: int) -> list[str]:
    """Which members that answer cannot have a disk of that size, and why."""
    faults = []
    for answer in answers:
        rank, report = answer.node.rank, answer.report
        if report is None or not current.members & bit(rank) or "configuration" not in report:
            continue
        if "largest_sectors" not in report:
            faults.append(f"node {rank} is of version {report.get('version')}, whose disk does not grow: upgrade it "
                          "first")
        elif fault := _too_small(report, sectors):
            faults.append(f"node {rank} {fault}")
    return faults


def check(
    answers: Sequence[NodeAnswer], current: Configuration, later: int, *, sectors: int = 0, force: bool
) -> None:
    """Raises Refused unless the change to the members `later`, a mask, or to a disk of so many `sectors`, may begin."""
    must, may = why_not(answers, current, current.ranks & ~later)
    must += why_it_would_stop(answers, current, later) + why_not_so_large(answers, current, sectors)
    if must or may and not force:
        hint = [] if must else ["start it, or give --force"]
        raise Refused([f"nothing is changed: {line}" for line in (*must, *may)] + hint)
    for line in may:
        click.echo(f"dsreg: warning: {line}", err=True)


async def check_again(client: Client, config: ClusterConfig, current: Configuration, later: int) -> None:
    """Whether the disk would stop, after new nodes were waited for. Raises Refused."""
    if lines := why_it_would_stop(await ask_cluster(client, config, ASK_S), current, later):
        raise Refused([f"nothing is changed: {line}" for line in lines])


def is_latest(answers: Sequence[NodeAnswer], current: Configuration) -> bool:
    """Whether so many tell it that no later one is in force, as far as those have heard that decide."""
    return quorum_of(current).decided(mask(
        answer.node.rank for answer in answers if _knows(answer, current)))


# --- new nodes ------------------------------------------------------------------------------------
async def wait_for_new(client: Client, nodes: Sequence[NodeAddress], current: Configuration, show: Show) -> None:
    """Until each of these runs, and waits to be made a member. Raises Refused for one that cannot be."""
    while True:
        answers = await ask_all(client, nodes, ASK_S)
        missing = []
        for answer in answers:
            if answer.report is None:
                missing.append(f"node {answer.node.rank} ({answer.node.address}): {answer.fault}")
            elif fault := why_not_new(answer.report, current):
                raise Refused([f"nothing is changed: node {answer.node.rank} {fault}"])
        if not missing:
            show("")
            return
        show(f"waiting for {'; '.join(missing)}")
        await trio.sleep(POLL_S)


def why_not_new(report: Mapping[str, Any], current: Configuration) -> str:
    """Why a node that answers like this cannot become a member; "" if it can. Those that vote do not know it yet, and
    leave that to who proposes."""
    told = report.get("configuration")
    if told is None:
        return f"is of version {report.get('version')}, which keeps no configurations"
    if told["number"] == current.number and mask(told["members"]) != current.ranks:
        return (f"has taken the nodes {' '.join(map(str, told['members']))}, of its cluster.toml, for those of the "
                "cluster: start it with --join, and an empty directory")
    return _too_small(report, current.sectors)


def _too_small(report: Mapping[str, Any], sectors: int) -> str:
    """Why a node that answers like this cannot have a disk of so many sectors; "" if it can, or does not say."""
    largest = report.get("largest_sectors", sectors)
    if largest >= sectors:
        return ""
    return (f"can have a disk of {largest} sectors at most ({size_text(largest * SECTOR_SIZE)}), not of {sectors}: its "
            "file system, or ulimit -f, allows no longer file. Put its directory on another file system, such as XFS")


# --- the change -----------------------------------------------------------------------------------
async def finish_begun(
    client: Client, config: ClusterConfig, current: Configuration, answers: Sequence[NodeAnswer], show: Show
) -> Configuration:
    """`current`, or what follows it, if some have voted for that: the command that proposed it was killed before it
    told anybody, and it may be chosen. Raises Refused if the disk would stop by it."""
    found = await finish(client, current, _Begun(current, answers, show))
    show("")
    if found is None:
        return current
    click.echo(f"configuration {found.number}: {described(found)}, which an earlier command has begun")
    await told_by_most(client, config, found)
    return found


class _Begun:
    """What is taken up of a command that was killed: see Watcher."""

    def __init__(self, base: Configuration, answers: Sequence[NodeAnswer], show: Show) -> None:
        self._base = base
        self._answers = answers
        self._show = show

    def objections(self, reasons: Mapping[int, str]) -> None:
        if reasons:
            self._show(f"asking what was voted for: {'; '.join(reason for _, reason in sorted(reasons.items()))}")

    def holds(self, rank: int, following: Configuration) -> bool:
        new = mask(answer.node.rank for answer in self._answers if answer.report is not None) & following.joining
        lines = why_it_would_stop(self._answers, self._base, following.joining or following.ranks,
                                  new & ~self._base.ranks)
        if lines:
            what = f"configuration {following.number}, {described(following)}"
            raise Refused([f"some have voted for {what}, which an earlier command has begun: it may be chosen, and "
                           "nothing is taken back without it", *lines])
        return False


async def walk(client: Client, config: ClusterConfig, course: Course, say: Show, show: Show) -> None:
    """Have each step of the course chosen. Raises Refused once somebody else has changed the members otherwise."""
    while (following := course.following) is not None:
        waiting = _Waiting(course.current, following, show)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(waiting.watch, client, config)
            chosen = await choose(client, course.current, course.goal, waiting)
            nursery.cancel_scope.cancel()
        show("")
        client.tell(chosen)
        if not course.chosen(chosen):
            what = "members" if chosen.sectors == waiting.base.sectors else "size"
            raise Refused([f"somebody else has changed the {what} meanwhile: configuration {chosen.number} has "
                           f"{described(chosen)}, {size_of(chosen)}. Give the command again if it is still wanted"])
        size = "" if chosen.sectors == waiting.base.sectors else f", {size_of(chosen)}"
        say(f"configuration {following.number}: {described(following)}{size}")


def size_of(configuration: Configuration) -> str:
    """For people."""
    return format_size(configuration.sectors * SECTOR_SIZE)


class _Waiting:
    """What a step waits for, in one line, and whether so many have learned that asking for votes is of use: see
    Watcher. `wish`: what is to follow."""

    def __init__(self, base: Configuration, wish: Configuration, show: Show) -> None:
        self.base = base
        self._wish = wish
        self._show = show
        self._copies: dict[int, Copy] = {}
        self._lacking = 0  # mask: those that have said that they have not learned
        self._is_ready = not any(must_learn(base, wish, rank) for rank in ranks_in(base.members))
        self._ask_anyway_s = trio.current_time() + ASK_ANYWAY_S
        self._taken_up = ""

    def objections(self, reasons: Mapping[int, str]) -> None:
        if not self._is_ready:
            lacking = {rank: f"node {rank} does not have all data yet" for rank in ranks_in(self._lacking)}
            reasons = {**reasons, **lacking}
        if reasons:
            lines = [reason + self._progress(rank) for rank, reason in sorted(reasons.items())]
            self._show(f"waiting{self._taken_up}: {'; '.join(lines)}")

    def holds(self, rank: int, following: Configuration) -> bool:
        if following != self._wish:  # votes were cast for it before
            self._taken_up = f" for {described(following)}, which some have voted for already"
            return False
        if self._is_ready:
            return False
        return not self._lacking & bit(rank) or trio.current_time() < self._ask_anyway_s

    async def watch(self, client: Client, config: ClusterConfig) -> None:
        while True:
            answers = await ask_cluster(client, config, ASK_S, self.base.members)
            self._copies = copies(answers)
            ready = may_vote(answers, self.base)
            self._lacking = mask(answer.node.rank for answer in answers if answer.report is not None) & ~ready
            self._is_ready = self._is_ready or quorum_of(self.base).decided(ready)
            await trio.sleep(POLL_S)

    def _progress(self, rank: int) -> str:
        copy = self._copies.get(rank)
        if copy is None or not copy.is_moving:
            return ""
        share = "" if copy.share is None else f", {share_text(copy.share)}"
        left = "" if copy.left_s is None else f", {duration_text(copy.left_s)} left"
        return f" ({copy.state}{share}{left})"


def may_vote(answers: Sequence[NodeAnswer], base: Configuration) -> int:
    """The mask of those that know the joint configuration, and have learned if they have to, to vote for its later set
    alone."""
    ready = 0
    for answer in answers:
        told = answer.report.get("configuration") if answer.report is not None else None
        if told is not None and told["number"] == base.number:
            has_to = base.joining & bit(answer.node.rank)
            ready |= bit(answer.node.rank) if told["learned"] or not has_to else 0
    return ready


async def told_by_most(client: Client, config: ClusterConfig, configuration: Configuration) -> None:
    """Until so many know of it that they decide; they tell the others."""
    quorum = quorum_of(configuration)
    while True:
        client.tell(configuration)
        answers = await ask_cluster(client, config, ASK_S, configuration.members)
        if quorum.decided(mask(answer.node.rank for answer in answers if _knows(answer, configuration))):
            return
        await trio.sleep(POLL_S)


def _knows(answer: NodeAnswer, configuration: Configuration) -> bool:
    told = answer.report.get("configuration") if answer.report is not None else None
    return told is not None and int(told["number"]) >= configuration.number
