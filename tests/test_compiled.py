"""The compiled build: what is in it, and whether its nodes and client keep what is written. `make compiled` runs it."""

from __future__ import annotations

import ast
import importlib
import random
from pathlib import Path

import trio

from dsreg.client import Attach, Client
from dsreg.version import described_version, is_compiled
from tests.processes.cluster import TIMEOUT_S, Cluster

ROOT = Path(__file__).resolve().parent.parent
SECTORS, WRITERS, WRITES = 500, 32, 20


def compiled_modules() -> list[str]:
    """Dotted names, from the table in setup.py."""
    for node in ast.parse((ROOT / "setup.py").read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "COMPILED":
            table = ast.literal_eval(node.value)
            return [f"{package}/{name}".replace("/", ".") for package, names in table.items() for name in names]
    raise AssertionError("setup.py has no table COMPILED")


def test_what_is_compiled_is_there() -> None:
    files = [(ROOT / module.replace(".", "/")).with_suffix(".py") for module in compiled_modules()]
    assert files and [file for file in files if not file.is_file()] == []


# What a base may be though it is compiled: a class that adds nothing at run time.
_KINDS = ("NamedTuple", "Protocol")


def test_no_interpreted_class_inherits_from_a_compiled_one() -> None:
    """mypyc does not allow that: TypeError when the first object is made."""
    compiled = set(compiled_modules())
    trees = {path.relative_to(ROOT).with_suffix("").as_posix().replace("/", "."): ast.parse(path.read_text())
             for package in ("dsreg", "fuse_frontend", "nbd_frontend") for path in (ROOT / package).rglob("*.py")}
    plain = {f"{module}.{node.name}" for module, tree in trees.items() for node in tree.body
             if isinstance(node, ast.ClassDef) and any(ast.unparse(base).startswith(_KINDS) for base in node.bases)}
    wrong = []
    for module in trees.keys() - compiled:
        imported = {alias.asname or alias.name: f"{node.module}.{alias.name}" for node in ast.walk(trees[module])
                    if isinstance(node, ast.ImportFrom) and node.module for alias in node.names}
        for node in trees[module].body:
            for base in node.bases if isinstance(node, ast.ClassDef) else ():
                name = imported.get(ast.unparse(base).partition("[")[0], "")
                if name.rpartition(".")[0] in compiled and name not in plain:
                    wrong.append(f"{module}: {ast.unparse(base)}")
    assert not wrong


if is_compiled():  # `make compiled` runs these

    def test_all_of_it_is_compiled() -> None:
        files = [importlib.import_module(module).__file__ for module in compiled_modules()]
        assert [file for file in files if not str(file).endswith(".so")] == []

    async def test_nodes_and_client_keep_what_is_written(tmp_path: Path, rng: random.Random) -> None:
        cluster = Cluster(tmp_path / "cluster", sectors=SECTORS)
        written: dict[int, bytes] = {}

        async def write(client: Client, writer: int) -> None:
            for _ in range(WRITES):
                sector = rng.randrange(SECTORS // WRITERS) * WRITERS + writer  # no other writer's
                written[sector] = rng.randbytes(4096)
                await client.write(sector, written[sector])

        async def load(attach: Attach | None) -> None:
            async with Client(cluster.config, attach=attach) as client, trio.open_nursery() as nursery:
                for writer in range(WRITERS):
                    nursery.start_soon(write, client, writer)

        try:
            await trio.to_thread.run_sync(cluster.start)
            with trio.fail_after(2 * TIMEOUT_S):
                async with Client(cluster.config) as client:
                    for rank in cluster.ranks:
                        report = await client.status(rank, TIMEOUT_S)
                        assert report["version"] == described_version() and "compiled" in report["version"]
                for attach in (None, Attach()):
                    await load(attach)
                await trio.to_thread.run_sync(cluster.kill)
                await trio.to_thread.run_sync(cluster.start, 1, 2)
                async with Client(cluster.config) as client:
                    for sector, data in written.items():
                        assert await client.read(sector) == data
        finally:
            cluster.close()
