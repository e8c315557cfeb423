"""The commands without a cluster: what they create, refuse, print and exit with."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from dsreg.cli import cli
from dsreg.cli.faults import EXIT_CONFIG, EXIT_FAILED, EXIT_NO_QUORUM, describe, exit_code, operating_errors
from dsreg.config import load_config
from dsreg.errors import ConfigError, OperationTimeout, Outcome, OutOfRange, StorageError, WrongDisk
from dsreg.version import described_version
from tests.cli.terminal import run_on_terminal

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = ["init", "node", "up", "read", "write", "status", "wait", "bench", "completion"]


@pytest.fixture(autouse=True)
def no_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test finds the configuration of the machine it runs on."""
    monkeypatch.delenv("DSREG_CONFIG", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "none"))
    monkeypatch.setattr("dsreg.config.load.SYSTEM_CONFIG", tmp_path / "none.toml")


def run(*arguments: str | Path, data: bytes | None = None) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments], input=data, prog_name="dsreg")


def init(directory: Path, *options: str) -> Path:
    """Its nodes do not run; what else runs on this host may be at the default addresses."""
    hosts = () if "--host" in options else [word for last in (1, 2, 3) for word in ("--host", f"127.201.0.{last}")]
    result = run("init", directory, "--size", "64KiB", *hosts, *options)
    assert result.exit_code == 0, result.output
    return directory / "cluster.toml"


def test_help_names_every_command_and_exit_code() -> None:
    result = run("--help")
    assert result.exit_code == 0
    for name in COMMANDS:
        assert re.search(rf"^  {name} ", result.output, re.MULTILINE)
    for code in ("0 +done", "1 +the operation failed", "2 +wrong usage, configuration or key", "3 +no quorum", "130 +"):
        assert re.search(f"^  +{code}", result.output, re.MULTILINE)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_has_help(name: str) -> None:
    result = run(name, "--help")
    assert result.exit_code == 0
    command = cli.get_command(click.Context(cli), name)
    assert command is not None and command.get_short_help_str()
    for parameter in command.params:
        if isinstance(parameter, click.Option) and not parameter.hidden:
            assert parameter.help or parameter.name == "pattern" or parameter.name == "seconds"


def test_version() -> None:
    assert run("--version").output == f"dsreg, version {described_version()}\n"


