"""ContractNodes, and a client that wants to attach where nodes speak only the contract."""

from __future__ import annotations

from dsreg.client.attachment import Claim
from dsreg.client.contract_nodes import SURE_AFTER_S, ContractNodes, describe_contract_nodes
from dsreg.client.core import ClientCore
from dsreg.client.events import Connected, Disconnected, Failed, NotAttached, Received, Send, Start, Tick
from dsreg.client.limits import TICK_S
from dsreg.errors import AttachRefused, Outcome
from dsreg.protocol.messages import Command, CommandKind, Response, Status, owner_of
from dsreg.register.quorum import majority_of

THREE = majority_of((1, 2, 3))
OWNER = owner_of(bytes(range(1, 17)), "a client")


def test_what_leaves_no_majority_is_refused_once_it_is_sure() -> None:
    nodes = ContractNodes()
    nodes.found(2, 10.0)
    assert nodes.refusal(THREE, 1000.0) is None, "two can keep others out"
    nodes.found(3, 20.0)
    nodes.found(3, 20.0 + SURE_AFTER_S)  # found so again
    assert nodes.refusal(THREE, 20.0 + SURE_AFTER_S - 0.1) is None
    refused = nodes.refusal(THREE, 20.0 + SURE_AFTER_S)
    assert refused is not None and refused.outcome is Outcome.DID_NOT_HAPPEN
    assert refused.reason.startswith("nodes 2 and 3 speak only the contract, which leaves no majority of the 3 nodes")
    assert nodes.ranks == [2, 3]


def test_who_answers_a_greeting_is_none_of_them() -> None:
    nodes = ContractNodes()
    nodes.found(2, 0.0)
    nodes.found(3, 0.0)
    nodes.connected(3)
    nodes.connected(1)
    assert nodes.refusal(THREE, 100.0) is None and nodes.ranks == [2]


def test_the_only_node() -> None:
    nodes = ContractNodes()
    nodes.found(1, 0.0)
    refused = nodes.refusal(majority_of((1,)), 100.0)
    assert refused is not None and refused.reason.startswith("node 1 speaks only the contract")


def test_described() -> None:
    assert describe_contract_nodes([4]) == "node 4 speaks only the contract"
    assert describe_contract_nodes([1, 3, 4]) == "nodes 1, 3 and 4 speak only the contract"


def test_the_core_of_a_client_that_attaches_gives_up() -> None:
    core = ClientCore((1, 2, 3), Claim(OWNER))
    core.step(Connected(1), 0.0)
    core.step(Disconnected(2, contract_only=True), 1.0)
    core.step(Disconnected(3), 1.0)
    core.step(Start(7, 0, 1), 1.0)
    assert not any(isinstance(effect, NotAttached) for effect in core.step(Tick(), 30.0)), "node 3 may come back"
    core.step(Disconnected(3, contract_only=True), 31.0)
    effects = core.step(Tick(), 31.0 + SURE_AFTER_S)
    [lost] = [effect for effect in effects if isinstance(effect, NotAttached)]
    assert isinstance(lost.error, AttachRefused)
    [failed] = [effect for effect in effects if isinstance(effect, Failed)]
    assert failed.operation == 7 and failed.error.outcome is Outcome.DID_NOT_HAPPEN
    assert core.step(Tick(), 100.0) == []


def test_a_core_without_an_attachment_goes_on() -> None:
    core = ClientCore((1, 2, 3))
    core.step(Connected(1), 0.0)
    for rank in (2, 3):
        core.step(Disconnected(rank, contract_only=True), 1.0)
    assert core.step(Start(7, 0, 1), 10.0) != []
    assert not any(isinstance(effect, Failed) for effect in core.step(Tick(), 20.0))


def test_nodes_that_have_a_contract_peer_linked_are_believed_within_ten_seconds() -> None:
    core = ClientCore((1, 2, 3), Claim(OWNER))
    now_s = 0.0
    todo = [*core.step(Connected(1), now_s), *core.step(Connected(2), now_s)]
    while now_s < 10.0:
        lost = [effect for effect in todo if isinstance(effect, NotAttached)]
        if lost:
            assert isinstance(lost[0].error, AttachRefused)
            return
        answers = [(effect.rank, answer(effect.message)) for effect in todo if isinstance(effect, Send)]
        todo = [effect for rank, response in answers for effect in core.step(Received(rank, [response]), now_s)]
        if not answers:
            now_s += TICK_S
            todo = core.step(Tick(), now_s)
    raise AssertionError("not refused within 10 s")


def answer(command: object) -> Response:
    """Nobody has the disk, and nobody may."""
    assert isinstance(command, Command) and command.kind is CommandKind.ATTACH
    if command.epoch:
        return Response(Status.UNSUPPORTED, CommandKind.ATTACH, command.request, extended=True)
    return Response(Status.OK, CommandKind.ATTACH, command.request, owner=bytes(64), extended=True, mixed=True)
