"""The last ten minutes of a node as lines, in SVG: nothing is loaded from elsewhere, and no script draws them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dsreg.health.traffic import Counted, Rates, rates
from dsreg.page.markup import Html, el, joined
from dsreg.units import count_text, latency_text, rate_text

# Seconds that a plot shows, up to now.
SPAN_S = 600
# The drawing, in pixels of a screen on which it is as wide as its figure; the margins have the numbers.
_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 360, 130, 62, 18, 8
_RIGHT = _WIDTH - 6

# The end of an interval, in seconds before now, and what was then.
Moment = tuple[float, Rates]


@dataclass(frozen=True, slots=True)
class Line:
    name: str
    value: Callable[[Rates], float | None]


@dataclass(frozen=True, slots=True)
class Plot:
    """`text`: a value for people. `binary`: steps of its axis are powers of two, not of ten."""

    title: str
    lines: tuple[Line, Line]
    text: Callable[[float], str]
    is_binary: bool = False


PLOTS = (
    Plot("Requests per second", (Line("reads", lambda of: of.reads), Line("writes", lambda of: of.writes)), count_text),
    Plot("Data", (Line("read", lambda of: of.read_bytes), Line("written", lambda of: of.written_bytes)), rate_text,
         is_binary=True),
    Plot("Time to the answer", (Line("p99", lambda of: of.p99_s), Line("p50", lambda of: of.p50_s)), latency_text),
)


def plots(history: Sequence[Counted], rank: int) -> Html:
    seen = moments(history)
    if not seen:
        body = el("p", "Nothing to show yet: the node was started a few seconds ago.")
    else:
        body = el("div", *(figure(plot, seen) for plot in PLOTS), class_="plots")
    return joined(el("h2", f"Node {rank}: requests of clients in the last ten minutes"), body)


def moments(history: Sequence[Counted]) -> list[Moment]:
    """Of each interval that can be told."""
    if not history:
        return []
    now_ms = history[-1].at_ms
    found = [((now_ms - after.at_ms) / 1000, rates(before, after)) for before, after in itertools.pairwise(history)]
    return [(ago_s, each) for ago_s, each in found if each is not None and ago_s <= SPAN_S]


def figure(plot: Plot, seen: Sequence[Moment]) -> Html:
    drawn = [[(ago_s, line.value(each)) for ago_s, each in seen] for line in plot.lines]
    most = max((value for points in drawn for _, value in points if value is not None), default=0.0)
    top = ceiling(most, is_binary=plot.is_binary)
    said = [f"{line.name} {_last(points, plot)}" for line, points in zip(plot.lines, drawn, strict=True)]
    legend = [el("span", text, class_=f"key line{index}") for index, text in enumerate(said)]
    paths = [_path(points, top, index) for index, points in enumerate(drawn)]
    return el(
        "figure", el("figcaption", el("strong", plot.title), *legend),
        el("svg", _axes(plot, top), *paths, viewBox=f"0 0 {_WIDTH} {_HEIGHT}", role="img",
           aria_label=f"{plot.title} in the last ten minutes; now: {', '.join(said)}; most: {plot.text(most)}"),
    )


def ceiling(most: float, *, is_binary: bool) -> float:
    """The top of an axis: a round number that is not below any value; above 0."""
    if most <= 0:
        return 1.0 if not is_binary else 1024.0
    if is_binary:
        return float(2 ** math.ceil(math.log2(max(most, 1024.0))))
    step = 10.0 ** math.floor(math.log10(most))
    return next(step * times for times in (1, 2, 5, 10) if step * times >= most * (1 - 1e-9))


def _last(points: Sequence[tuple[float, float | None]], plot: Plot) -> str:
    value = points[-1][1]
    return "-" if value is None else plot.text(value)


def _x(ago_s: float) -> float:
    return round(_RIGHT - (_RIGHT - _LEFT) * ago_s / SPAN_S, 1)


def _y(share: float) -> float:
    return round(_HEIGHT - _BOTTOM - (_HEIGHT - _BOTTOM - _TOP) * share, 1)


def _axes(plot: Plot, top: float) -> Html:
    parts = []
    for share in (0.0, 0.5, 1.0):
        y = _y(share)
        parts.append(el("line", x1=_LEFT, x2=_RIGHT, y1=y, y2=y, class_="grid"))
        parts.append(el("text", plot.text(top * share) if share else "0", x=_LEFT - 6, y=y + 4, class_="end"))
    parts.append(el("text", "10 min ago", x=_LEFT, y=_HEIGHT - 3))
    parts.append(el("text", "now", x=_RIGHT, y=_HEIGHT - 3, class_="end"))
    return joined(*parts)


def _path(points: Sequence[tuple[float, float | None]], top: float, index: int) -> Html:
    """A line with gaps where there is no value. A single value is a line as long as its interval."""
    runs = [[*run] for has_value, run in itertools.groupby(points, lambda point: point[1] is not None) if has_value]
    drawn = []
    for run in runs:
        corners = [(_x(ago_s), _y((value or 0.0) / top)) for ago_s, value in run]
        if len(corners) == 1:
            corners.insert(0, (corners[0][0] - 3, corners[0][1]))
        text = " ".join(f"{x},{y}" for x, y in corners)
        drawn.append(el("polyline", points=text, class_=f"line{index}"))
    return joined(*drawn)
