"""Epochs: who may attach the disk, what a promise takes, what a restart keeps. Rules: docs/attachments.md."""

from __future__ import annotations

import pytest

from dsreg.constants import NO_OWNER
from dsreg.protocol.messages import Command, CommandKind, Response, Status, name_of_owner, owner_of
from dsreg.protocol.plausibility import ALWAYS_PLAUSIBLE_EPOCH
from dsreg.protocol.tags import ATTACHED, pack_tag, ts_of
from dsreg.register.effects import Again, Effect, Fence, Reply
from dsreg.register.epochs import OWNER_UNSURE_S, Epochs, Go, Refuse, Wait
from dsreg.register.now import Now
from dsreg.testing.memory_storage import MemoryStorage

ALICE, BOB = owner_of(b"a" * 16, "alice"), owner_of(b"b" * 16, "bob")
HERE, THERE = "a connection", "another"


class Node:
    """Epochs on storage in memory."""

    def __init__(self, unix_time_s: float = 0.0) -> None:
        self.storage = MemoryStorage()
        self.unix_time_s = unix_time_s
        self.now = OWNER_UNSURE_S
        self.restart(0.0)

    def restart(self, started_s: float = 0.0) -> None:
        """`started_s`: OWNER_UNSURE_S ago, unless the test says otherwise."""
        self.storage.crash()
        self.epochs = Epochs(self.storage, started_s)

    def at(self) -> Now:
        return Now(self.now, self.unix_time_s)

    def ask(self, connection: str = HERE) -> Response:
        (answer,) = self.epochs.attach(connection, attach(0), True, self.at())
        return response(answer)

    def attach(self, epoch: int, owner: bytes = ALICE, connection: str = HERE) -> list[Effect]:
        return self.epochs.attach(connection, attach(epoch, owner), True, self.at())

    def keep(self, effect: Effect) -> Response:
        """Make the promise durable; the answer that waited for it."""
        assert isinstance(effect, Fence)
        self.storage.queue(effect)
        self.storage.commit(-1)
        ((what, connection),) = effect.then
        assert isinstance(what, Command) and connection is not None
        (answer,) = self.epochs.attached(connection, what, self.at())
        return response(answer)

    def attached(self, epoch: int, owner: bytes = ALICE, connection: str = HERE) -> Response:
        (effect,) = self.attach(epoch, owner, connection)
        return self.keep(effect) if isinstance(effect, Fence) else response(effect)


def attach(epoch: int, owner: bytes = NO_OWNER) -> Command:
    return Command.attach(7, epoch, owner)


def response(effect: Effect) -> Response:
    assert isinstance(effect, Reply) and effect.completes is not None
    assert isinstance(effect.message, Response)
    return effect.message


def told(
    status: Status, epoch: int, owner: bytes = b"", alive: bool = False, unsure: bool = False, mixed: bool = False,
    counter: int = 0,
) -> Response:
    good = status is Status.OK
    return Response(
        status, CommandKind.ATTACH, 7, b"", b"", True, epoch, alive, unsure, mixed, counter,
        max(epoch, ALWAYS_PLAUSIBLE_EPOCH) if good else 0, owner,
    )


# --- rule 7: who may attach -----------------------------------------------------------------------
def test_asking_changes_nothing() -> None:
    node = Node()
    assert node.ask() == told(Status.OK, 0, NO_OWNER)
    assert node.epochs.promised == 0 and not node.epochs.is_owner_connected


def test_it_is_answered_only_once_the_promise_is_durable() -> None:
    node = Node()
    (fence,) = node.attach(1)
    assert fence == Fence(1, ALICE, (Again(attach(1, ALICE), HERE),))
    assert (node.epochs.promised, node.epochs.durable) == (1, 0)
    assert node.ask(THERE) == told(Status.OK, 0, NO_OWNER), "what is not durable is told to nobody"
    assert node.keep(fence) == told(Status.OK, 1, ALICE, alive=True)
    assert node.ask(THERE) == told(Status.OK, 1, ALICE, alive=True)


def test_any_newer_epoch_may_take_over() -> None:
    node = Node()
    node.attached(3)
    assert node.attached(9, BOB, THERE) == told(Status.OK, 9, BOB, alive=True)


@pytest.mark.parametrize("durable", [False, True])
def test_a_second_owner_of_the_same_epoch_is_refused(durable: bool) -> None:
    node = Node()
    (fence,) = node.attach(2)
    if durable:
        node.keep(fence)
    assert node.attached(2, BOB, THERE) == told(Status.FENCED, 2)
    assert node.attached(1, BOB, THERE) == told(Status.FENCED, 2)


def test_the_same_owner_may_come_again_on_another_connection() -> None:
    node = Node()
    node.attached(2)
    node.epochs.disconnected(HERE)
    assert node.attached(2, ALICE, THERE) == told(Status.OK, 2, ALICE, alive=True)


