"""The steps by which the keys of a cluster are changed: docs/keys.md."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from dsreg.config.durable import put_file
from dsreg.config.keys import KeyFile, Step
from dsreg.constants import CLIENT_KEY_SIZE, SYSTEM_KEY_SIZE

CLIENT, SYSTEM = "client", "system"


class Files(NamedTuple):
    """What the two key files hold; `system` is None where that of the nodes is not at hand."""

    client: KeyFile
    system: KeyFile | None

    @property
    def is_changing(self) -> bool:
        return self._first_step is not Step.ONE

    @property
    def drops_next(self) -> bool:
        """What is good under an old key is so no longer after the next step."""
        return self._first_step is Step.PREVIOUS

    @property
    def _first_step(self) -> Step:
        """Of the keys that are being changed, how far those have come that are behind; ONE: none is."""
        steps = {file.step for file in self if file is not None}
        return next((step for step in (Step.NEXT, Step.PREVIOUS) if step in steps), Step.ONE)


def next_files(files: Files, chosen: Collection[str], cluster: bytes, fresh: Callable[[int], bytes]) -> Files:
    """The step after `files`, which all nodes have taken. `chosen`: of CLIENT and SYSTEM, which keys to change.
    `cluster`: the id of the cluster. `fresh`: that many random bytes.

    The file of the clients is written first. A step that ended between the two is ended first: no file goes further
    before both are at the same step.
    """
    client, system = files
    step = files._first_step
    if step is Step.ONE:
        if CLIENT in chosen:
            client = client.begun(fresh(CLIENT_KEY_SIZE))
        if SYSTEM in chosen and system is not None:
            system = system.begun(fresh(SYSTEM_KEY_SIZE), cluster)
    elif SYSTEM in chosen and system is not None and client.step is Step.NEXT and system.step is Step.ONE:
        system = system.begun(fresh(SYSTEM_KEY_SIZE), cluster)
    else:
        if client.step is step:
            client = client.advanced()
        if system is not None and system.step is step:
            system = system.advanced()
    return Files(client, system)


def write_files(before: Files, after: Files, paths: Sequence[Path]) -> None:
    """Each whole or not at all, that of the clients first. Raises OSError."""
    for old, new, path in zip(before, after, paths, strict=False):
        if new is not None and new != old:
            put_file(path, new.content, path, path.with_name(f"{path.name}.part"))
