"""Tables, plots and the record, on a run that was made up."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner

from bench import record, tables
from bench.cli import main
from bench.record import Run
from bench.summary import Figure, Summary, measured
from bench.systems import make_ours
from bench.tables import BINDINGS, EDGES, PLOTS, cell, number
from tests.bench.recording import recorded_run


def rows(page: str) -> dict[str, list[str]]:
    """The cells of every table row by its first cell. Every row must have as many cells as the one above it."""
    found: dict[str, list[str]] = {}
    width = 0
    for line in page.splitlines():
        if not line.startswith("|"):
            width = 0
            continue
        cells = [text.strip() for text in line.strip("|").split("|")]
        assert width in (0, len(cells)), line
        width = len(cells)
        found[cells[0]] = cells[1:]
    return found


@pytest.mark.parametrize(("value", "text"), [(12345.6, "12,346"), (100, "100"), (42.26, "42.3"), (1.236, "1.24")])
def test_numbers_are_short(value: float, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("figure", "text"),
    [(None, "-"), (Figure(5.0, 4.0, 6.0), "5.00 (4.00 - 6.00)"), (Figure(1000.1, 1000.0, 1000.2), "1,000")],
)
def test_cells_show_the_range(figure: Figure | None, text: str) -> None:
    assert cell(figure) == text


def test_the_median_and_the_range_of_the_rounds() -> None:
    figure = Summary(recorded_run()).figure("fio", "ours", "rand-write-4k-d1", "per_s")
    assert figure == Figure(1000.0, 900.0, 1200.0)


def test_what_was_not_measured_has_no_column() -> None:
    assert [setup.key for setup in measured(recorded_run())] == ["ours", "ours-nbd", "ours-pyfuse3", "plain", "gluster"]


def test_the_page_has_every_figure_and_fault() -> None:
    found = rows(tables.page(recorded_run(), ()))
    assert found["rand write 4k, depth 1, IOPS"] == [
        "1,000 (900 - 1,200)", "1,500 (1,350 - 1,800)", "800 (720 - 960)", "20,000 (18,000 - 24,000)",
        "500 (450 - 600)"]
    assert found["mkfs + copy a tree + sync, s"] == ["1.50", "-", "1.50", "1.50", "-"]
    assert found["longest stall, ms, one replica killed"] == ["40.0", "-", "-", "-", "-"]
    assert found["GlusterFS"][-1] == "brick / lost its way"
    assert found["nbdkit"][-1] == "did not start"
    assert found["64 KiB"][0] == "16"
    assert found["dsreg, N = 5"] == ["over TCP", "40.0", "41.0"]
    assert found["writes/s, depth 16"] == ["1,000 (900 - 1,200)"] * 3
    assert found["command"] == ["`python -m bench --quick`"]


def test_the_bindings_are_compared_round_by_round() -> None:
    run = recorded_run()
    last = max(index for index, sample in enumerate(run.samples)
               if (sample.part, sample.system, sample.job) == ("fio", "ours-pyfuse3", "rand-write-4k-d1"))
    run.samples[last].figures["per_s"] = 600.0  # of 1200
    assert Summary(run).ratio("fio", BINDINGS, "rand-write-4k-d1", "per_s") == Figure(0.8, 0.5, 0.8)
    assert set(BINDINGS) <= {system.key for system in make_ours()}
    heading, _, below = tables.page(run, ()).partition("### The two FUSE bindings")
    assert rows(below)["rand write 4k, depth 1"] == ["0.80 (0.50 - 0.80)"]
    # A round that one of them lacks would set rounds beside others; and without pyfuse3 there is nothing to compare.
    del run.samples[last]
    assert Summary(run).ratio("fio", BINDINGS, "rand-write-4k-d1", "per_s") is None
    run.samples = [sample for sample in run.samples if sample.system != "ours-pyfuse3"]
    assert "FUSE bindings" not in tables.page(run, ())


def test_nbd_is_compared_with_fuse_round_by_round() -> None:
    assert set(EDGES) <= {system.key for system in make_ours()}
    _, _, below = tables.page(recorded_run(), ()).partition("### By NBD at a unix socket")
    assert rows(below.partition("###")[0])["rand write 4k, depth 1"] == ["1.50"]


def test_the_page_is_clean_text() -> None:
    page = tables.page(recorded_run(), [name for name, _ in PLOTS])
    assert page.isascii() and page.endswith("\n") and not page.endswith("\n\n")
    assert not [line for line in page.splitlines() if line != line.rstrip()]
    assert all(f"]({name})" in page for name, _ in PLOTS)


def test_pictures_that_were_not_drawn_are_not_shown() -> None:
    assert ".svg" not in tables.page(recorded_run(), ())


def test_a_page_without_a_run_says_so() -> None:
    assert "No run is recorded" in tables.page(Run("", "", {}, {}), ())


def test_the_record_comes_back_as_it_was(tmp_path: Path) -> None:
    run = recorded_run()
    record.save(run, tmp_path / "run.json")
    assert record.load(tmp_path / "run.json") == run
    assert len(json.loads((tmp_path / "run.json").read_text())["samples"]) == len(run.samples)


# --- plots ----------------------------------------------------------------------------------------
@pytest.fixture
def plots() -> ModuleType:
    module: ModuleType = pytest.importorskip(
        "bench.plots", reason="matplotlib is not installed", exc_type=ImportError)
    return module


def texts(picture: Path) -> list[str]:
    """What is written in it: letters are drawn as outlines, with the text in a comment beside."""
    return [html.unescape(text) for text in re.findall(r"<!-- (.*?) -->", picture.read_text())]


def test_plots_show_every_system(plots: ModuleType, tmp_path: Path) -> None:
    assert plots.draw_all(recorded_run(), tmp_path) == [name for name, _ in PLOTS]
    shown = texts(tmp_path / "benchmarks-iops.svg")
    labels = ("dsreg (direct)", "dsreg (NBD)", "dsreg (pyfuse3)", "plain file", "GlusterFS")
    assert all(label in shown for label in (*labels, "rand write 4k, depth 16"))
    assert "nbdkit" not in shown
    assert "one replica killed" in texts(tmp_path / "benchmarks-cost.svg")
    assert all(label in texts(tmp_path / "benchmarks-tcp.svg") for label in ("reads", "writes", "requests in flight"))


def test_the_same_run_is_drawn_the_same(plots: ModuleType, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        plots.draw_all(recorded_run(), tmp_path / name)
    for name, _ in PLOTS:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_run_over_tcp_alone_has_one_picture(plots: ModuleType, tmp_path: Path) -> None:
    run = recorded_run()
    run.samples = [sample for sample in run.samples if sample.part.startswith("tcp")]
    assert plots.draw_all(run, tmp_path) == ["benchmarks-tcp.svg"]


# --- command line -----------------------------------------------------------------------------------
def test_a_report_is_made_from_a_record(tmp_path: Path) -> None:
    record.save(recorded_run(), tmp_path / "run.json")
    done = CliRunner().invoke(main, ["--report", str(tmp_path / "run.json"), "--output", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert "rand write 4k, depth 64, IOPS" in rows((tmp_path / "out" / "benchmarks.md").read_text())
    assert not (tmp_path / "out" / "benchmarks.json").exists()


def test_a_file_that_is_no_record_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"samples": 3}')
    done = CliRunner().invoke(main, ["--report", str(tmp_path / "run.json"), "--output", str(tmp_path)])
    assert done.exit_code == 1
    assert "is no record" in done.output