def test_an_epoch_that_the_node_knows_only_by_number_may_still_be_attached_by_one() -> None:
    """Somebody has it at other nodes, perhaps: a majority is what decides, and that cannot be two owners'."""
    node = Node()
    fence = node.epochs.fence(4, Again(attach(0), THERE))
    assert fence.owner == NO_OWNER
    node.keep(fence)
    assert node.attached(4, BOB) == told(Status.OK, 4, BOB, alive=True)
    assert node.attached(4, ALICE) == told(Status.FENCED, 4)


def test_rule_9_refused_while_a_peer_keeps_no_epochs() -> None:
    node = Node()
    (answer,) = node.epochs.attach(HERE, attach(1, ALICE), supported=False, now=Now(0.0, 0.0))
    assert response(answer) == told(Status.UNSUPPORTED, 0)
    (answer,) = node.epochs.attach(HERE, attach(0), supported=False, now=Now(0.0, 0.0))
    assert response(answer) == told(Status.OK, 0, NO_OWNER, mixed=True), "so that nobody claims what he will not get"
    assert node.epochs.promised == 0


def test_an_absurd_epoch_is_refused_and_changes_nothing() -> None:
    node = Node()
    assert node.attached(ALWAYS_PLAUSIBLE_EPOCH + 1) == told(Status.DISBELIEVED, 0)
    assert node.epochs.promised == 0 and not node.epochs._attached
    assert node.attached(ALWAYS_PLAUSIBLE_EPOCH).status is Status.OK
    assert Node(unix_time_s=1.8e9).attached(1_562_500).status is Status.OK


def test_what_is_promised_already_is_believed_though_the_clock_went_back() -> None:
    node = Node(unix_time_s=1.8e9)
    node.attached(1_000_000)
    node.unix_time_s = 0.0
    assert node.epochs.believes(1_000_000, node.at()) and not node.epochs.believes(1_000_001, node.at())


# --- restarts -------------------------------------------------------------------------------------
def test_a_restart_keeps_the_promise_and_the_owner() -> None:
    node = Node()
    node.attached(5)
    node.restart()
    assert (node.epochs.promised, node.epochs.durable) == (5, 5)
    assert node.ask() == told(Status.OK, 5, ALICE), "nobody is connected any more"
    assert node.attached(5, BOB) == told(Status.FENCED, 5)
    assert node.attached(5, ALICE) == told(Status.OK, 5, ALICE, alive=True)


def test_a_promise_that_was_not_durable_is_forgotten_as_nobody_was_told() -> None:
    node = Node()
    node.attach(5)
    node.restart()
    assert node.epochs.promised == 0
    assert node.attached(5, BOB) == told(Status.OK, 5, BOB, alive=True)


# --- is the owner there? --------------------------------------------------------------------------
def test_the_owner_is_connected_as_long_as_one_of_its_connections_is() -> None:
    node = Node()
    node.attached(2)
    node.attached(2, ALICE, THERE)
    node.epochs.disconnected(HERE)
    assert node.ask().alive
    node.epochs.disconnected(THERE)
    assert node.ask("a third") == told(Status.OK, 2, ALICE)
    node.epochs.disconnected(THERE)
    assert not node.epochs.is_owner_connected


def test_who_only_asks_or_was_refused_is_not_the_owner() -> None:
    node = Node()
    node.ask()
    node.attached(2)
    node.attached(2, BOB, THERE)
    node.ask(THERE)
    node.epochs.disconnected(HERE)
    assert not node.epochs.is_owner_connected


def test_the_owner_of_an_older_epoch_does_not_count() -> None:
    node = Node()
    node.attached(2)
    node.attached(3, BOB, THERE)
    node.epochs.disconnected(THERE)
    assert node.ask("a third") == told(Status.OK, 3, BOB), "alice is still connected, and fenced"


def test_a_promise_to_nobody_leaves_no_owner_connected() -> None:
    node = Node()
    node.attached(2)
    node.keep(node.epochs.fence(3, Again(attach(0), THERE)))
    assert not node.epochs.is_owner_connected
    assert not Node().epochs.is_owner_connected, "and epoch 0 has none"


def test_a_connection_that_goes_while_the_promise_is_made_is_not_there_afterwards() -> None:
    node = Node()
    (fence,) = node.attach(1)
    assert not node.epochs.is_owner_connected, "not before it is durable"
    node.epochs.disconnected(HERE)
    assert node.keep(fence) == told(Status.OK, 1, ALICE)
    assert not node.epochs.is_owner_connected and not node.epochs._attached


