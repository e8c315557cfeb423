"""What is packaged: a source distribution that is complete, a wheel with its types and licence, a front door."""

from __future__ import annotations

import inspect
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import dsreg
from dsreg.client import Client
from dsreg.testing.memory_client import MemoryClient

ROOT = Path(__file__).resolve().parent.parent
# Made by tools and commands, and in no repository.
MADE = shutil.ignore_patterns(".git", ".venv", "build", "dist", "*.egg-info", "__pycache__", ".*_cache", ".hypothesis")


def build(source: Path, kind: str, target: Path) -> Path:
    """`kind`: sdist or wheel."""
    target.mkdir()
    code = f"import sys; from setuptools import build_meta; build_meta.build_{kind}(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", code, str(target)], cwd=source, capture_output=True, text=True,
                          timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return next(target.iterdir())


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source distribution, built from a copy of this tree and unpacked."""
    base = tmp_path_factory.mktemp("sdist")
    shutil.copytree(ROOT, base / "tree", ignore=MADE, symlinks=True)
    archive = build(base / "tree", "sdist", base / "dist")
    with tarfile.open(archive) as tar:
        tar.extractall(base, filter="data")
    return base / archive.name.removesuffix(".tar.gz")


@pytest.fixture(scope="module")
def wheel(unpacked: Path) -> zipfile.ZipFile:
    """Built from the source distribution, not from this tree."""
    return zipfile.ZipFile(build(unpacked, "wheel", unpacked.parent / "wheels"))


def test_the_source_distribution_is_complete(unpacked: Path) -> None:
    def files(root: Path) -> set[str]:
        return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}

    missing = files(unpacked.parent / "tree") - files(unpacked)
    assert not {name for name in missing if ".egg-info" not in name and "__pycache__" not in name}
    if (ROOT / ".git").exists():
        listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
        assert not {name for name in listed.stdout.split() if (ROOT / name).exists()} - files(unpacked)


def test_tests_run_from_the_source_distribution(unpacked: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "PYTHON"))}
    command = [sys.executable, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_config.py",
               "tests/register/test_quorum.py"]
    done = subprocess.run(command, cwd=unpacked, env=environment, capture_output=True, text=True, timeout=120,
                          check=False)
    assert done.returncode == 0 and re.search(r"\d+ passed", done.stdout), done.stdout + done.stderr


def test_what_is_in_the_wheel(wheel: zipfile.ZipFile) -> None:
    names = wheel.namelist()
    for name in ("dsreg/py.typed", "dsreg/testing/__init__.py", "dsreg/testing/memory_client.py", "dsreg/cli/node.py"):
        assert name in names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"dsreg", "fuse_frontend", "nbd_frontend"}
    [metadata] = [wheel.read(name).decode() for name in names if name.endswith("/METADATA")]
    head = metadata.split("\n\n")[0].splitlines()
    assert "License-Expression: MIT" in head and "License-File: LICENSE" in head
    assert not [line for line in head if line.startswith(("License:", "Classifier: License"))]
    assert any(name.endswith("/licenses/LICENSE") for name in names)
    [scripts] = [wheel.read(name).decode() for name in names if name.endswith("/entry_points.txt")]
    assert "dsreg = dsreg.cli:main" in scripts and "dsreg-fuse = fuse_frontend.cli:run" in scripts
    assert "dsreg-nbd = nbd_frontend.cli:run" in scripts


def test_the_front_door_of_the_wheel(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    wheel.extractall(tmp_path)
    code = """
import dsreg, sys
assert "trio" not in sys.modules, "a node imports this before it has bound its port"
from dsreg import Client, BlockingClient, Attach, load_config
assert dsreg.__file__.startswith(sys.argv[1]) and dsreg.__version__
help(dsreg)
"""
    done = subprocess.run([sys.executable, "-P", "-c", code, str(tmp_path)], capture_output=True, text=True,
                          timeout=60, env={**os.environ, "PYTHONPATH": str(tmp_path)}, check=False)
    assert done.returncode == 0, done.stderr
    assert f"VERSION\n    {dsreg.__version__}\n" in done.stdout
    for name in set(dsreg.__all__) - {"__version__"}:
        assert re.search(rf"\b{name}\b", done.stdout), name
    assert "class Client(" in done.stdout and "async with Client(load_config(path)) as client" in done.stdout


def test_the_fake_client_is_as_documented() -> None:
    page = (ROOT / "docs" / "client.md").read_text()
    code = re.search(r"## Tests of your own.*?```python\n(.*?)```", page, re.DOTALL)
    assert code is not None
    done = subprocess.run([sys.executable, "-P", "-c", code[1]], capture_output=True, text=True, timeout=60,
                          check=False, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert (done.returncode, done.stdout) == (0, "b'hello'\n"), done.stderr
    for method in ("read", "write"):
        assert inspect.signature(getattr(MemoryClient, method)).parameters.keys() <= inspect.signature(
            getattr(Client, method)).parameters.keys()


def test_every_name_of_the_front_door_is_there() -> None:
    assert set(dsreg.__all__) <= set(dir(dsreg))
    for name in dsreg.__all__:
        assert getattr(dsreg, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        dsreg.nonsense  # noqa: B018
