"""The model of rejoining decides nothing that Claim does not: each number that is claimed, and each start with what is
adopted, in every interleaving, is what Claim says of the same answers."""

from __future__ import annotations

import pytest

from dsreg.constants import NO_OWNER, NO_OWNER_ANY_MORE
from dsreg.protocol.life import STORE_SIZE, Stage
from dsreg.protocol.life import Life as RealLife
from dsreg.protocol.messages import Accepted
from dsreg.register.claim import Claim, Promise
from dsreg.register.lives import Lives
from dsreg.register.quorum import majority_of
from tests.register import lives_cluster
from tests.register.lives_cluster import FIRST, NO_LIFE, NOBODY, Cluster, Life, Rest, Row
from tests.register.lives_rule import Model, search
from tests.register.test_lives_rule import SAFE


def real(life: Life) -> RealLife:
    number, directory = life
    return RealLife(number, (directory % (1 << 64)).to_bytes(STORE_SIZE))


def promised(promise: tuple[int, int]) -> Promise:
    epoch, owner = promise
    names = {NOBODY: NO_OWNER, lives_cluster.NO_OWNER_ANY_MORE: NO_OWNER_ANY_MORE}
    return epoch, names.get(owner, bytes([owner % 256]) * 64)


class Driven(Cluster):
    """`asked`: how often Claim was; by kind of decision."""

    numbers = starts = waits = 0

    def _known(self, lives: tuple[Life, ...]) -> dict[int, RealLife]:
        """By rank, which is one more than the index of a node. An empty directory knows nobody."""
        all_lives = (*lives, *(FIRST,) * (self.nodes - self.wipeable))
        return {index + 1: real(life) for index, life in enumerate(all_lives) if life != NO_LIFE}

    def _claim(self, rows: tuple[Row, ...], rest: Rest, i: int):  # type: ignore[no-untyped-def]
        own = real((max(1, rows[i].lives[i][0]), self.scenario.wipes[i] - rest.wipes[i]))
        for step, state in super()._claim(rows, rest, i):
            claimed = real(state[0][i].life)
            numbers = set()
            others = [j for j, row in enumerate(rows) if j != i and self._may_accept(row)]
            for one in others:
                for more in ({one}, {one, *others[: self.needed - 1]}, {one, *others[-self.needed + 1:]}):
                    lives = Lives(i + 1, {})
                    for j in more:
                        known = self._known(rows[j].lives)
                        lives.take(j + 1, Stage.STARTED, real(rows[j].life), known)
                    claim = Claim(i + 1, majority_of(range(1, self.nodes + 1)), own, lives)
                    assert (len(more) >= self.needed) or not claim.due()
                    numbers.add(claim.due())
            assert claimed.number in numbers
            Driven.numbers += 1
            yield step, state

    def _go_on(self, rows: tuple[Row, ...], i: int) -> tuple[Row, ...]:
        after = super()._go_on(rows, i)
        claimant = rows[i]
        if claimant.started:
            return after
        lives = Lives(i + 1, self._known(claimant.lives))
        claim = Claim(
            i + 1, majority_of(range(1, self.nodes + 1)), real(claimant.life), lives, claimed=True,
            promise=promised(claimant.promise),
        )
        for j, row in enumerate(rows):
            for life, _, promise, _ in row.said[self.parties + i]:
                claim.accepted(Accepted(j + 1, i + 1, claim.own, real(life), *promised(promise), 1))
        adopted = claim.adopted()
        assert (adopted is not None) is after[i].started
        if adopted is None:
            Driven.waits += 1
        else:
            Driven.starts += 1
            assert (adopted.epoch, adopted.owner) == promised(after[i].promise)
        return after


@pytest.mark.parametrize("name", SAFE)
def test_the_model_is_driven_by_claim(name: str) -> None:
    scenario = SAFE[name]
    model = Model(scenario)
    model.cluster = Driven(scenario, frozenset())
    Driven.numbers = Driven.starts = Driven.waits = 0
    result = search(model, limit=12_000)
    assert result.path == []
    assert Driven.numbers and Driven.starts and (Driven.waits or model.cluster.needed == 1), result.states
