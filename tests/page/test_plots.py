"""Ten minutes as lines."""

from __future__ import annotations

import re

import pytest

from dsreg.health.traffic import Counted, Tally
from dsreg.page.plots import PLOTS, ceiling, figure, moments, plots
from tests.page.scenes import buckets, history


@pytest.mark.parametrize(("most", "top"), [
    (0, 1), (0.3, 0.5), (1, 1), (1.1, 2), (4200, 5000), (5001, 10000), (99, 100)])
def test_the_top_of_an_axis_is_round(most: float, top: float) -> None:
    assert ceiling(most, is_binary=False) == pytest.approx(top)


@pytest.mark.parametrize(("most", "top"), [(0, 1024), (3, 1024), (1025, 2048), (9 << 20, 16 << 20)])
def test_bytes_have_steps_of_two(most: float, top: float) -> None:
    assert ceiling(most, is_binary=True) == top


def test_the_whole_of_ten_minutes_is_there() -> None:
    seen = moments(history())
    assert len(seen) == 120 and seen[-1][0] == 0 and seen[0][0] == 595
    assert plots(history(), 1).count("<svg") == 3


def lines(drawn: str, index: int) -> list[list[tuple[float, float]]]:
    found = re.findall(rf'<polyline points="([^"]*)" class="line{index}"', drawn)
    return [[(float(x), float(y)) for x, y in (point.split(",") for point in points.split())] for points in found]


def test_lines_stay_inside_and_rise_with_the_values() -> None:
    for plot in PLOTS:
        drawn = figure(plot, moments(history()))
        for index in (0, 1):
            assert lines(drawn, index)
            assert all(62 <= x <= 354 and 8 <= y <= 112 for line in lines(drawn, index) for x, y in line)
    reads, writes = (lines(figure(PLOTS[0], moments(history())), index)[0] for index in (0, 1))
    assert reads[-1][1] > writes[-1][1], "y is counted from the top"


def test_where_nothing_was_asked_the_latency_has_a_gap() -> None:
    drawn = figure(PLOTS[2], moments(history()))
    assert len(lines(drawn, 0)) == len(lines(drawn, 1)) == 2
    quiet = figure(PLOTS[2], moments(history(busy=False)))
    assert not lines(quiet, 0) and "p99 -" in quiet


def test_one_interval_is_a_short_line() -> None:
    both = [Counted(0, 1, Tally(), Tally()), Counted(5000, 1, Tally(50, 0, tuple(buckets(50, 3))), Tally())]
    (line,) = lines(figure(PLOTS[2], moments(both)), 0)
    assert len(line) == 2 and line[0] != line[1]


@pytest.mark.parametrize("samples", [[], history(1)])
def test_too_little_to_draw(samples: list[Counted]) -> None:
    assert moments(samples) == [] and "Nothing to show yet" in plots(samples, 1)


def test_a_pause_of_the_machine_is_no_peak() -> None:
    """The process stood still for a minute: what came then is of that minute."""
    one, other = Counted(0, 1, Tally(), Tally()), Counted(60_000, 1, Tally(), Tally(600, 0, tuple(buckets(600, 3))))
    ((_, rates),) = moments([one, other])
    assert rates.writes == 10
