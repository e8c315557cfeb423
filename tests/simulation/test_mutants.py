"""The seeded bugs: all of them can be put in, and the simulator catches those that are quick to show.

All are hunted by `python -m tests.simulation.mutants`.
"""

from __future__ import annotations

import pytest

from tests.simulation.mutant_table import Mutant
from tests.simulation.mutants import MUTANTS, MutantError, by_name, hunt, mutated, source_of

pytestmark = pytest.mark.pure

# One of each kind that shows within some seeds, and how many those are at most.
QUICK = {
    "majority_off_by_one": 50,
    "one_round_read_of_any_own": 50,
    "queue_overtakes": 50,
    "own_copy_counts_before_persist": 100,
    "frame_hmac_not_checked": 100,
}

# Those of which a mistake of this kind has survived all tests once.
QUICK_BY_TESTS = (
    "acknowledged_before_the_commit_has_run", "one_life_for_all_incarnations", "checkpoint_does_not_wake_the_commit",
    "loads_that_wait_for_a_commit_are_forgotten", "broken_connection_takes_a_put_back",
    "given_up_commands_stay_counted", "slot_is_leaked_on_cancel", "clock_that_stops_while_the_machine_sleeps",
    "both_copies_under_one_sync",
)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_applies(mutant: Mutant) -> None:
    source = mutated(mutant, source_of(mutant).read_text())
    compile(source, mutant.name, "exec")


def test_there_are_enough_and_none_twice() -> None:
    assert len(MUTANTS) >= 25
    assert len({mutant.name for mutant in MUTANTS}) == len({mutant[1:4] for mutant in MUTANTS}) == len(MUTANTS)


def test_one_that_does_not_apply_is_an_error() -> None:
    mutant = Mutant("stale", "dsreg.register.quorum", "this is not there", "")
    with pytest.raises(MutantError, match="0 places"):
        hunt(mutant, 1, 1)
    with pytest.raises(MutantError, match="no mutant"):
        by_name("stale")


@pytest.mark.slow
@pytest.mark.parametrize("name", QUICK)
def test_is_caught(name: str) -> None:
    seed, how = hunt(by_name(name), QUICK[name], 2)
    assert seed, f"{name} survived {QUICK[name]} seeds"
    print(f"{name}: seed {seed}: {how}")


@pytest.mark.slow
@pytest.mark.parametrize("name", QUICK_BY_TESTS)
def test_is_caught_by_its_test(name: str) -> None:
    mutant = by_name(name)
    assert hunt(mutant, 1, 1)[0] == -1, f"{mutant.test} does not catch {mutant.name}"
