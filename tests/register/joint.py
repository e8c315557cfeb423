"""A joint quorum, which the product does not have: a majority of each of two sets, as while members change."""

from __future__ import annotations

from dsreg.register.quorum import Quorum


class Joint:
    """See dsreg.register.quorum.Quorum. All that another kind of quorum takes."""

    def __init__(self, old: Quorum, new: Quorum) -> None:
        self._both = old, new
        self.members = old.members | new.members
        self.size = self.members.bit_count()
        # The members that are in both sets count for both.
        shared = (old.members & new.members).bit_count()
        self.needed = old.needed + new.needed - min(old.needed, new.needed, shared)
        self.needed_to_block = min(old.needed_to_block, new.needed_to_block)

    def decided(self, answers: int) -> bool:
        return all(quorum.decided(answers) for quorum in self._both)

    def blocks(self, refusals: int) -> bool:
        return any(quorum.blocks(refusals) for quorum in self._both)

    def all_answered(self, answers: int) -> bool:
        return all(quorum.all_answered(answers) for quorum in self._both)

    def spare(self, answers: int) -> int:
        return min(quorum.spare(answers) for quorum in self._both)
