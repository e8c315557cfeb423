"""A run as `bench` records one: made up, with round figures, in the shape of a real one."""

from __future__ import annotations

from dataclasses import asdict

from bench.jobs import JOBS
from bench.record import Run, Setup
from bench.run import FILES_JOB, KILLED, QUIET
from bench.settings import QUICK
from bench.tcp import loads, system_key

ROUNDS = 3
SPEEDS = {"ours": 1000.0, "ours-nbd": 1500.0, "ours-pyfuse3": 800.0, "plain": 20000.0, "gluster": 500.0}


def recorded_run() -> Run:
    """Five systems, three rounds at 90, 100 and 120 % of a speed; GlusterFS failed before it copied files."""
    run = Run(
        command="python -m bench --quick", date="2026-01-02 03:04 UTC", machine={"CPU": "some | CPU", "cores": "2"},
        settings={**asdict(QUICK), "rounds": ROUNDS},
        setups=[Setup("ours", "dsreg (direct)", "after fdatasync at a majority", "dsreg 1"),
                Setup("ours-nbd", "dsreg (NBD)", "after fdatasync at a majority", "dsreg 1"),
                Setup("ours-pyfuse3", "dsreg (pyfuse3)", "after fdatasync at a majority", "dsreg 1"),
                Setup("plain", "plain file", "on fsync", "a loop"),
                Setup("gluster", "GlusterFS", "before it is written", "glusterfs 1", "brick | lost\nits way"),
                Setup("nbdkit", "nbdkit", "on fsync", "", "did not start")],
        notes=["Something to know."], minutes=2.0)
    for number, factor in enumerate((0.9, 1.0, 1.2)):
        run.add("calibration", "machine", "calibration", number, {"hmac_us": 3.0 * factor, "fdatasync_us": 250.0})
        for key, speed in SPEEDS.items():
            for job in JOBS:
                run.add("fio", key, job.key, number, {
                    "operations": 100, "per_s": speed * factor * job.depth, "MB_per_s": speed * factor / 10,
                    "p50_ms": 1.0, "p99_ms": 2.0, "max_ms": 3.0, "cpu_us": 100.0 * factor, "machine_cpu_us": 150.0})
            if key not in ("ours-nbd", "gluster"):
                run.add("files", key, FILES_JOB, number, {"seconds": 1.5})
        for name, gap_ms in ((QUIET, 4.0), (KILLED, 40.0)):
            run.add("stall", "ours", name, number, {"gap_ms": gap_ms, "max_ms": gap_ms, "per_s": 900.0})
            run.add("tcp-stall", "tcp-n3", name, number, {"gap_ms": gap_ms / 2})
        for load in loads(QUICK):
            run.add("tcp", system_key(load.nodes), load.key, number, {
                "per_s": 1000.0 * factor, "MB_per_s": load.block * factor / 100, "p50_ms": 1.0, "p99_ms": 2.0,
                "max_ms": 3.0, "gap_ms": 4.0, "client_cpu_us": 50.0, "cpu_us": 200.0})
    run.add("memory", "tcp-n5", "over TCP", 0, {"mean_MB": 40.0, "max_MB": 41.0})
    return run
