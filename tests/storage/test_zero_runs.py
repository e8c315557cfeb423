"""Runs of zeros by themselves: dsreg.storage.zero_runs."""

from __future__ import annotations

import random

from dsreg.constants import ZERO_TAG
from dsreg.storage.zero_runs import ZeroRuns
from tests.storage.support import tag


def test_runs_against_a_model(rng: random.Random) -> None:
    for _ in range(40):
        runs, model = ZeroRuns(), [ZERO_TAG] * 24
        for ts in range(1, 25):
            start = rng.randrange(24)
            stop = rng.randint(start + 1, 24)
            one = tag(rng.choice((ts, ts, ts - 1, max(1, ts - 8), 5)) or 1)
            runs.add(start, stop, one)
            model[start:stop] = [max(one, each) for each in model[start:stop]]
            assert [runs.tag_of(chunk) for chunk in range(26)] == [*model, ZERO_TAG, ZERO_TAG]
            assert len(runs) == sum(
                each != ZERO_TAG and (not chunk or model[chunk - 1] != each) for chunk, each in enumerate(model)
            ), "disjoint, and as few as can be"
            start, stop = sorted(rng.sample(range(25), 2))
            found = [ZERO_TAG] * (stop - start)
            for run in runs.within(start, stop):
                found[run.start - start:run.stop - start] = [run.tag] * (run.stop - run.start)
            assert found == model[start:stop]
            assert runs.covers(start, stop, one) == all(each >= one for each in model[start:stop])
            following = [chunk for chunk in range(start, 24) if model[chunk] != ZERO_TAG]
            assert runs.following(start) == (following[0] if following else None)
