"""The client's core as scripts: how operations end that are not completed."""

from __future__ import annotations

from dsreg.client.events import (
    Abandon,
    Close,
    Completed,
    Connected,
    Disconnected,
    Dropped,
    Failed,
    KeyRefused,
    NotSealed,
    OtherDisk,
    Send,
    Start,
    Withdraw,
)
from dsreg.client.limits import (
    MAX_REFUSALS,
)
from dsreg.errors import AuthenticationFailed, ClientClosed, Outcome, OutOfRange, UnsealedNode, WrongDisk
from dsreg.protocol.messages import Status
from tests.client.play import DATA, Play, answered, commands, failure, ok


# --- giving up ----------------------------------------------------------------------------------
def test_an_abandoned_read_or_tag_did_not_happen() -> None:
    play = Play()
    for operation, begin in ((5, play.read), (6, play.tag)):
        rank, command = begin(operation)
        assert play.core.outcome(operation) is Outcome.DID_NOT_HAPPEN
        assert play.do(Abandon(operation)) == [Withdraw(rank, command.request), Dropped(operation)]
        assert play.do(ok(command, rank)) == []


def test_an_abandoned_get_did_not_happen() -> None:
    play = Play()
    (_, command), _ = commands(play.do(Start(5, 0, 1)))
    assert play.do(Abandon(5)) == [Withdraw(1, command.request), Withdraw(2, command.request), Dropped(5)]
    assert play.do(ok(command, 1)) == []


def test_an_abandoned_store_runs_to_its_end() -> None:
    play = Play()
    _, tag = play.tag(5)
    _, store = play.sends(ok(tag, 1))
    assert play.core.outcome(5) is Outcome.MAY_HAVE_HAPPENED
    assert play.do(Abandon(5)) == []
    assert play.do(Disconnected(1)) == [Send(2, store)]
    assert play.do(ok(store, 2)) == [Completed(5)]


def test_a_store_that_was_never_sent_did_not_happen() -> None:
    play = Play(1, up=(1,))
    _, tag = play.tag(5)
    _, store = play.sends(ok(tag, 1))
    play.do(answered(store, 1, Status.STOPPING))
    assert play.core.outcome(5) is Outcome.DID_NOT_HAPPEN
    assert play.do(Abandon(5)) == [Dropped(5)]


def test_closing_ends_everything_and_says_what_is_known() -> None:
    play = Play()
    play.read(5)
    _, tag = play.tag(6, 1)
    play.sends(ok(tag, 1))
    failed = [effect for effect in play.do(Close()) if isinstance(effect, Failed)]
    assert all(isinstance(effect.error, ClientClosed) for effect in failed)
    assert {effect.operation: effect.error.outcome for effect in failed} == {
        5: Outcome.DID_NOT_HAPPEN,
        6: Outcome.MAY_HAVE_HAPPENED,
    }


# --- refusals -----------------------------------------------------------------------------------
def test_a_sector_that_the_node_does_not_have() -> None:
    play = Play()
    _, command = play.read(5)
    failed = failure(play.do(answered(command, 1, Status.INVALID_SECTOR_INDEX)))
    assert isinstance(failed.error, OutOfRange) and failed.error.outcome is Outcome.DID_NOT_HAPPEN


def test_a_damaged_command_is_repeated_a_few_times() -> None:
    play = Play(1, up=(1,))
    _, command = play.tag(5)
    for _ in range(MAX_REFUSALS):
        assert play.do(answered(command, 1, Status.AUTH_FAILURE)) == [Send(1, command)]
    failed = failure(play.do(answered(command, 1, Status.AUTH_FAILURE)))
    assert isinstance(failed.error, AuthenticationFailed) and failed.error.outcome is Outcome.DID_NOT_HAPPEN


def test_a_refused_store_may_have_happened_through_another_node() -> None:
    play = Play(1, 2, up=(1, 2))
    _, tag = play.tag(5)
    _, store = play.sends(ok(tag, 1))
    play.do(Disconnected(1))
    failed = failure(play.do(answered(store, 2, Status.INVALID_SECTOR_INDEX)))
    assert failed.error.outcome is Outcome.MAY_HAVE_HAPPENED


def test_a_key_that_no_node_accepts() -> None:
    play = Play(up=())
    assert play.do(Start(5, 0, 1)) == []
    assert play.do(KeyRefused(1)) == play.do(Disconnected(2)) == []
    failed = failure(play.do(KeyRefused(3)))
    assert isinstance(failed.error, AuthenticationFailed) and failed.error.outcome is Outcome.DID_NOT_HAPPEN
    assert isinstance(failure(play.do(Start(6, 0, 1))).error, AuthenticationFailed)


def test_a_disk_of_another_size_on_every_node_that_answers() -> None:
    play = Play(up=())
    assert play.do(Start(5, 0, 1, DATA)) == []
    assert play.do(OtherDisk(1, 512, 1024)) == play.do(Disconnected(2)) == []
    failed = failure(play.do(Disconnected(3)))
    assert isinstance(failed.error, WrongDisk) and failed.error.outcome is Outcome.DID_NOT_HAPPEN
    assert failed.error.reason == "node 1 has a disk of 512 sectors, not of 1024 as configured here"
    assert isinstance(failure(play.do(Start(6, 0, 1))).error, WrongDisk)
    play.do(Connected(1))
    assert len(play.do(Start(7, 0, 1))) == 1, "a node that is good after all ends it"


def test_nodes_that_do_not_seal_where_it_is_required() -> None:
    play = Play(up=())
    assert play.do(Start(5, 0, 1, DATA)) == []
    assert play.do(NotSealed(1)) == play.do(Disconnected(2)) == []
    failed = failure(play.do(Disconnected(3)))
    assert isinstance(failed.error, UnsealedNode) and failed.error.outcome is Outcome.DID_NOT_HAPPEN
    assert "node 1 does not seal" in failed.error.reason


def test_one_node_with_another_disk_does_no_harm() -> None:
    play = Play(up=(1,))
    play.do(Disconnected(2))
    play.do(OtherDisk(3, 512, 1024))
    play.do(Disconnected(1))
    assert play.do(Start(5, 0, 1)) == []


def test_one_node_with_another_key_does_no_harm() -> None:
    play = Play(up=(1,))
    play.do(Disconnected(2))
    play.do(KeyRefused(3))
    play.do(Disconnected(1))
    assert play.do(Start(5, 0, 1)) == []
    assert len(play.do(Connected(1))) == 1
