"""The search of a small model: every state that can be reached, the nearest ones first."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable
from typing import Any, TypeVar

S = TypeVar("S", bound=Hashable)


def shortest(
    start: S, steps: Callable[[S], Iterable[tuple[str, Any]]], is_wrong: Callable[[Any], bool], limit: int
) -> tuple[list[str], Any] | None:
    """The shortest way from `start` to something wrong, by the names of its steps, and what is wrong; None if there is
    none in all that can happen. `steps(state)`: what may happen next, and the state, or what is wrong, after it.
    More than `limit` states are too many to search."""
    came: dict[S, tuple[S, str] | None] = {start: None}
    queue = deque([start])
    while queue:
        state = queue.popleft()
        for what, after in steps(state):
            if is_wrong(after):
                path = [what]
                while (before := came[state]) is not None:
                    state, step = before
                    path.append(step)
                return path[::-1], after
            if after not in came:
                came[after] = (state, what)
                queue.append(after)
        assert len(came) < limit, "the model has become too large to search"
    return None
