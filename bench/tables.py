"""A run as Markdown: docs/benchmarks.md."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bench.jobs import CPU_JOB, JOBS
from bench.record import Run, Setup
from bench.run import FILES_JOB, KILLED, QUIET
from bench.summary import Figure, Summary, measured
from bench.systems.ours import NODES
from bench.tcp import BLOCK_DEPTH, STALL_DEPTH, TcpLoad, system_key

HEAD = """\
# Benchmarks

<!-- Made by `make bench` (bench/tables.py) from benchmarks.json. Changes by hand are lost. -->

How it is measured, and what the figures do not say: [bench/README.md](../bench/README.md).
"""
EMPTY = f"{HEAD}\nNo run is recorded here yet: `make bench` writes this page.\n"
# By key, see bench.systems.
BINDINGS = ("ours", "ours-pyfuse3")
EDGES = ("ours", "ours-nbd")
Plots = Sequence[tuple[str, str]]
# (file name, what it shows), in the order of the page; bench.plots draws them.
PLOTS = (
    ("benchmarks-iops.svg", "Operations of 4 KiB a second, by system"),
    ("benchmarks-throughput.svg", "Throughput in requests of 1 MiB, by system"),
    ("benchmarks-cost.svg", "CPU time per random write and longest stall, by system"),
    ("benchmarks-tcp.svg", "The register over TCP: operations a second over depth, nodes and block size"),
)


def number(value: float) -> str:
    """Three significant digits or so, thousands apart."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def cell(figure: Figure | None) -> str:
    """`median (low - high)`, the median alone where the rounds agree in what is shown, `-` for nothing."""
    if figure is None:
        return "-"
    low, high = number(figure.low), number(figure.high)
    return number(figure.median) if low == high else f"{number(figure.median)} ({low} - {high})"


def table(head: Iterable[str], rows: Iterable[Iterable[str]], texts: int = 1) -> str:
    """A Markdown table; the first `texts` columns are text, the others are numbers."""
    names = list(head)
    lines = [names, ["---" if index < texts else "---:" for index in range(len(names))], *rows]
    return "\n".join("| " + " | ".join(map(_one_line, line)) + " |" for line in lines) + "\n"


def _one_line(text: str) -> str:
    """As it may stand in a table: what other programs said may have lines and bars."""
    return " ".join(text.replace("|", "/").split())


def page(run: Run, drawn: Iterable[str]) -> str:
    """The whole document, with those pictures of PLOTS whose files are in `drawn`."""
    if not run.samples:
        return EMPTY
    names = set(drawn)
    devices, tcp = ([plot for plot in plots if plot[0] in names] for plots in (PLOTS[:3], PLOTS[3:]))
    summary = Summary(run)
    systems = measured(run)
    parts = [HEAD, about(run, summary)]
    if systems:
        parts += [_setups(run), _devices(systems, summary, devices), _latencies(systems, summary),
                  _ratios("By NBD at a unix socket, to FUSE and a loop device",
                          "operations a second by NBD, to those by the direct binding", EDGES, summary),
                  _ratios("The two FUSE bindings", "operations a second by pyfuse3, to those by the direct one",
                          BINDINGS, summary)]
    if summary.systems("tcp"):
        parts.append(_tcp(summary, tcp))
    if summary.systems("memory"):
        parts.append(_memory(run, summary))
    return "\n".join(parts)


def about(run: Run, summary: Summary) -> str:
    """The section on the run itself: when, where, how."""
    settings = run.settings
    rows = [("date", run.date), ("command", f"`{run.command}`"), ("took", f"{run.minutes:.0f} minutes"),
            *run.machine.items()]
    for name, title in (("hmac_us", "HMAC-SHA256 of 4 KiB, us of CPU"), ("fdatasync_us", "fdatasync after 4 KiB, us")):
        rows.append((title, cell(summary.figure("calibration", "machine", "calibration", name))))
    text = (f"Figures are the median of {settings['rounds']} rounds, with the lowest and the highest; a job lasts "
            f"{settings['seconds']:g} s in each, on a disk of {settings['size'] >> 20} MiB, written full before. "
            "Jobs go from system to system, then to the next job.\n")
    if settings["rounds"] == 1:
        text = text.replace("the median of 1 rounds, with the lowest and the highest; a job lasts",
                            "of a single round; a job lasts").replace(" in each", "")
    notes = "".join(f"\n- {note}" for note in run.notes)
    return "## The run\n\n" + table(("", ""), rows, texts=2) + f"\n{text}" + (f"{notes}\n" if notes else "")


def _setups(run: Run) -> str:
    rows = [(setup.label, setup.durable, setup.version or "-", setup.fault or "-")
            for setup in run.setups]
    return ("## The systems\n\nAn acknowledged write is not equally safe in all of them; compare within a kind.\n\n"
            + table(("system", "a write is acknowledged", "measured", "failed with"), rows, texts=4))


