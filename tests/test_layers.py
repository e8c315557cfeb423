"""Dependencies point one way, down: docs/architecture.md, checked against the imports of every file."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# From the top down. What stands in one row does not import each other; a row imports rows below it only.
ROWS: tuple[tuple[str, ...], ...] = (
    ("fuse_frontend", "nbd_frontend"),
    ("dsreg.__main__",),
    ("dsreg.cli",),
    ("dsreg.volume",),
    ("dsreg.supervisor",),
    ("dsreg.cache",),
    ("dsreg.block_device",),
    ("dsreg",),  # the front door: re-exports the clients
    ("dsreg.page",),
    ("dsreg.survey",),
    ("dsreg.client", "dsreg.node"),
    ("dsreg.metrics",),
    ("dsreg.health",),
    ("dsreg.waiting",),
    ("dsreg.store",),
    ("dsreg.key_files", "dsreg.lines", "dsreg.outbox"),
    ("dsreg.storage", "dsreg.transport"),
    ("dsreg.register", "dsreg.link"),
    ("dsreg.protocol",),
    ("dsreg.config",),
    ("dsreg.chunks", "dsreg.runs"),
    (
        "dsreg.constants", "dsreg.errors", "dsreg.histogram", "dsreg.listening", "dsreg.logs", "dsreg.memory",
        "dsreg.slow", "dsreg.units", "dsreg.version",
    ),
)
HEIGHT = {layer: len(ROWS) - index for index, row in enumerate(ROWS) for layer in row}
# What ships for tests: may import anything and is imported by nothing else.
FOR_TESTS = "dsreg.testing"

# Imported by these layers alone.
ONLY_IN = {
    "click": {"dsreg.cli", "fuse_frontend", "nbd_frontend"},
    "prometheus_client": {"dsreg.metrics"},
    "h11": {"dsreg.metrics"},
    "rich": {"dsreg.cli", "dsreg.supervisor", "fuse_frontend"},
}
# Imported by these modules alone: pure functions of bytes, which they use without its sources of randomness.
ONLY_IN_MODULES = {"cryptography": {"dsreg.protocol.noise", "dsreg.protocol.sealed"}}
NOT_IN_THE_CORE = {
    "trio", "socket", "ssl", "select", "selectors", "asyncio", "threading", "subprocess", "time", "datetime", "random",
    "secrets", "uuid", "os", "io", "pathlib", "shutil", "tempfile", "mmap", "logging", "dsreg.config",
}
# Of the client, what does I/O, or is for those that do. All the rest is pure: the simulator runs it as it is.
CLIENT_WITH_IO = {"blocking", "client", "cluster", "connection", "runner"}
PURE_CLIENT = sorted({path.stem for path in (ROOT / "dsreg" / "client").glob("[!_]*.py")} - CLIENT_WITH_IO)
PAGE_WITH_IO = {"looking", "serving"}
PURE_PAGE = sorted({path.stem for path in (ROOT / "dsreg" / "page").glob("[!_]*.py")} - PAGE_WITH_IO)
# These are told the time, as an argument of each event; none of them holds a clock. The engine, which carries out what
# the client's core decides, reads one for it, as dsreg.node.interpreter does for a node's.
TOLD_THE_TIME = (
    "dsreg.register", "dsreg.link", "dsreg.health", "dsreg.histogram",
    *(f"dsreg.client.{name}" for name in PURE_CLIENT if name != "engine"),
)
CLOCK = re.compile(r"_?(\w+_)?(clock|time|now)(_s)?")
# By layer, or by module.
NOT_IN = {
    **{f"dsreg.client.{module}": NOT_IN_THE_CORE for module in PURE_CLIENT},
    **{f"dsreg.page.{module}": NOT_IN_THE_CORE for module in PURE_PAGE},
    **dict.fromkeys(("dsreg.cache.core", "dsreg.cache.extents", "dsreg.cache.limits"), NOT_IN_THE_CORE),
    "dsreg.register": NOT_IN_THE_CORE,
    "dsreg.link": NOT_IN_THE_CORE,
    "dsreg.protocol": NOT_IN_THE_CORE,
    "dsreg.storage": {"trio", "socket", "asyncio"},
    "dsreg.config": {"trio", "socket", "asyncio"},
    "dsreg.health": NOT_IN_THE_CORE - {"dsreg.config"},
    "fuse_frontend.kernel": NOT_IN_THE_CORE,
    **dict.fromkeys(("nbd_frontend.numbers", "nbd_frontend.codec", "nbd_frontend.negotiation"), NOT_IN_THE_CORE),
}


def layer_of(module: str) -> str | None:
    """The layer that a dotted module name belongs to, None for a module that is not ours."""
    for layer in sorted((*HEIGHT, FOR_TESTS), key=len, reverse=True):
        if module == layer or module.startswith(layer + ".") and layer != "dsreg":
            return layer
    return None


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_typing_only(node: ast.If) -> bool:
    return isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def imports(tree: ast.AST, package: str) -> set[str]:
    """Dotted names that the code imports at run time, at any depth; `package` is what relative ones start from."""
    found: set[str] = set()
    pending = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and is_typing_only(node):
            pending.extend(node.orelse)
            continue
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                start = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*start, *([node.module] if node.module else [])])
            # `from package import name`: the name may be a module of its own and thereby in another layer.
            found.update(f"{base}.{alias.name}" for alias in node.names)
        pending.extend(ast.iter_child_nodes(node))
    return found


def faults_of(module: str, imported: set[str]) -> list[str]:
    """What is wrong with `module` importing `imported`, one line each."""
    layer = layer_of(module)
    if layer is None:
        return [f"{module}: in no layer; name it in docs/architecture.md and in this test"]
    faults = []
    for name in sorted(imported):
        root = name.split(".")[0]
        if root in ONLY_IN and layer not in ONLY_IN[root]:
            faults.append(f"{module} imports {name}, which is for {', '.join(sorted(ONLY_IN[root]))}")
        if root in ONLY_IN_MODULES and module not in ONLY_IN_MODULES[root]:
            faults.append(f"{module} imports {name}, which is for {', '.join(sorted(ONLY_IN_MODULES[root]))}")
        not_here = NOT_IN.get(layer, set()) | NOT_IN.get(module, set())
        if any(name == banned or name.startswith(banned + ".") for banned in not_here):
            faults.append(f"{module} imports {name}, which is done without there")
        # `from dsreg import Client` names no module: it comes through the front door.
        below = layer_of(name) or ("dsreg" if root == "dsreg" else None)
        if below is None or below == layer or layer == FOR_TESTS:
            continue
        if below == FOR_TESTS:
            faults.append(f"{module} imports {name}, which is for tests")
        elif HEIGHT[below] >= HEIGHT[layer]:
            faults.append(f"{module} imports {name}, which is not below it")
    return faults


FILES = sorted(path for top in ("dsreg", "fuse_frontend", "nbd_frontend") for path in (ROOT / top).rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path: Path) -> None:
    module = module_name(path)
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    assert not faults_of(module, imports(ast.parse(path.read_text()), package))


def clocks(tree: ast.AST) -> list[str]:
    """Names of parameters and attributes that hold a callable, and of whatever is called with no argument, that are
    names of a clock."""
    found = []
    for node in ast.walk(tree):
        match node:
            case ast.arg(arg=name, annotation=ast.expr() as kind) if "Callable" in ast.unparse(kind):
                found.append(name)
            case ast.AnnAssign(target=ast.Name(id=name) | ast.Attribute(attr=name), annotation=kind) if (
                "Callable" in ast.unparse(kind)
            ):
                found.append(name)
            case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name), args=[], keywords=[]):
                found.append(name)
    return [name for name in found if CLOCK.fullmatch(name)]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_core_is_told_the_time(path: Path) -> None:
    module = module_name(path)
    if layer_of(module) in TOLD_THE_TIME or module in TOLD_THE_TIME:
        assert not clocks(ast.parse(path.read_text()))


@pytest.mark.parametrize(
    "code",
    [
        "def __init__(self, clock: Callable[[], float]) -> None: ...",
        "def __init__(self, *, unix_time: Callable[[], float] = lambda: 0.0) -> None: ...",
        "class Epochs:\n    now_s: Callable[[], float]",
        "self._unix_time: Callable[[], float] = unix_time",
        "late = self._clock() > due_s",
        "due_s = now() + 1",
    ],
)
def test_a_clock_is_found(code: str) -> None:
    assert clocks(ast.parse(code))


def test_a_time_is_no_clock() -> None:
    code = "def tick(self, now: Now) -> None:\n    self._last_s: float = now.s\n    self._links.resend(now.s)"
    assert not clocks(ast.parse(code))


def test_layers_are_those_of_the_document() -> None:
    document = (ROOT / "docs" / "architecture.md").read_text()
    block = "\n".join(re.findall(r"^    .*$", document, re.MULTILINE))
    for layer in re.findall(r"^    (fuse_frontend|nbd_frontend|dsreg\.\w+)", block, re.MULTILINE):
        assert layer in HEIGHT, f"docs/architecture.md names {layer}, this test does not"


def test_every_layer_exists() -> None:
    modules = {module_name(path) for path in FILES}
    named = {*HEIGHT, *NOT_IN}.union(*ONLY_IN.values(), *ONLY_IN_MODULES.values())
    assert not named - modules


@pytest.mark.parametrize(
    ("module", "code"),
    [
        ("dsreg.register.atomic_register", "import trio"),
        ("dsreg.register.atomic_register", "from dsreg.storage.journal import Journal"),
        ("dsreg.register.atomic_register", "from dsreg import storage"),
        ("dsreg.register.atomic_register", "from ..node import process"),
        ("dsreg.health.checks", "import time"),
        ("dsreg.health.checks", "from dsreg.survey import Survey"),
        ("dsreg.storage.journal", "from dsreg import Client"),
        ("dsreg.client.presence", "import trio"),
        ("dsreg.cache.core", "from time import monotonic"),
        ("dsreg.client.client", "from dsreg.node.process import run_register_process"),
        ("dsreg.storage.journal", "def late():\n    import trio"),
        ("dsreg.block_device", "from fuse_frontend import kernel"),
        ("fuse_frontend.kernel", "import os"),
        ("nbd_frontend.codec", "import ssl"),
        ("nbd_frontend.server", "from fuse_frontend import mounts"),
        ("dsreg.node.process", "from dsreg.testing import proxy"),
        ("dsreg.unheard_of", "import struct"),
        ("dsreg.protocol.wire", "from cryptography.hazmat.primitives.ciphers.aead import AESGCM"),
        ("dsreg.transport", "import cryptography"),
    ],
)
def test_an_upward_import_is_found(module: str, code: str) -> None:
    assert faults_of(module, imports(ast.parse(code), module.rpartition(".")[0]))


@pytest.mark.parametrize(
    ("module", "code"),
    [
        ("dsreg.register.atomic_register", "import struct\nfrom dsreg import constants\nfrom .quorum import Quorum"),
        ("dsreg.node.process", "import trio\nfrom dsreg.storage import Identity\nfrom dsreg.protocol import codec"),
        ("dsreg.protocol.noise", "from cryptography.exceptions import InvalidTag"),
        ("dsreg.storage.journal", "if TYPE_CHECKING:\n    from dsreg.node import process"),
    ],
)
def test_a_downward_import_is_not(module: str, code: str) -> None:
    assert not faults_of(module, imports(ast.parse(code), module.rpartition(".")[0]))
