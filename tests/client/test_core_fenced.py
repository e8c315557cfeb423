"""The client's core with the disk attached, fenced: what ends, and what is said of what had been sent."""

from __future__ import annotations

from dsreg.client.events import Attached, Close, Connected, Disconnected, NotAttached, Start
from dsreg.errors import ClientClosed, DiskFenced, Outcome
from dsreg.protocol.messages import Status
from tests.client.attached_play import OWNER, AttachedPlay, attach_answer, errors, gets, puts
from tests.client.play import DATA, answered, ok


def test_fencing_ends_everything_and_says_what_is_known() -> None:
    play = AttachedPlay()
    put = puts(play)[1]
    gets(play, 6)
    effects = play.do(answered(put, 2, Status.FENCED, epoch=2))
    assert [type(effect) for effect in effects if isinstance(effect, NotAttached)] == [NotAttached]
    assert errors(effects) == {5: (DiskFenced, Outcome.MAY_HAVE_HAPPENED), 6: (DiskFenced, Outcome.DID_NOT_HAPPEN)}
    assert errors(play.do(Start(7, 0, 1))) == {7: (DiskFenced, Outcome.DID_NOT_HAPPEN)}
    assert errors(play.do(Start(8, 0, 1, DATA))) == {8: (DiskFenced, Outcome.DID_NOT_HAPPEN)}


def test_a_put_whose_connection_broke_may_have_happened_though_the_others_fenced_it() -> None:
    play = AttachedPlay()
    put = puts(play)[1]
    assert play.do(Disconnected(1)) == [], "it may have stored it before"
    effects = play.do(answered(put, 2, Status.FENCED, epoch=2))
    assert errors(effects) == {5: (DiskFenced, Outcome.MAY_HAVE_HAPPENED)}
    play = AttachedPlay()
    put = puts(play)[1]
    play.do(answered(put, 2, Status.REFUSED))
    play.do(Disconnected(1))
    effects = play.do(answered(put, 3, Status.FENCED, epoch=2))
    assert errors(effects) == {5: (DiskFenced, Outcome.MAY_HAVE_HAPPENED)}, "of node 1 nothing is known"


def test_a_put_whose_only_connection_broke_may_have_happened() -> None:
    play = AttachedPlay(held=False, up=(1,), nodes=(1,))
    claim = play.sends(attach_answer(play.asked[1], 1))[1]
    assert play.do(attach_answer(claim, 1, 1, OWNER, True)) == [Attached(1)]
    assert set(puts(play)) == {1}
    assert play.do(Disconnected(1)) == []
    assert play.core.outcome(5) is Outcome.MAY_HAVE_HAPPENED
    assert errors(play.do(Close())) == {5: (ClientClosed, Outcome.MAY_HAVE_HAPPENED)}


def test_a_put_that_is_left_to_a_node_that_fences_it_may_have_happened() -> None:
    play = AttachedPlay(up=(1, 2))
    put = puts(play)[1]
    for rank, status in ((1, Status.REFUSED), (2, Status.FENCED)):
        effects = play.do(answered(put, rank, status, epoch=2))
    assert errors(effects) == {5: (DiskFenced, Outcome.MAY_HAVE_HAPPENED)}, "a STORE was sent once no majority was left"


def test_a_put_that_the_only_one_to_get_it_fenced_did_not_happen() -> None:
    play = AttachedPlay(up=(1, 2))
    play.do(Disconnected(2))
    _, store = play.sends(Start(5, 0, 1, DATA))
    effects = play.do(answered(store, 1, Status.FENCED, epoch=2))
    assert errors(effects) == {5: (DiskFenced, Outcome.MAY_HAVE_HAPPENED)}, "the node may have sent it on before"
    play = AttachedPlay()
    [put] = set(puts(play).values())
    for rank in (2, 3):
        play.do(answered(put, rank, Status.STOPPING))
    assert play.core.outcome(5) is Outcome.MAY_HAVE_HAPPENED


def test_a_late_answer_ends_it_as_well() -> None:
    play = AttachedPlay()
    put = puts(play)[1]
    play.do(ok(put, 1))
    play.do(ok(put, 2))
    [told] = play.do(answered(put, 3, Status.FENCED, epoch=2))
    assert isinstance(told, NotAttached) and isinstance(told.error, DiskFenced)


def test_a_node_that_comes_back_with_a_newer_epoch_ends_it() -> None:
    play = AttachedPlay(up=(1, 2))
    _, claim = play.sends(Connected(3))
    [told] = play.do(attach_answer(claim, 3, 2, status=Status.FENCED))
    assert isinstance(told, NotAttached) and isinstance(told.error, DiskFenced)
