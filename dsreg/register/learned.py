"""What a member of the later of two joint sets has learned of the earlier one before it votes for the later one alone:
docs/configurations.md, rules 6 and 7. Pure.

Data: dsreg.register.comparing. Promises, epoch and owner, nodes tell with the configuration that they know.
"""

from __future__ import annotations

from collections.abc import Collection

from dsreg.protocol.choosing import ConfigurationReport
from dsreg.protocol.configuration import Configuration
from dsreg.protocol.life import Life, Stage
from dsreg.register.claim import Promise
from dsreg.register.lives import Lives
from dsreg.register.quorum import Majority, bit, mask


class Promises:
    """As other nodes have told theirs last, over the links to them. `lives`: of those nodes."""

    def __init__(self, lives: Lives) -> None:
        self._lives = lives
        self._told: dict[int, tuple[Life, ConfigurationReport]] = {}  # by rank

    def told(self, report: ConfigurationReport) -> None:
        """A node that has yet to start may not have taken over what its rank has promised before."""
        teller = self._lives.told.get(report.rank)
        if teller is not None and teller.stage is Stage.STARTED:
            self._told[report.rank] = teller.own, report
        else:
            self._told.pop(report.rank, None)

    def under(self, configuration: Configuration) -> dict[int, Promise]:
        """By rank: those that were told by who knew this one, and has lost nothing since."""
        return {
            rank: (report.epoch, report.owner) for rank, (life, report) in self._told.items()
            if report.configuration == configuration and life == self._lives.known.get(rank)
            and self._lives.counts(rank)
        }


def has_taken_over(configuration: Configuration, rank: int, data: int, promises: Collection[int]) -> bool:
    """Whether enough of the earlier set have told the node `rank` all that they have, and what they have promised.

    `data`: the mask of those that have told the former, this node among them if its own copy is whole. `promises`: the
    other nodes that have told the latter. Enough is a majority, which of an even number is more than f + 1: one of two
    that tells, and loses its directory then, rejoins with the other one, which may not know the joint configuration.
    """
    return Majority(configuration.ranks).decided(data & (mask(promises) | bit(rank)))
