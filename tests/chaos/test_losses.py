"""A directed round of losses: an older directory is put back under a database. `make soak` has all kinds."""

from __future__ import annotations

from functools import partial

import pytest

from tests.chaos.catalogue import why_no_disk
from tests.chaos.database_rounds import run_database
from tests.chaos.databases import Sqlite
from tests.chaos.loss_rounds import PutBackRound
from tests.chaos.rounds import run_round


@pytest.mark.skipif(why_no_disk() is not None, reason=str(why_no_disk()))
def test_an_older_directory_is_put_back_and_no_commit_is_lost(seed: int) -> None:
    tally = run_round("put-back", partial(run_database, PutBackRound, Sqlite, "none"), seed, 0.0)
    print(tally)
    assert not tally.failed, f"{tally.failures[0].what}\nseed {seed}\nlogs in {tally.failures[0].log}"
    assert tally.counts["losses"] == 1 and tally.counts["commits"] > 0
    assert tally.faults["sqlite directory of 10 s ago"] == 1
