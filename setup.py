"""The compiled build. All else is in pyproject.toml: without DSREG_MYPYC=1 in the environment this adds nothing to it.

`DSREG_MYPYC=1 pip install .` compiles the modules below with mypyc: it needs gcc and Python.h (Debian: gcc
python3-dev), and brings mypy itself. An editable install is never compiled. docs/performance.md, decision 13.
"""

from __future__ import annotations

import os
import sys

from setuptools import Extension, setup

# What every operation runs through. Not in it, because it does not pay or is not possible: what only a start, a
# greeting or a recovery needs; modules that wait for sockets and threads more than they compute; modules that are
# little more than NamedTuples, which stay Python classes (messages, effects, events); of which the simulator has a
# subclass (dsreg.client.core).
COMPILED = {
    "dsreg/protocol": (
        "bounds", "decoder", "encoder", "frames", "plausibility", "sealed", "tags", "unsealing", "wire",
    ),
    "dsreg/register": (
        "acceptor", "alarms", "atomic_register", "contract", "coordinator", "epochs", "execution", "intervals", "links",
        "one_round", "peers", "quorum", "receipts", "repairs", "repeats", "replica", "run_queue", "tag_allocator",
        "tag_view",
    ),
    "dsreg/storage": (
        "checkpoint", "checksum", "chunks", "commit", "failure", "index", "load", "pages", "persists", "placing",
        "promises", "slot_table", "slots", "stable", "state", "tags", "zero_runs", "zeroing",
    ),
    "dsreg/client": (
        "access", "admission", "answers", "attachment", "counting", "dispatch", "engine", "guard", "mapping", "naming",
        "node_selector", "node_view", "operation", "operations", "presence", "quorum", "range_lock", "replies",
        "run",
    ),
    "dsreg/node": ("interpreter", "link_outbox", "metering"),
    "dsreg": ("outbox",),
}
# The steps of a build that make or install files; others only ask what the package is and needs.
BUILDING = {"build", "build_ext", "bdist_wheel", "install"}


def extensions() -> list[Extension]:
    if not BUILDING & set(sys.argv):
        return []
    from mypyc.build import mypycify

    files = [f"{package}/{module}.py" for package, modules in COMPILED.items() for module in modules]
    # Types are checked by `make lint`; here what is imported need not be installed.
    options = ["--config-file=", "--ignore-missing-imports"]
    return mypycify([*options, *files], opt_level="2", debug_level="0", group_name="dsreg")


if os.environ.get("DSREG_MYPYC") == "1":
    setup(setup_requires=["mypy>=1.10"], ext_modules=extensions())
else:
    setup()
