"""What lies in deploy/ is accepted by those who will read it, and agrees with the program."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from dsreg.config import load_config
from dsreg.constants import CLIENT_KEY_SIZE, SYSTEM_KEY_SIZE

DEPLOY = Path(__file__).resolve().parent.parent / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
# Settings that give a unit a mount namespace of its own, in which a mount is seen by nobody else.
NAMESPACES = ("ProtectSystem", "ProtectHome", "PrivateTmp", "PrivateDevices", "PrivateMounts", "ProtectKernelTunables",
              "ProtectKernelModules", "ProtectKernelLogs", "ProtectControlGroups", "ProtectProc", "ProcSubset",
              "ReadWritePaths", "ReadOnlyPaths", "InaccessiblePaths", "BindPaths", "TemporaryFileSystem",
              "DynamicUser", "RootDirectory")


def settings(unit: Path) -> dict[str, list[str]]:
    """Every `Name=value` of a unit, in order."""
    found: dict[str, list[str]] = {}
    for name, value in re.findall(r"^(\w+)=(.*)$", unit.read_text(), re.MULTILINE):
        found.setdefault(name, []).append(value)
    return found


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    words = [str(word) for word in command]
    return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)


# --- configuration --------------------------------------------------------------------------------
def test_example_configuration_loads(tmp_path: Path) -> None:
    shutil.copy(DEPLOY / "cluster.toml", tmp_path)
    for name, size in (("client.key", CLIENT_KEY_SIZE), ("system.key", SYSTEM_KEY_SIZE)):
        (tmp_path / name).write_text("5a" * size)
        (tmp_path / name).chmod(0o600)
    config = load_config(tmp_path / "cluster.toml")
    assert [node.rank for node in config.nodes] == [1, 2, 3]
    assert config.sectors == 100 * (1 << 30) // 4096


# --- systemd --------------------------------------------------------------------------------------
def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    paths = []
    for unit in [*UNITS, *(DEPLOY / "systemd").glob("*.socket")]:
        # verify insists on programs that exist; ours are installed on the target host only.
        path = tmp_path / unit.name.replace("@.", "@1.")
        path.write_text(re.sub(r"/opt/dsreg/bin/\S+", "/bin/true", unit.read_text()))
        paths.append(path)
    done = run("systemd-analyze", "verify", "--man=no", *paths)
    ours = [line for line in done.stderr.splitlines() if "dsreg" in line]
    if done.returncode and not ours:
        pytest.skip(f"systemd-analyze does not work here: {done.stderr.strip()}")
    assert not ours


@pytest.mark.parametrize("name", ["dsreg-mount.service", "dsreg-loop.service"])
def test_mounting_units_stay_in_the_host_namespace(name: str) -> None:
    assert not set(settings(DEPLOY / "systemd" / name)) & set(NAMESPACES)


def test_units_stop_from_the_top_down() -> None:
    # Stopping is starting in reverse: what is started after another is stopped before it.
    loop = settings(DEPLOY / "systemd" / "dsreg-loop.service")
    assert loop["After"] == loop["Requires"] == ["dsreg-mount.service"]
    assert settings(DEPLOY / "systemd" / "dsreg-node@.service")["Before"] == ["dsreg-mount.service"]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_units_are_confined(unit: Path) -> None:
    found = settings(unit)
    assert found["NoNewPrivileges"] == ["yes"]
    assert "CapabilityBoundingSet" in found
    assert "SystemCallFilter" in found


def test_the_nbd_server_listens_where_its_socket_unit_does() -> None:
    """It is given nothing to listen on, so that it takes the sockets of systemd."""
    service = settings(DEPLOY / "systemd" / "dsreg-nbd.service")
    assert service["Requires"] == ["dsreg-nbd.socket"] and service["Type"] == ["notify"]
    assert not {"--socket", "--port"} & set(service["ExecStart"][0].split())
    streams = settings(DEPLOY / "systemd" / "dsreg-nbd.socket")
    assert streams["ListenStream"] == ["/run/dsreg/nbd.sock"] and streams["SocketMode"] == ["0600"]


@pytest.mark.parametrize("name", ["dsreg-node@.service", "dsreg-mount.service", "dsreg-nbd.service"])
def test_keys_are_credentials_and_faults_do_not_loop(name: str) -> None:
    found = settings(DEPLOY / "systemd" / name)
    if "mount" in name:  # a mount lives for long: it follows the key file itself, docs/keys.md
        assert "LoadCredential" not in found and "/etc/dsreg/cluster.toml" in found["ExecStart"][0]
    else:
        assert "client.key:/etc/dsreg/client.key" in found["LoadCredential"]
        assert ("system.key:/etc/dsreg/system.key" in found["LoadCredential"]) == ("node" in name)
        assert "%d/cluster.toml" in found["ExecStart"][0]
    assert found["Restart"] == ["on-failure"]
    assert found["RestartPreventExitStatus"] == ["2"]


@pytest.mark.parametrize("name", ["dsreg-node@.service", "dsreg-nbd.service"])
def test_a_token_for_metrics_can_be_a_credential(name: str) -> None:
    """As a comment: a unit does not start where the file of a credential is missing."""
    text = (DEPLOY / "systemd" / name).read_text()
    assert "\n#LoadCredential=metrics.token:/etc/dsreg/metrics.token\n" in text
    assert not [value for value in settings(DEPLOY / "systemd" / name)["LoadCredential"] if "token" in value]


def test_file_of_the_loop_device_is_the_one_that_is_mounted() -> None:
    mountpoint = settings(DEPLOY / "systemd" / "dsreg-mount.service")["ExecStart"][0].split()[-1]
    loop = (DEPLOY / "systemd" / "dsreg-loop.service").read_text()
    assert set(re.findall(r"\S+/disk\.img", loop)) == {f"{mountpoint}/disk.img"}


# --- containers -----------------------------------------------------------------------------------
def compose() -> dict[str, Any]:
    """The compose file as whoever is here reads it: docker compose, else a YAML parser."""
    path = DEPLOY / "compose.yaml"
    if shutil.which("docker") and run("docker", "compose", "version").returncode == 0:
        done = run("docker", "compose", "-f", path, "--profile", "tools", "config", "--format", "json")
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))
    yaml = pytest.importorskip("yaml", reason="neither `docker compose` nor PyYAML is installed")
    return dict(yaml.safe_load(path.read_text()))


def test_compose_gives_every_node_its_own_volume_and_address() -> None:
    services = compose()["services"]
    nodes = {name: service for name, service in services.items() if name.startswith("node")}
    assert len(nodes) == 3
    addresses = []
    for number, (name, node) in enumerate(sorted(nodes.items()), 1):
        assert node["command"][node["command"].index("--rank") + 1] == str(number)
        assert name in str(node["volumes"])
        addresses.append(node["networks"]["cluster"]["ipv4_address"])
    hosts = services["init"]["command"]
    assert [hosts[i + 1] for i, word in enumerate(hosts) if word == "--host"] == addresses


def test_containers_are_watched_and_do_not_restart_for_ever() -> None:
    from dsreg.cli import cli

    for number in (1, 2, 3):
        node = compose()["services"][f"node{number}"]
        assert re.fullmatch(r"on-failure:\d+", node["restart"])
        assert node["ulimits"]["memlock"] in (-1, {"soft": -1, "hard": -1}) and node["ulimits"]["nofile"]
        kind, line = node["healthcheck"]["test"]
        command, tolerance = line.replace("$$", "$").split(" || ")
        assert kind == "CMD-SHELL" and tolerance == "[ $? -eq 1 ]"
        words = shlex.split(command)
        assert words[0] == "dsreg" and words[-1] == str(number) and words[2] in node["command"]
        found = cli.get_command(cli.make_context("dsreg", words[1:]), words[1])
        assert found is not None
        found.make_context(words[1], words[2:])


def test_commands_of_the_containers_parse() -> None:
    from dsreg.cli import cli

    for name, service in compose()["services"].items():
        command, *arguments = service["command"]
        context = cli.make_context("dsreg", [command, *arguments])
        found = cli.get_command(context, command)
        assert found is not None, name
        found.make_context(command, list(arguments), parent=context)


# --- Docker ---------------------------------------------------------------------------------------
def test_the_image_with_fuse_is_built_with_what_setup_installs_for_it() -> None:
    """There is no Docker engine in the tests: what can be compared is."""
    stages = re.split(r"^FROM .* AS ", (DEPLOY / "Dockerfile").read_text(), flags=re.MULTILINE)[1:]
    by_name = {stage.split(maxsplit=1)[0]: stage for stage in stages}
    assert list(by_name) == ["build-fuse", "fuse", "node"], "what `docker build` makes by itself is the last one"
    setup = (DEPLOY.parent / "scripts" / "setup.sh").read_text()
    for package in ("gcc", "libfuse3-dev", "pkg-config"):
        assert f"echo {package}\n" in setup
        assert re.search(rf"apt-get install .*\b{package}\b", by_name["build-fuse"]), package
    assert "gcc" not in by_name["fuse"] + by_name["node"]
