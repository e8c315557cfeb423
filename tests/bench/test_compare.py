"""The comparison of two versions: what is taken of a run, and what is called worse."""

from __future__ import annotations

import pytest

from bench.compare import figures_of, hops_of, report
from bench.shell import BenchFailed
from scripts.hops import show
from tests.bench.recording import recorded_run
from tests.bench.test_report import rows


def test_what_is_taken_of_a_run() -> None:
    found = figures_of(recorded_run(), ["ours"])
    assert found["ours, fio, rand-write-4k-d1: per_s"] == 1200.0
    assert found["ours, files, mkfs-copy-sync: seconds"] == 1.5
    assert found["tcp-n5, memory, over TCP: mean_MB"] == 40.0
    assert not [name for name in found if name.startswith(("plain", "gluster", "ours-"))]


def test_more_a_second_is_better_and_more_time_is_worse() -> None:
    names = ("a: per_s", "b: per_s", "c: cpu_us", "d: cpu_us", "e: us")
    before = [dict.fromkeys(names, 100.0), {**dict.fromkeys(names, 200.0), "of one alone": 1.0}]
    after = [dict(zip(names, figures, strict=True)) for figures in ((96.0, 98.0, 104.0, 102.0, 50.0),
                                                                   (192.0, 202.0, 208.0, 198.0, 100.0))]
    assert rows(report(before, after)) == {
        "figure": ["after / before", ""], "---": ["---:", "---:"], "a: per_s": ["0.96", "worse"],
        "b: per_s": ["0.99 (0.98 - 1.01)", ""], "c: cpu_us": ["1.04", "worse"],
        "d: cpu_us": ["1.00 (0.99 - 1.02)", ""], "e: us": ["0.50", ""],
    }


def test_the_table_of_the_hops_is_read(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    show({"HMAC-SHA256 of 4 KiB": 3.21, "encode / decode, and a long name of a step": 1196.04})
    assert hops_of(capsys.readouterr().out) == {
        "hops, HMAC-SHA256 of 4 KiB: us": 3.2, "hops, encode / decode, and a long name of a step: us": 1196.0}
    with pytest.raises(BenchFailed):
        hops_of("Traceback")
