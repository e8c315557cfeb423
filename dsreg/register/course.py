"""Course: the configurations on the way to what somebody wants, one after the other, and whether they still lead there.
docs/configurations.md.

Several may change members at once. Each number has one configuration all the same (Proposal), but it may be that of
another one, and what was to follow mine need not be wanted any more then: with 1 2 3 to 1 2 in mind, on top of 4 and 5
that somebody has added, they would be removed.
"""

from __future__ import annotations

from dsreg.protocol.configuration import Configuration
from dsreg.register.configuration import Goal, Sets, next_for, objection
from dsreg.register.quorum import ranks_in


def goal_of(current: Configuration, add: int, remove: int) -> Goal | str:
    """What it means to add and remove these nodes, masks, while `current` is in force; or why that is not possible."""
    wanted = (current.ranks | add) & ~remove
    if current.joining and wanted != current.joining:
        return _is_changing(current)
    if not wanted:
        return "no node would be left"
    if again := add & current.used & ~current.members:
        return f"a rank is never used again, and {named(again)} was: take it out of the file"
    return Goal(wanted, current.sectors)


def size_goal(current: Configuration, sectors: int) -> Goal | str:
    """A disk of so many sectors, with the members of `current`; or why that is not possible."""
    if current.joining:
        return _is_changing(current)
    goal = Goal(current.ranks, sectors)
    following = next_for(current, goal)
    fault = "" if following is None else objection(current, following)
    return fault or goal


def _is_changing(current: Configuration) -> str:
    return (f"the nodes are being changed from {named(current.ranks)} to {named(current.joining)}: finish that, by "
            "the command that began it, or take it back with `dsreg members cancel`")


class Course:
    """From `current` to `goal`."""

    def __init__(self, current: Configuration, goal: Goal) -> None:
        self.current = current
        self.goal = goal

    @property
    def following(self) -> Configuration | None:
        """What is to be proposed; None at the end."""
        return next_for(self.current, self.goal)

    def chosen(self, configuration: Configuration) -> bool:
        """This one was, whoever has proposed it; False if it does not lie on the way."""
        step: Configuration | None = self.current
        while step is not None and step.number < configuration.number:
            step = next_for(step, self.goal)
        if step != configuration:
            return False
        self.current = configuration
        return True


def named(ranks: int) -> str:
    """For people."""
    return " ".join(map(str, ranks_in(ranks)))


def described(sets: Sets, together: str = "together with") -> str:
    """For people: which nodes there are; `together`: between the two sets while these are joint."""
    return f"nodes {named(sets.ranks)}" + (f" {together} {named(sets.joining)}" if sets.joining else "")
