"""Every order in which a change of the keys can happen, in the small: docs/keys.md.

Three nodes and two clients, each of which reads the files that the command has written whenever it likes; the command
is killed anywhere, also between its two files, and given again. The steps are those of dsreg.config.rotation. `without`
leaves a rule out: then somebody must be shut out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pytest

from dsreg.config.keys import KeyFile, Step
from dsreg.config.rotation import CLIENT, SYSTEM, Files, next_files
from tests.register.searching import shortest

OLD = Files(KeyFile(bytes(32)), KeyFile(bytes(64)))
CLUSTER = b"i" * 16
LIMIT = 100_000


def fresh(size: int) -> bytes:
    return b"n" * size


class State(NamedTuple):
    """`files`: what the command has written. `nodes`, `clients`: what each has read. `wanted`: what the command is
    about to write; None: it waits, or was killed."""

    files: Files
    nodes: tuple[Files, ...]
    clients: tuple[KeyFile, ...]
    wanted: Files | None
    has_begun: bool


def how_far(file: KeyFile | None) -> int:
    """Steps that it has taken."""
    assert file is not None
    return {Step.ONE: 3 * (file.key[:1] == b"n"), Step.NEXT: 1, Step.PREVIOUS: 2}[file.step]


class Model:
    def __init__(self, chosen: tuple[str, ...], without: str = "", nodes: int = 3, clients: int = 2) -> None:
        self.chosen = chosen
        self.without = without
        self.start = State(OLD, (OLD,) * nodes, (OLD.client,) * clients, None, False)

    def steps(self, state: State) -> Iterator[tuple[str, State | str]]:
        for what, after in self._moves(state):
            yield what, self.fault(after) or after

    def _moves(self, state: State) -> Iterator[tuple[str, State]]:
        for i, held in enumerate(state.nodes):
            # The two files are two files: what is read may be of two moments.
            for part in ("client", "system"):
                read = held._replace(**{part: getattr(state.files, part)})
                if read != held:
                    nodes = (*state.nodes[:i], read, *state.nodes[i + 1:])
                    yield f"node {i} reads the {part} key", state._replace(nodes=nodes)
        for i, client in enumerate(state.clients):
            if client != state.files.client:
                clients = (*state.clients[:i], state.files.client, *state.clients[i + 1:])
                yield f"client {i} reads its key", state._replace(clients=clients)
        if state.wanted is not None:
            yield "the command is killed", state._replace(wanted=None)
            for part in ("client", "system"):  # in this order
                if getattr(state.files, part) != getattr(state.wanted, part):
                    files = state.files._replace(**{part: getattr(state.wanted, part)})
                    wanted = None if files == state.wanted else state.wanted
                    yield f"the {part} key is written", state._replace(files=files, wanted=wanted, has_begun=True)
                    break
        elif self._may_go_on(state):
            wanted = next_files(state.files, self.chosen, CLUSTER, fresh)
            if self.without == "both" and not state.files.is_changing:
                wanted = Files(*(file.advanced() if file.step is Step.NEXT else file for file in wanted if file))
            yield "the command goes on", state._replace(wanted=wanted)

    def _may_go_on(self, state: State) -> bool:
        if not state.files.is_changing and state.has_begun:
            return False  # one change is enough
        if self.without != "wait" and any(held != state.files for held in state.nodes):
            return False
        is_late = any(client.key != state.files.client.key for client in state.clients)
        return not (state.files.drops_next and is_late and self.without != "late")

    def fault(self, state: State) -> str:
        """Who is shut out, or what else must not be."""
        if len(self.chosen) == 2 and abs(how_far(state.files.client) - how_far(state.files.system)) > 1:
            return "one file is two steps ahead of the other"
        for i, held in enumerate(state.nodes):
            for j, other in enumerate(state.nodes):
                assert held.system is not None and other.system is not None
                if held.system.key not in (other.system.key, other.system.other):
                    return f"node {i} cannot talk to node {j}"
                if held.system.cluster and held.system.cluster != CLUSTER:
                    return f"node {i} is of another cluster"
            for j, client in enumerate(state.clients):
                if client.key not in (held.client.key, held.client.other):
                    return f"client {j} cannot talk to node {i}"
        return ""


@pytest.mark.parametrize("chosen", [(CLIENT, SYSTEM), (CLIENT,), (SYSTEM,)], ids="+".join)
def test_nobody_is_shut_out_whatever_is_killed_and_whoever_is_late(chosen: tuple[str, ...]) -> None:
    model = Model(chosen, nodes=2 if len(chosen) == 2 else 3)
    assert shortest(model.start, model.steps, lambda after: isinstance(after, str), LIMIT) is None


@pytest.mark.parametrize("chosen", [(CLIENT, SYSTEM), (CLIENT,), (SYSTEM,)], ids="+".join)
def test_from_wherever_it_was_killed_it_comes_to_its_end(chosen: tuple[str, ...]) -> None:
    """From each state that can be reached: read all files, go on, and the old keys are good nowhere."""
    model = Model(chosen, nodes=1, clients=1)
    seen = {model.start}
    pending = [model.start]
    while pending:
        for _, after in model.steps(pending.pop()):
            assert isinstance(after, State)
            if after not in seen:
                seen.add(after)
                pending.append(after)
    kind = chosen[0]
    assert {getattr(state.files, kind).step for state in seen} == {*Step}
    for state in seen:
        end = finished(model, state)
        for kind, file in zip((CLIENT, SYSTEM), end.files, strict=True):
            assert file is not None and file.step is Step.ONE
            assert set(file.key) == ({ord("n")} if kind in chosen else {0})
        assert end.nodes == (end.files,) and end.clients == (end.files.client,)


def finished(model: Model, state: State) -> State:
    """Whatever was under way is killed, then all is as it should be until the command ends."""
    state = state._replace(wanted=None)
    for _ in range(10):
        state = state._replace(nodes=(state.files,), clients=(state.files.client,))
        if not model._may_go_on(state):
            return state
        state = state._replace(files=next_files(state.files, model.chosen, CLUSTER, fresh), has_begun=True)
    raise AssertionError("it does not end")


@pytest.mark.parametrize(
    ("without", "chosen", "fault"),
    [("wait", (SYSTEM,), "talk to node"), ("both", (SYSTEM,), "talk to node"), ("both", (CLIENT,), "client"),
     ("late", (CLIENT,), "client"), ("wait", (CLIENT,), "client")],
)
def test_without_one_rule_somebody_is_shut_out(without: str, chosen: tuple[str, ...], fault: str) -> None:
    model = Model(chosen, without)
    found = shortest(model.start, model.steps, lambda after: isinstance(after, str), LIMIT)
    assert found is not None and fault in found[1]
