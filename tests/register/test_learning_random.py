"""What a node learns whatever happens meanwhile: random plays."""

from __future__ import annotations

import random

import pytest

from dsreg.constants import ZERO_TAG
from dsreg.protocol.tags import iter_tags
from dsreg.register.effects import Adopt
from dsreg.register.heal_work import ANSWER_S
from dsreg.register.learner import RETRY_S
from tests.protocol.values import data, tags
from tests.register.heal_play import LAST, SECTORS
from tests.register.learning_play import Learning


@pytest.mark.parametrize("seed", range(150))
def test_whatever_happens_nothing_is_known_below_what_both_have(seed: int) -> None:
    rng = random.Random(seed)
    play = Learning()
    names = [tags((ts, rng.randint(1, 3))) for ts in range(1, 8)]
    values = {name: data(number) for number, name in enumerate(names)}
    places = [*range(4), 200, 255, 256, 300, LAST, SECTORS - 1]
    for _ in range(30):
        name = rng.choice(names)
        play.have(rng.choice(places), name, values[name], rng.randint(1, 3))
    highest = {place: max(play.others[rank].storage.tags(place, 1) for rank in (2, 3)) for place in places}
    adopts: list[Adopt] = []
    for _ in range(400):
        what = rng.random()
        if what < 0.5 and play.asked:
            play.asked.insert(0, play.asked.pop(rng.randrange(len(play.asked))))
            adopts += [effect for effect in play.answer() if isinstance(effect, Adopt)]
        elif what < 0.7 and adopts:
            play.store(adopts.pop(rng.randrange(len(adopts))), ok=rng.random() < 0.9)
        elif what < 0.75:
            play.link(rng.choice((2, 3)))
        elif what < 0.78:
            play.take(play.heal.link_down(rng.choice((2, 3)), play.now))
        elif what < 0.81 and play.asked:
            play.asked.pop(rng.randrange(len(play.asked)))
        elif what < 0.85:
            play.tick(rng.choice((0.1, RETRY_S, ANSWER_S)))
        elif what < 0.87:
            rank = rng.choice((2, 3))
            play.teach.symmetric_difference_update({rank})
            play.take(play.heal.link_down(rank, play.now))
        for place in places:
            if not play.storage.unknown(place, 1):
                assert play.tag(place) >= highest[place], (seed, place)
    play.teach.update((2, 3))
    for adopt in adopts:
        play.store(adopt)
    play.link(2, 3)
    play.all(60.0)
    assert play.left == 0 and play.in_sync(2, 3), seed
    for place in places:
        tag_, value, damaged = play.storage.load(place, 1)
        assert not damaged and tag_ >= highest[place]
        assert tag_ == ZERO_TAG or value == values[next(iter(iter_tags(tag_)))]