def test_a_newer_promise_that_is_made_meanwhile() -> None:
    """Alice's is durable after Bob's was asked for: she hears OK for 1, and is not taken for the owner of 2."""
    node = Node()
    (first,) = node.attach(1)
    (second,) = node.attach(2, BOB, THERE)
    assert node.keep(first).status is Status.OK
    assert not node.epochs.is_owner_connected
    assert node.keep(second) == told(Status.OK, 2, BOB, alive=True)


def test_after_its_start_a_node_does_not_know_yet_whether_the_owner_is_alive() -> None:
    node = Node()
    node.attached(2)
    node.restart(started_s=node.now)
    assert node.ask() == told(Status.OK, 2, ALICE, unsure=True)
    node.now += OWNER_UNSURE_S - 0.1
    assert node.ask().unsure
    node.now += 0.1
    assert node.ask() == told(Status.OK, 2, ALICE), "it has not come back"


def test_an_owner_that_has_come_back_and_gone_again_is_gone() -> None:
    node = Node()
    node.attached(2)
    node.restart(started_s=node.now)
    assert node.attached(2, ALICE, THERE).alive
    assert node.ask() == told(Status.OK, 2, ALICE, alive=True)
    node.epochs.disconnected(THERE)
    assert node.ask() == told(Status.OK, 2, ALICE)


def test_a_disk_that_nobody_ever_attached_is_free_at_once() -> None:
    node = Node()
    node.restart(started_s=node.now)
    assert node.ask() == told(Status.OK, 0, NO_OWNER)


# --- rule 6: commands -----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("of", "epoch", "expected"),
    [
        (0, 0, "go"), (0, 3, "go"), (0, 4, "go"), (0, 5, "go"),  # of no attachment; `epoch` is that of its tags
        (3, 3, "fenced"), (4, 4, "fenced"), (4, 6, "fenced"),
        (5, 5, "go"), (5, 3, "go"),
        (0, 6, "unknown"), (6, 6, "unknown"), (1 << 20, 1 << 20, "unknown"), (0, 1 << 20, "unknown"),
    ],
)
def test_what_comes_before_a_command(of: int, epoch: int, expected: str) -> None:
    """Nothing but ATTACH raises what is promised, of what clients send."""
    node = Node()
    node.attached(5)
    command = Command(CommandKind.GET, 1, 8, 1, extended=True, epoch=of)
    verdict = node.epochs.before(command, epoch, HERE, command)
    if expected == "go":
        assert verdict == Go()
    else:
        assert isinstance(verdict, Refuse)
        status = Status.FENCED if expected == "fenced" else Status.DISBELIEVED
        assert response(verdict.reply) == Response(status, CommandKind.GET, 1, extended=True, epoch=5)
        assert node.epochs.promised == 5


def test_a_command_waits_for_a_promise_that_is_being_made() -> None:
    """Epoch 6 is promised but not durable: what was accepted before may not be decided yet."""
    node = Node()
    node.attached(5)
    node.attach(6, BOB)
    command = Command(CommandKind.GET, 1, 8, 1, extended=True, epoch=6)
    then = Again(command, THERE)
    assert node.epochs.before(command, 6, THERE, command) == Wait(Fence(6, NO_OWNER, (then,))), "behind the first one"
    older = command._replace(epoch=5)
    verdict = node.epochs.before(older, 5, HERE, older)
    assert isinstance(verdict, Refuse) and response(verdict.reply).status is Status.FENCED
    assert node.ask().owner == ALICE, "the promise of 6 is not durable yet"
    assert node.epochs._owner == BOB, "and a fence without an owner does not take him back"


# --- owners ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["", "host-7 pid 1234", "n" * 48])
def test_an_owner_has_a_name(name: str) -> None:
    owner = owner_of(bytes(range(16)), name)
    assert len(owner) == 64 and owner[:16] == bytes(range(16))
    assert name_of_owner(owner) == name


def test_a_name_that_is_no_utf_8_is_shown_somehow() -> None:
    assert name_of_owner(b"\xff" * 64)


# --- a promise that is overtaken while it becomes durable ---------------------------------------------
def test_an_owner_of_an_older_epoch_does_not_make_the_newest_one_known() -> None:
    node = Node()
    (first,) = node.attach(1, BOB)
    node.attached(2, ALICE, THERE)
    node.restart()
    node.now = OWNER_UNSURE_S / 2
    assert isinstance(first, Fence)
    node.epochs.attached(HERE, attach(1, BOB), node.at())
    assert node.ask(HERE) == told(Status.OK, 2, ALICE, unsure=True)


def test_the_counter_of_an_epoch_that_is_not_durable_is_told_in_no_other() -> None:
    node = Node()
    node.attached(1)
    (fence,) = node.attach(2, BOB, THERE)
    node.epochs.accepted(pack_tag(ts_of(2, 77), ATTACHED, 0, 2))
    assert node.ask() == told(Status.OK, 1, ALICE, counter=0)
    assert node.keep(fence) == told(Status.OK, 2, BOB, alive=True, counter=77)
