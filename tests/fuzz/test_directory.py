"""A damaged directory: it opens with the damage confined and known, or it is refused; nothing else."""

from __future__ import annotations

import random
import shutil
import time
from collections import Counter
from pathlib import Path

import pytest

from dsreg.storage.layout import IDENTITY, JOURNALS, SECTORS, STATE, TAGS
from tests.fuzz.damage import DAMAGES, FILES, Victim

ROUNDS = 6
# Far above what any of them takes; a hang is one that takes longer.
OPEN_S = 20.0


@pytest.fixture(scope="module")
def victims(tmp_path_factory: pytest.TempPathFactory) -> list[Victim]:
    """Killed; ended in order; and another node of the same cluster, killed."""
    root = tmp_path_factory.mktemp("victims")
    return [
        Victim.make(root / "killed", 1, random.Random(1), in_order=False),
        Victim.make(root / "ended", 1, random.Random(2), in_order=True),
        Victim.make(root / "other", 2, random.Random(3), in_order=False, starts=1),
    ]


def opened(victim: Victim, lost_from: int | None = None) -> str:
    begun = time.monotonic()
    outcome = victim.check(lost_from)
    assert time.monotonic() - begun < OPEN_S
    return outcome


def test_without_damage(victims: list[Victim], tmp_path: Path) -> None:
    for number, victim in enumerate(victims):
        assert opened(victim.copy(tmp_path / str(number))) == "whole"


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", FILES)
def test_one_damaged_file(victims: list[Victim], name: str, damage: str, tmp_path: Path, rng: random.Random) -> None:
    """Twice opened: what was found the first time must not be forgotten."""
    outcomes: Counter[str] = Counter()
    for number in range(ROUNDS if damage in list(DAMAGES)[:5] else 1):
        for whose, original in enumerate(victims[:2]):
            victim = original.copy(tmp_path / f"{number}-{whose}")
            lost = DAMAGES[damage](victim, rng, name)
            for _ in range(2):
                outcomes[opened(victim, lost)] += 1
            shutil.rmtree(victim.path)
    print(dict(outcomes))


def test_several_damaged_files(victims: list[Victim], tmp_path: Path, rng: random.Random) -> None:
    names = list(DAMAGES)
    for number in range(30):
        victim = rng.choice(victims[:2]).copy(tmp_path / str(number))
        lost = [DAMAGES[rng.choice(names)](victim, rng, name) for name in rng.sample(FILES, 2)]
        opened(victim, next((at for at in lost if at is not None), None))
        shutil.rmtree(victim.path)


@pytest.mark.parametrize(
    "names", [(name,) for name in FILES] + [(TAGS, SECTORS), (TAGS, SECTORS, STATE), JOURNALS, (STATE, *JOURNALS)],
    ids=lambda names: "+".join(names),
)
def test_files_of_another_node(victims: list[Victim], names: tuple[str, ...], tmp_path: Path) -> None:
    """Tags of another node are as good as none: this one may have acknowledged more, and named other tags."""
    for number, original in enumerate(victims[:2]):
        victim = original.copy(tmp_path / str(number))
        for name in names:
            shutil.copyfile(victims[2].path / name, victim.path / name)
        outcome = opened(victim)
        assert outcome != "whole" or not {TAGS, STATE, IDENTITY, victim.live}.intersection(names)


def test_identity_that_overwhelms_its_parser(victims: list[Victim], tmp_path: Path) -> None:
    victim = victims[0].copy(tmp_path / "deep")
    (victim.path / IDENTITY).write_bytes(b"a = " + b"[" * 60_000)
    assert opened(victim) == "DamagedStorage"
