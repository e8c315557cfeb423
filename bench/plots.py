"""A run as pictures, SVG: dots on logarithmic axes, where systems differ by powers of ten.

The colours are Okabe and Ito's, which colour-blind readers can tell apart; each system has a marker of its own, too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib import transforms
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from bench.jobs import CPU_JOB, JOBS, Job
from bench.record import Run, Setup
from bench.run import KILLED, QUIET
from bench.summary import Figure, Summary, measured
from bench.systems.ours import NODES
from bench.tables import PLOTS
from bench.tcp import BLOCK_DEPTH, TcpLoad, system_key

# (colour, marker) by system: the same in all pictures and in all runs, whichever systems took part.
STYLES = {
    "ours": ("#0072B2", "o"),
    "ours-nbd": ("#0072B2", "*"),
    "ours-pyfuse3": ("#F0E442", "p"),
    "ours-cache": ("#56B4E9", "D"),
    "plain": ("#000000", "x"),
    "nbdkit": ("#009E73", "^"),
    "gluster-virt": ("#D55E00", "s"),
    "gluster": ("#E69F00", "v"),
    "ceph-librbd": ("#777777", "<"),
    "ceph-fuse": ("#777777", ">"),
    "quorum": ("#009E73", "h"),
}
OTHER_STYLE = ("#CC79A7", "P")
WRITE_COLOUR, READ_COLOUR = "#D55E00", "#0072B2"
GREY = "#777777"
SETTINGS: dict[Any, Any] = {
    "font.size": 10, "legend.framealpha": 0.9, "legend.edgecolor": "white",
    "axes.titlesize": 11, "axes.titlelocation": "left", "axes.spines.top": False,
    "axes.spines.right": False, "axes.edgecolor": GREY, "axes.grid": True, "grid.color": "#dddddd",
    "grid.linewidth": 0.8, "axes.axisbelow": True, "legend.frameon": True, "figure.facecolor": "white",
    "svg.hashsalt": "dsreg",  # the same picture is the same file
}


def draw_all(run: Run, directory: Path, suffix: str = ".svg") -> list[str]:
    """Draw what the run has figures for into `directory`; the names of PLOTS that were drawn."""
    summary, systems = Summary(run), measured(run)
    makers: tuple[Callable[[], Picture | None], ...] = (
        lambda: _jobs(systems, summary, [job for job in JOBS if not job.by_bytes], "per_s",
                      "operations a second, 4 KiB each"),
        lambda: _jobs(systems, summary, [job for job in JOBS if job.by_bytes], "MB_per_s", "MB/s, requests of 1 MiB"),
        lambda: _costs(systems, summary),
        lambda: _tcp(summary),
    )
    drawn = []
    with matplotlib.rc_context(SETTINGS):
        for (name, _), make in zip(PLOTS, makers, strict=True):
            picture = make()
            if picture is not None:
                metadata: dict[str, Any] = {"Date": None} if suffix == ".svg" else {}
                picture.savefig(directory / Path(name).with_suffix(suffix), metadata=metadata, dpi=110)
                drawn.append(name)
    return drawn


def _style(setup: Setup) -> tuple[str, str]:
    return STYLES.get(setup.key, OTHER_STYLE)


def _plain_number(value: float, _position: int | None = None) -> str:
    return f"{value:,.0f}" if value >= 1 else f"{value:g}"


def _short_number(value: float, _position: int | None = None) -> str:
    """Thousands as k: on a logarithmic axis long numbers would meet."""
    return _plain_number(value) if value < 1000 else f"{value / 1000:g}k"


def _log_axis(axis: Any, ticks: Sequence[float] | None = None) -> None:
    """Figures that can be read, not powers of ten: `ticks`, or else 1, 2 and 5 times those."""
    if ticks is None:
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    else:
        axis.set_ticks(ticks)
    axis.set_major_formatter(FuncFormatter(_short_number if ticks is None else _plain_number))
    axis.set_minor_locator(NullLocator())


def _jobs(systems: list[Setup], summary: Summary, jobs: Sequence[Job], name: str, unit: str) -> Picture | None:
    """A row for each job, a dot for each system, a line from the lowest to the highest round."""
    if not systems:
        return None
    picture = Picture(figsize=(9, 1.6 + 0.62 * len(jobs)), layout="constrained")
    axes = picture.subplots()
    step = 0.7 / max(1, len(systems))
    for place, setup in enumerate(systems):
        colour, marker = _style(setup)
        offset = (place - (len(systems) - 1) / 2) * step
        figures = [(row, summary.figure("fio", setup.key, job.key, name)) for row, job in enumerate(jobs)]
        points = [(row + offset, figure) for row, figure in figures if figure is not None]
        _dots(axes, points, colour, marker, setup.label)
    for row in range(1, len(jobs)):
        axes.axhline(row - 0.5, color="#bbbbbb", linewidth=0.8)
    axes.set_yticks(range(len(jobs)), [job.title for job in jobs])
    axes.set_ylim(len(jobs) - 0.5, -0.5)
    axes.grid(False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.set_xscale("log")
    _log_axis(axes.xaxis)
    axes.set_xlabel(f"{unit} (logarithmic; more is better)")
    picture.legend(loc="outside upper left", ncols=3)
    return picture


def _dots(axes: Axes, points: Sequence[tuple[float, Figure]], colour: str, marker: str, label: str) -> None:
    if not points:
        return
    places = [place for place, _ in points]
    axes.hlines(places, [figure.low for _, figure in points], [figure.high for _, figure in points], color=colour,
                linewidth=1.5, alpha=0.6)
    axes.plot([figure.median for _, figure in points], places, linestyle="none", color=colour, marker=marker,
              markersize=7, label=label)


def _costs(systems: list[Setup], summary: Summary) -> Picture | None:
    """Two panels of horizontal bars: CPU per random write, and the longest stall without and with a kill."""
    if not systems:
        return None
    picture = Picture(figsize=(10, 1.7 + 0.55 * len(systems)), layout="constrained")
    left, right = picture.subplots(1, 2)
    labels = [setup.label for setup in systems]
    cpu = [summary.figure("fio", setup.key, CPU_JOB.key, "machine_cpu_us") for setup in systems]
    own = [summary.figure("fio", setup.key, CPU_JOB.key, "cpu_us") for setup in systems]
    _pair(left, labels, (("its processes", own, "#0072B2"), ("whole machine, less fio", cpu, "#bbbbbb")))
    left.set_title("CPU for one random 4 KiB write, depth 16")
    left.set_xlabel("microseconds (less is better)")
    replicated = [setup for setup in systems if summary.figure("stall", setup.key, QUIET, "gap_ms") is not None]
    stalls = [[summary.figure("stall", setup.key, name, "gap_ms") for setup in replicated] for name in (QUIET, KILLED)]
    _pair(right, [setup.label for setup in replicated],
          (("no replica killed", stalls[0], "#bbbbbb"), ("one replica killed", stalls[1], "#D55E00")))
    right.set_title("Longest stall under that load")
    right.set_xlabel("milliseconds (less is better)")
    return picture


def _pair(axes: Axes, labels: list[str], pairs: Sequence[tuple[str, Sequence[Figure | None], str]]) -> None:
    """Two bars for each label, each with its figure at its end. `pairs`: (title, a figure for each label, colour)."""
    height = 0.38
    for side, (title, figures, colour) in enumerate(pairs):
        places = [place + (side - 0.5) * height for place in range(len(labels))]
        bars = axes.barh(places, [figure.median if figure else 0.0 for figure in figures], height, color=colour,
                         label=title)
        axes.bar_label(bars, [f" {figure.median:,.0f}" if figure else "" for figure in figures], fontsize=9)
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.grid(False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_formatter(FuncFormatter(_plain_number))
    axes.margins(x=0.15)
    # Below the axis and its label, at a distance that does not depend on how many bars there are.
    below = transforms.ScaledTranslation(0, -0.48, axes.figure.dpi_scale_trans)
    axes.legend(loc="upper left", fontsize=9, ncols=2, borderaxespad=0, bbox_to_anchor=(0, 0),
                bbox_transform=axes.transAxes + below)


def _tcp(summary: Summary) -> Picture | None:
    """Three panels: over depth, over block size, over the number of nodes."""
    keys = summary.jobs("tcp", system_key(NODES))
    if not keys:
        return None
    picture = Picture(figsize=(12, 4.2), layout="constrained")
    depth_axes, block_axes, node_axes = picture.subplots(1, 3)
    for kind, colour, marker in (("write", WRITE_COLOUR, "s"), ("read", READ_COLOUR, "o")):
        style: dict[str, Any] = {"color": colour, "marker": marker, "label": f"{kind}s"}
        depths = sorted(int(key.split("-d")[1]) for key in keys if key.startswith(f"{kind}-4k-"))
        _line(depth_axes, [(depth, summary.figure("tcp", system_key(NODES), TcpLoad(kind, 4096, depth).key, "per_s"))
                           for depth in depths], style)
        blocks = sorted(int(key.split("-")[1].removesuffix("k")) for key in keys
                        if key.startswith(f"{kind}-") and key.endswith(f"-d{BLOCK_DEPTH}"))
        _line(block_axes, [(block, summary.figure("tcp", system_key(NODES),
                                                  TcpLoad(kind, block * 1024, BLOCK_DEPTH).key, "MB_per_s"))
                           for block in blocks], style)
        counts = sorted(int(system.removeprefix("tcp-n")) for system in summary.systems("tcp"))
        job = TcpLoad(kind, 4096, BLOCK_DEPTH).key
        _line(node_axes, [(nodes, summary.figure("tcp", system_key(nodes), job, "per_s")) for nodes in counts], style)
    panels = (
        (depth_axes, f"4 KiB, {NODES} nodes", "requests in flight", "operations a second", depths),
        (block_axes, f"depth {BLOCK_DEPTH}, {NODES} nodes", "KiB in a request", "MB/s", blocks),
        (node_axes, f"4 KiB, depth {BLOCK_DEPTH}", "nodes", "operations a second", counts),
    )
    for axes, title, below, beside, ticks in panels:
        axes.set_title(title)
        axes.set_xlabel(below)
        axes.set_ylabel(beside)
        axes.set_ylim(bottom=0)
        if axes is not node_axes:
            axes.set_xscale("log", base=2)
        _log_axis(axes.xaxis, ticks)
        axes.yaxis.set_major_formatter(FuncFormatter(_plain_number))
        axes.legend(loc="best")
    return picture


def _line(axes: Axes, points: Sequence[tuple[float, Figure | None]], style: dict[str, Any]) -> None:
    """A line through the medians, with a band from the lowest to the highest round."""
    known = [(place, figure) for place, figure in points if figure is not None]
    places = [place for place, _ in known]
    axes.plot(places, [figure.median for _, figure in known], markersize=6, **style)
    axes.fill_between(places, [figure.low for _, figure in known], [figure.high for _, figure in known],
                      color=style["color"], alpha=0.15, linewidth=0)