@pytest.mark.parametrize("arguments", [["nonsense"], ["read"], ["read", "x"], ["node", "--rank", "0"], ["init"]])
def test_wrong_usage_exits_with_2(arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.exit_code == EXIT_CONFIG and "Traceback" not in result.output


def test_init_creates_what_the_others_read(tmp_path: Path) -> None:
    result = run("init", tmp_path / "c", "--nodes", "5", "--size", "1MiB", "--base-port", "9000")
    assert result.exit_code == 0
    config = load_config(tmp_path / "c" / "cluster.toml")
    assert config.sectors == 256 and [n.port for n in config.nodes] == [9000, 9001, 9002, 9003, 9004]
    assert {n.host for n in config.nodes} == {"127.0.0.1"}
    for command in ("dsreg up ", "dsreg status ", "dsreg-fuse --config "):
        assert f"{command}{tmp_path}/c/cluster.toml" in result.output
    for name in ("client.key", "system.key"):
        key = (tmp_path / "c" / name).read_text().strip()
        assert key not in result.output


def test_init_for_real_hosts(tmp_path: Path) -> None:
    path = init(tmp_path / "c", "--host", "a.example", "--host", "b.example:7100", "--host", "fe80::1")
    assert [n.address for n in load_config(path).nodes] == ["a.example:7001", "b.example:7100", "[fe80::1]:7001"]
    result = run("init", tmp_path / "d", "--host", "a", "--host", "b")
    assert "b: dsreg node --config" in result.output and "--rank 2" in result.output


@pytest.mark.parametrize(("options", "warnings"), [
    (["--nodes", "4"], ["4 nodes survive the loss of 1, as 3 do"]),
    (["--nodes", "2", "--host", "a", "--host", "b"], ["2 nodes survive the loss of 0"]),
    (["--host", "a", "--host", "b", "--host", "a"], ["the nodes 1, 3 are all on a"]),
    (["--host", "a", "--host", "b", "--nodes", "4"], ["4 nodes", "1, 3 are all on a", "2, 4 are all on b"]),
    (["--nodes", "3"], []),
])
def test_init_warns(tmp_path: Path, options: list[str], warnings: list[str]) -> None:
    result = run("init", tmp_path / "c", *options)
    lines = [line for line in result.stderr.splitlines() if line]
    assert result.exit_code == 0 and len(lines) == len(warnings)
    for line, warning in zip(lines, warnings, strict=True):
        assert line.startswith("dsreg: warning: ") and warning in line


@pytest.mark.parametrize(("options", "expected"), [
    (["--host", "0.0.0.0"], "nobody can connect to it"),
    (["--host", "[::]"], "nobody can connect to it"),
    (["--host", "10.1"], "no IPv4 address"),
    (["--size", "5000"], "multiple of 4096"),
    (["--size", "1GB"], "did you mean GiB?"),
    (["--nodes", "0"], "--nodes"),
    (["--nodes", "300"], "--nodes"),
    (["--nodes", "1", "--host", "a", "--host", "b"], "leave --nodes out"),
    (["--host", "a b"], "is not an address"),
])
def test_init_refuses(tmp_path: Path, options: list[str], expected: str) -> None:
    result = run("init", tmp_path / "c", *options)
    assert result.exit_code == EXIT_CONFIG and expected in result.output
    assert not (tmp_path / "c").exists()


def test_init_never_overwrites(tmp_path: Path) -> None:
    path = init(tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    result = run("init", tmp_path)
    assert result.exit_code == EXIT_CONFIG and f"{path}: exists already" in result.output
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


@pytest.mark.parametrize("command", [
    ["status"], ["up"], ["bench", "--mix", "100"], ["read", "0"], ["node", "--rank", "1"]])
def test_no_configuration_anywhere(command: list[str]) -> None:
    result = run(*command)
    assert result.exit_code == EXIT_CONFIG
    assert result.output.startswith("dsreg: no configuration found; name one with --config")


def test_all_faults_of_a_configuration_one_line_each(tmp_path: Path) -> None:
    path = init(tmp_path)
    path.write_text(path.read_text().replace("rank = 1", "rank = 9").replace("size =", "sise ="))
    result = run("status", path)
    assert result.exit_code == EXIT_CONFIG
    lines = result.output.splitlines()
    assert len(lines) == 3 and all(line.startswith(f"dsreg: {path}: ") for line in lines)


def test_two_different_configurations_are_too_many(tmp_path: Path) -> None:
    result = run("status", tmp_path / "a", "--config", tmp_path / "b")
    assert result.exit_code == EXIT_CONFIG and "both named" in result.output


def test_node_refuses_a_rank_or_journal_that_cannot_be(tmp_path: Path) -> None:
    path = init(tmp_path)
    for listen in ("7001", "0.0.0.0", "a:b"):
        result = run("node", "--config", path, "--rank", "1", "--storage", tmp_path / "s", "--listen", listen)
        assert result.exit_code == EXIT_CONFIG and "Invalid value for '--listen'" in result.output
    result = run("node", "--config", path, "--rank", "4", "--storage", tmp_path / "s", "--journal-size", "1MiB")
    assert result.exit_code == EXIT_CONFIG
    assert "rank 4: not in" in result.output and "journal of 1048576 bytes" in result.output
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("days", ["nan", "inf", "-1", "3651", "x"])
def test_node_refuses_days_of_a_scrub_that_cannot_be(tmp_path: Path, days: str) -> None:
    result = run("node", "--config", init(tmp_path), "--rank", "1", "--storage", tmp_path / "s", "--scrub-days", days)
    assert result.exit_code == EXIT_CONFIG and "Invalid value for '--scrub-days'" in result.output
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(("arguments", "data", "expected"), [
    (["read", "16"], b"", "sectors 16..16 reach beyond the disk, which has the sectors 0..15"),
    (["read", "1", "16"], b"", "sectors 1..16 reach beyond"),
    (["read", "0", "0"], b"", "COUNT"),
    (["write", "16"], b"", "reach beyond"),
    (["bench"], b"", "confirm with --yes"),
    (["bench", "--yes", "--block-size", "2MiB"], b"", "4KiB to 1MiB"),
    (["bench", "--yes", "--block-size", "5000"], b"", "multiple of 4KiB"),
    (["bench", "--yes", "--span", "1MiB"], b"", "at most the disk (64KiB)"),
    (["bench", "--yes", "--span", "4KiB", "--block-size", "8KiB"], b"", "at least one block"),
])
def test_what_cannot_be_is_refused_before_anything_is_sent(
    tmp_path: Path, arguments: list[str], data: bytes, expected: str
) -> None:
    result = run(*arguments, "--config", init(tmp_path), data=data)
    assert result.exit_code == EXIT_CONFIG and expected in result.output


@pytest.mark.parametrize(("size", "code", "expected"), [
    (4097, EXIT_FAILED, "multiple of 4096"),
    (17 * 4096, EXIT_CONFIG, "reach beyond the disk"),
    (0, EXIT_FAILED, "dsreg: nothing to write: standard input is empty"),
])
def test_a_file_that_does_not_fit_is_refused_before_anything_is_written(
    tmp_path: Path, size: int, code: int, expected: str, dsreg: list[str]
) -> None:
    path, source = init(tmp_path), tmp_path / "data"
    source.write_bytes(bytes(size))
    with source.open("rb") as stdin:
        done = subprocess.run([*dsreg, "write", "0", "--config", path], stdin=stdin, capture_output=True, text=True,
                              timeout=60, check=False)
    assert done.returncode == code and expected in done.stderr


def test_nothing_to_write(tmp_path: Path, dsreg: list[str]) -> None:
    done = subprocess.run([*dsreg, "write", "0", "--config", init(tmp_path)], stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == EXIT_FAILED and done.stderr == "dsreg: nothing to write: standard input is empty\n"


@pytest.mark.parametrize("command", ["read", "write"])
def test_a_configuration_in_the_place_of_a_sector(command: str) -> None:
    result = run(command, "cluster.toml", "5")
    assert result.exit_code == EXIT_CONFIG and "a configuration is named with -c cluster.toml" in result.output


@pytest.mark.parametrize(("command", "redirections", "code", "said"), [
    ("read 0 --timeout 0.1", ">&-", EXIT_NO_QUORUM, "not done within"),
    ("write 0", "<&-", EXIT_FAILED, "dsreg: stdin: Bad file descriptor\n"),
    ("status --timeout 0.1", "<&- >&-", EXIT_FAILED, "dsreg: stdout: Bad file descriptor\n"),
    ("completion bash", ">&-", EXIT_FAILED, "dsreg: stdout: Bad file descriptor\n"),
    ("init other", ">&-", EXIT_FAILED, "dsreg: stdout: Bad file descriptor\n"),
    ("--help", ">&-", EXIT_FAILED, "dsreg: stdout: Bad file descriptor\n"),
    ("--version", "> /dev/full", EXIT_FAILED, "dsreg: stdout: No space left on device\n"),
    ("status --timeout 0.1", "> /dev/full", EXIT_FAILED, "dsreg: stdout: No space left on device\n"),
    ("read 99", "2>&-", EXIT_CONFIG, ""),
    ("--help", "2>&-", 0, ""),
])
def test_closed_and_full_standard_files(
    tmp_path: Path, command: str, redirections: str, code: int, said: str, dsreg: list[str],
    monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is printed and does not arrive is an error, and no descriptor of a closed file is taken by another one."""
    monkeypatch.setenv("DSREG_CONFIG", str(init(tmp_path, "--base-port", "1")))  # nobody listens there
    shell = ["sh", "-c", f'"$@" {command} {redirections}', "sh", *dsreg]
    done = subprocess.run(shell, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False,
                          cwd=tmp_path)
    assert done.returncode == code and "Traceback" not in done.stderr
    assert said in done.stderr and done.stderr.count("\n") <= 1


def test_a_reader_that_has_had_enough(tmp_path: Path, dsreg: list[str]) -> None:
    shell = ["bash", "-c", '"$@" --help | true; exit ${PIPESTATUS[0]}', "sh", *dsreg]
    done = subprocess.run(shell, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode in (0, EXIT_FAILED) and done.stderr == ""


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "0", "-1", "x"])
@pytest.mark.parametrize("command", [
    ["read", "0", "--timeout"], ["write", "0", "--timeout"], ["status", "--timeout"], ["bench", "--timeout"],
    ["bench", "--seconds"]])
def test_a_time_is_a_number_above_zero(command: list[str], value: str) -> None:
    result = run(*command, value)
    assert result.exit_code == EXIT_CONFIG and f"Invalid value for '{command[-1]}'" in result.output


def test_binary_data_is_not_for_terminals(tmp_path: Path, dsreg: list[str]) -> None:
    code, output = run_on_terminal([*dsreg, "read", "0", "-c", str(init(tmp_path))], 80)
    assert code == EXIT_CONFIG and "stdout is a terminal" in output
    code, output = run_on_terminal([*dsreg, "write", "0", "-c", str(tmp_path / "cluster.toml")], 80)
    assert code == EXIT_CONFIG and "stdin is a terminal" in output


def test_ctrl_c_ends_with_130(tmp_path: Path, dsreg: list[str]) -> None:
    assert run("init", tmp_path, "--base-port", "1").exit_code == 0  # nobody listens there
    # The command is at work once it reads from the pipe.
    command = [*dsreg, "write", "0", "--config", str(tmp_path / "cluster.toml"), "--force"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stderr is not None
        process.stdin.write(bytes(2 << 20))  # more than the pipe holds: it has read some
        process.stdin.flush()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 130
        assert process.stderr.read() == b"\n", "the prompt begins on a line of its own"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str) -> None:
    result = run("completion", shell)
    assert result.exit_code == 0 and "_DSREG_COMPLETE" in result.output


@pytest.mark.parametrize(("program", "words", "expected"), [
    ("dsreg", "dsreg st", "status"), ("dsreg", "dsreg health --ra", "--rank"),
    ("dsreg-fuse", "dsreg-fuse --det", "--detach"), ("dsreg-fuse", "dsreg-fuse --on-quorum-loss e", "eio"),
    ("dsreg-nbd", "dsreg-nbd --mul", "--multi-conn"), ("dsreg-nbd", "dsreg-nbd --tls r", "require")])
def test_completion_in_a_shell(tmp_path: Path, program: str, words: str, expected: str) -> None:
    """bash itself, with the script that we print and the programs as they are installed."""
    for name, module in (("dsreg", "dsreg"), ("dsreg-fuse", "fuse_frontend.cli"), ("dsreg-nbd", "nbd_frontend.cli")):
        script = tmp_path / name
        script.write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" -m {module} "$@"\n')
        script.chmod(0o755)
    ask = f"""
source <(dsreg completion bash {program})
COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
function=$(complete -p {program} | grep -o -- '-F [a-z_]*' | cut -c4-)
$function {program} "${{COMP_WORDS[COMP_CWORD]}}" ""
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    done = subprocess.run(["bash", "-c", ask], capture_output=True, text=True, timeout=30, check=True,
                          env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"})
    assert expected in done.stdout.split(), done


def test_completion_knows_commands_and_options() -> None:
    environment = {"_DSREG_COMPLETE": "bash_complete", "COMP_WORDS": "dsreg st", "COMP_CWORD": "1"}
    result = CliRunner(env=environment).invoke(cli, [], prog_name="dsreg")
    assert "status" in result.output


def test_errors_and_their_exit_codes() -> None:
    timeout = OperationTimeout("late", Outcome.DID_NOT_HAPPEN)
    group = BaseExceptionGroup("g", [BaseExceptionGroup("h", [timeout, timeout])])
    errors = operating_errors(group)
    assert errors is not None and exit_code(errors) == EXIT_NO_QUORUM
    assert describe(errors) == ["late (the operation certainly did not happen)"]
    assert describe([WrongDisk("too small", Outcome.DID_NOT_HAPPEN)]) == ["too small"]
    assert exit_code([ConfigError(["a", "b"])]) == EXIT_CONFIG and describe([ConfigError(["a", "b"])]) == ["a", "b"]
    assert exit_code([StorageError("x")]) == exit_code([OutOfRange("x", Outcome.DID_NOT_HAPPEN)]) == EXIT_FAILED
    assert describe([FileNotFoundError(2, "No such file", "/a")]) == ["/a: No such file"]
    assert operating_errors(BaseExceptionGroup("g", [timeout, AssertionError()])) is None, "a bug keeps its traceback"
    with pytest.raises(KeyboardInterrupt):
        operating_errors(BaseExceptionGroup("g", [KeyboardInterrupt(), timeout]))
