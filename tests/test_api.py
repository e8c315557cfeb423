"""The public API: docs/api.md has each name and signature of it, and `mypy --strict` checks programs against it."""

from __future__ import annotations

import ast
import inspect
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

import dsreg
from dsreg import errors
from tests.test_packaging import MADE, ROOT, build

PAGE = (ROOT / "docs" / "api.md").read_text()
SECTIONS = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))

CONSUMER = '''
from pathlib import Path

import trio

from dsreg import (
    Attach, BlockDevice, BlockingClient, Client, ClusterConfig, DsregError, NodeConfig, __version__, load_config,
    run_register_process,
)
from dsreg.errors import ClientError, Outcome


async def main(path: Path) -> int:
    config: ClusterConfig = load_config(path, need_system_key=False)
    async with Client(config, timeout_s=3.0, attach=Attach(name="here")) as client:
        epoch: int = await client.attached()
        await client.write(7, memoryview(bytes(4096)))
        data: bytes = await client.read(7)
        device = BlockDevice(client)
        reveal_type(device.size)
        reveal_type((await client.status(rank=1, timeout_s=1.0))["rank"])
        async with trio.open_nursery() as nursery:
            await nursery.start(run_register_process, NodeConfig(config, 1, path))
    with BlockingClient(config) as other:
        try:
            other.write(0, data)
        except ClientError as error:
            is_safe: bool = error.outcome is Outcome.DID_NOT_HAPPEN
            print(is_safe)
        except DsregError:
            raise
    print(__version__.upper())
    return epoch
'''
# What is wrong, and has to be found: else everything would be Any.
WRONG = '''
from dsreg import Attach, Client, load_config


async def main() -> str:
    client = Client(load_config("a"), timeout="3")
    await client.write("7", b"")
    Attach("here")
    return await client.read(7)
'''


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of an environment in which the wheel is installed, beside what is in this one."""
    base = tmp_path_factory.mktemp("consumer")
    shutil.copytree(ROOT, base / "tree", ignore=MADE, symlinks=True)
    wheel = build(base / "tree", "wheel", base / "wheels")
    venv.create(base / "venv", with_pip=False)
    [site] = (base / "venv" / "lib").glob("python*/site-packages")
    zipfile.ZipFile(wheel).extractall(site)
    (site / "others.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return base / "venv" / "bin" / "python"


def check(python: Path, directory: Path, program: str) -> list[str]:
    """What mypy says of `program`."""
    (directory / "program.py").write_text(program)
    command = [sys.executable, "-m", "mypy", "--strict", "--python-executable", str(python), "--no-error-summary",
               "--cache-dir", str(python.parents[2] / "cache"), "program.py"]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode in (0, 1), done.stderr
    return done.stdout.splitlines()


@pytest.mark.slow
def test_programs_are_checked_against_it(python: Path, tmp_path: Path) -> None:
    pytest.importorskip("mypy", reason="mypy is not installed: pip install -e '.[lint]'")
    said = check(python, tmp_path, CONSUMER)
    revealed = [re.fullmatch(r'program\.py:\d+: note: Revealed type is "(?:builtins\.)?(\w+)"', line) for line in said]
    assert [found and found[1] for found in revealed] == ["int", "Any"], said
    wrong = WRONG.splitlines()
    said = check(python, tmp_path, WRONG)
    found = {wrong[int(line.split(":")[1]) - 1].strip() for line in said if ": error: " in line}
    assert found == {*map(str.strip, wrong[5:])}, said


def test_each_name_is_on_the_page() -> None:
    assert set(SECTIONS) == set(dsreg.__all__) - {"__version__"} and "`__version__`" in PAGE
    linked = re.findall(r"^\| \[.*", PAGE, re.MULTILINE)
    assert set(re.findall(r"\[(\w+)\]\(#", "\n".join(linked))) == set(SECTIONS)


def signatures(section: str) -> dict[str, ast.arguments | None]:
    """By name, of the code block of `section`: what is called, and None for what is read. "" is the section's name."""
    found = {}
    [block] = re.findall(r"```python\n(.*?)```", SECTIONS[section], re.DOTALL)
    for line in block.splitlines():
        kind = re.fullmatch(r"\s*(?:class|(?:async )?def) (\w+)(?:\((.*?)\))?(?: -> .*)?", line)
        if kind is None:
            found[line.strip().partition(":")[0]] = None
        elif kind[2] is not None:
            text = kind[2].replace(", ...", "")
            [function] = ast.parse(f"def f({text}): pass").body
            assert isinstance(function, ast.FunctionDef)
            found["" if kind[1] == section else kind[1]] = function.args
    return found


@pytest.mark.parametrize("name", sorted(SECTIONS))
def test_signatures_on_the_page_are_those_of_the_code(name: str) -> None:
    real = getattr(dsreg, name)
    if real is errors.DsregError:
        return
    for member, arguments in signatures(name).items():
        if arguments is None:
            assert hasattr(real, member) or f"self.{member}: " in inspect.getsource(real), member
            continue
        parameters = inspect.signature(getattr(real, member) if member else real).parameters
        names = [parameter for parameter in parameters if parameter != "self"]
        told = [argument.arg for argument in (*arguments.args, *arguments.kwonlyargs)]
        assert told == names[:len(told)], member
        assert len(told) == len(names) or ", ...)" in SECTIONS[name], member
        for argument, default in zip(arguments.args[::-1], arguments.defaults[::-1], strict=False):
            if not (isinstance(default, ast.Constant) and default.value is ...):
                assert parameters[argument.arg].default == ast.literal_eval(default), argument.arg


def test_each_error_is_on_the_page() -> None:
    raised = {name for name, kind in vars(errors).items() if inspect.isclass(kind) and issubclass(kind, Exception)}
    assert raised <= set(re.findall(r"\w+", SECTIONS["DsregError"] + "DsregError"))
    for names, base in re.findall(r"^\| (.*?) \| (\w+) \|", SECTIONS["DsregError"], re.MULTILINE):
        for name in re.findall(r"`(\w+)`", names):
            assert getattr(errors, name).__bases__ == (getattr(errors, base),), name