def _devices(systems: list[Setup], summary: Summary, plots: Plots) -> str:
    """The table of tables: a row for each job, a column for each system."""
    rows: list[list[str]] = []

    def row(title: str, part: str, job: str, name: str) -> None:
        rows.append([title, *(cell(summary.figure(part, setup.key, job, name)) for setup in systems)])

    for job in JOBS:
        name, unit = ("MB_per_s", "MB/s") if job.by_bytes else ("per_s", "IOPS")
        row(f"{job.title}, {unit}", "fio", job.key, name)
    for name, title in (("cpu_us", "its processes"), ("machine_cpu_us", "the machine less the load")):
        row(f"CPU us per operation, {CPU_JOB.title}: {title}", "fio", CPU_JOB.key, name)
    row("mkfs + copy a tree + sync, s", "files", FILES_JOB, "seconds")
    for job_name, title in ((QUIET, "no replica killed"), (KILLED, "one replica killed")):
        row(f"longest stall, ms, {title}", "stall", job_name, "gap_ms")
    text = ("\nThe CPU of its processes is that of the system's own, by pid, without the kernel's loop workers, which "
            "cannot be told apart by device. The machine's is everything that ran meanwhile, kernel threads and "
            f"interrupts included, less fio. The stall is the largest gap between completions of {CPU_JOB.title}.\n")
    return ("## By fio\n\nThrough a loop device, but for those whose client is fio itself (\"fio's engine\" above).\n\n"
            + table(["job", *(setup.label for setup in systems)], rows) + text
            + _pictures(plots))


def _latencies(systems: list[Setup], summary: Summary) -> str:
    rows = [[job.title, *(f"{_short(summary, s.key, job.key, 'p50_ms')} / {_short(summary, s.key, job.key, 'p99_ms')}"
                          for s in systems)] for job in JOBS if not job.by_bytes]
    return ("### Latency, ms, median / 99th percentile (of the mix: its writes)\n\n"
            + table(["job", *(setup.label for setup in systems)], rows))


def _ratios(title: str, what: str, systems: tuple[str, str], summary: Summary) -> str:
    rows = [(job.title, cell(summary.ratio("fio", systems, job.key, "per_s"))) for job in JOBS]
    if all(text == cell(None) for _, text in rows):
        return ""
    return f"\n### {title}: {what}\n\n" + table(("job", "ratio in a round"), rows)


def _short(summary: Summary, system: str, job: str, name: str) -> str:
    figure = summary.figure("fio", system, job, name)
    return "-" if figure is None else number(figure.median)


def _tcp(summary: Summary, plots: Plots) -> str:
    def figure(load: TcpLoad, name: str) -> str:
        return cell(summary.figure("tcp", system_key(load.nodes), load.key, name))

    jobs = [_parse_key(key) for key in summary.jobs("tcp", system_key(NODES))]
    columns = ("write", "read")
    parts = ["## Over TCP, without FUSE\n\nRandom requests of one Python client; CPU is per operation, all nodes + "
             "the client.\n\n"]
    depths = sorted({depth for _, block, depth in jobs if block == 4096})
    rows = []
    for depth in depths:
        loads = [TcpLoad(kind, 4096, depth) for kind in columns]
        rows.append([str(depth), *(figure(load, "per_s") for load in loads),
                     *(f"{figure(load, 'cpu_us')} + {figure(load, 'client_cpu_us')}" for load in loads)])
    parts += [f"### {NODES} nodes, 4 KiB, by depth\n\n", table(
        ("depth", "writes/s", "reads/s", "CPU us per write", "CPU us per read"), rows)]
    rows = []
    for block, depth in sorted({(block, depth) for _, block, depth in jobs if block > 4096 or depth == BLOCK_DEPTH}):
        loads = [TcpLoad(kind, block, depth) for kind in columns]
        rows.append([f"{block // 1024} KiB", str(depth), *(figure(load, "MB_per_s") for load in loads),
                     *(figure(load, "p99_ms") for load in loads)])
    parts += [f"\n### {NODES} nodes, by block size\n\n", table(
        ("block", "depth", "writes MB/s", "reads MB/s", "p99 ms, writes", "p99 ms, reads"), rows)]
    parts += ["\n### By number of nodes, 4 KiB\n\n", _by_nodes(summary, depths)]
    stalls = [cell(summary.figure("tcp-stall", system_key(NODES), name, "gap_ms")) for name in (QUIET, KILLED)]
    parts.append(f"\nLongest gap between two completions, writes of 4 KiB at depth {STALL_DEPTH}, {NODES} nodes: "
                 f"{stalls[0]} ms with none killed, {stalls[1]} ms with one node killed (and started again).\n")
    return "".join(parts) + _pictures(plots)


def _parse_key(key: str) -> tuple[str, int, int]:
    """(kind, block, depth) of `TcpLoad.key`."""
    kind, block, depth = key.split("-")
    return kind, int(block.removesuffix("k")) * 1024, int(depth.removeprefix("d"))


def _by_nodes(summary: Summary, depths: list[int]) -> str:
    counts = sorted(int(system.removeprefix("tcp-n")) for system in summary.systems("tcp"))
    rows = []
    for depth in depths:
        for kind in ("write", "read"):
            cells = [cell(summary.figure("tcp", system_key(nodes), TcpLoad(kind, 4096, depth).key, "per_s"))
                     for nodes in counts]
            if "-" not in cells:
                rows.append([f"{kind}s/s, depth {depth}", *cells])
    return table(["", *(f"N = {nodes}" for nodes in counts)], rows)


def _memory(run: Run, summary: Summary) -> str:
    labels = {setup.key: setup.label for setup in run.setups}
    rows = []
    for system in summary.systems("memory"):
        for job in summary.jobs("memory", system):
            name = labels.get(system) or f"dsreg, N = {system.removeprefix('tcp-n')}"
            rows.append([name, job, *(cell(summary.figure("memory", system, job, figure))
                                      for figure in ("mean_MB", "max_MB"))])
    return ("## Memory\n\nResident MB of a replica's process at the end of the run.\n\n"
            + table(("system", "load", "mean", "largest"), rows, texts=2))


def _pictures(plots: Plots) -> str:
    return "".join(f"\n![{text}]({name})\n" for name, text in plots)
