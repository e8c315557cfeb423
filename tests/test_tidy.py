"""The habits of the project that a machine can check."""

from __future__ import annotations

import ast
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
MAX_LINE_LENGTH = 120

PRODUCT = sorted(path for top in ("dsreg", "fuse_frontend", "nbd_frontend") for path in (ROOT / top).rglob("*.py"))
OTHERS = sorted(path for top in ("tests", "scripts", "bench") for path in (ROOT / top).rglob("*.py"))
PYTHON = PRODUCT + OTHERS
TEXT = sorted(
    path
    for pattern in ("*.md", "Makefile", "*.toml", "docs/**/*.md", "deploy/**/*", "scripts/*.sh", ".ci/*")
    for path in ROOT.glob(pattern)
    if path.is_file()
)


def of(paths: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("path", paths, ids=lambda path: str(path.relative_to(ROOT)))


def is_catch_all(handler: ast.ExceptHandler) -> bool:
    """`except:`, or `except Exception` (or BaseException) whose body does nothing."""
    if handler.type is None:
        return True
    caught = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    if not any(isinstance(name, ast.Name) and name.id in ("Exception", "BaseException") for name in caught):
        return False
    return all(
        isinstance(line, ast.Pass | ast.Continue) or isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant)
        for line in handler.body
    )


def sleeps(tree: ast.AST) -> bool:
    """Whether the code calls time.sleep, under whichever name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr == "sleep" and ast.unparse(node.value) == "time":
            return True
        if isinstance(node, ast.ImportFrom) and node.module == "time" and any(a.name == "sleep" for a in node.names):
            return True
    return False


def code_lines(path: Path) -> set[int]:
    """Numbers of the lines that a function is counted by: blank lines, comments and docstrings are free."""
    with tokenize.open(path) as source:
        text = source.read()
    lines = {number for number, line in enumerate(text.splitlines(), 1) if line.strip() and line.strip()[0] != "#"}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and ast.get_docstring(node):
            docstring = node.body[0]
            lines -= set(range(docstring.lineno, (docstring.end_lineno or docstring.lineno) + 1))
    return lines


@of(PYTHON)
def test_files_are_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MAX_FILE_LINES


@of(PYTHON)
def test_functions_are_short(path: Path) -> None:
    counted = code_lines(path)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = len(counted & set(range(node.lineno, (node.end_lineno or node.lineno) + 1)))
            assert length <= MAX_FUNCTION_LINES, f"{node.name} has {length} lines"


@of(PYTHON)
def test_lines_are_short(path: Path) -> None:
    long = [n for n, line in enumerate(path.read_text().splitlines(), 1) if len(line) > MAX_LINE_LENGTH]
    assert not long, f"lines {long}"


@of(PYTHON + TEXT)
def test_text_is_ascii_without_tabs_or_trailing_blanks(path: Path) -> None:
    text = path.read_bytes()
    assert text.isascii()
    assert text == b"" or text.endswith(b"\n")
    assert not [n for n, line in enumerate(text.split(b"\n"), 1) if line != line.rstrip()]
    assert path.name == "Makefile" or b"\t" not in text


@of(PYTHON)
def test_nothing_catches_everything_in_silence(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ExceptHandler):
            assert not is_catch_all(node), f"line {node.lineno}"


@of(PRODUCT)
def test_nothing_sleeps(path: Path) -> None:
    assert not sleeps(ast.parse(path.read_text()))


@of(PYTHON)
def test_modules_say_what_they_are(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert not tree.body or ast.get_docstring(tree), "no docstring"


@of(PYTHON)
def test_annotations_are_not_evaluated(path: Path) -> None:
    tree = ast.parse(path.read_text())
    defines = any(isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.AnnAssign) for node in ast.walk(tree))
    has = any(isinstance(n, ast.ImportFrom) and n.module == "__future__" for n in tree.body)
    assert has or not defines, "no `from __future__ import annotations`"


@of(PYTHON + TEXT)
def test_nothing_is_left_open(path: Path) -> None:
    # Spelled in two halves, so that this line is not found.
    for word in ("TO" + "DO", "FIX" + "ME", "XX" + "X"):
        assert word not in path.read_text(), word


# --- the checks themselves ------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("try: f()\nexcept: raise", True),
        ("try: f()\nexcept Exception: pass", True),
        ("try: f()\nexcept (OSError, BaseException):\n    'nothing'", True),
        ("try: f()\nexcept OSError: pass", False),
        ("try: f()\nexcept Exception as e: log(e)", False),
    ],
)
def test_catch_all_is_recognized(code: str, expected: bool) -> None:
    handlers = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.ExceptHandler)]
    assert [is_catch_all(handler) for handler in handlers] == [expected]


def test_sleep_is_recognized() -> None:
    assert sleeps(ast.parse("import time\ntime.sleep(1)"))
    assert sleeps(ast.parse("from time import sleep"))
    assert not sleeps(ast.parse("import trio\nasync def f(): await trio.sleep(1)"))
