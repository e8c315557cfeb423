"""`dsreg debug bundle`: what is in it with a node down, and that no key and no data of the disk is."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import subprocess
import tarfile
import time
from pathlib import Path

import pytest

from dsreg.cli.debug import Bundle
from dsreg.cli.debug_parts import Missing, Secrets, configuration, recent
from dsreg.config import create_cluster, load_config
from dsreg.config.keys import write_new
from tests.node_processes import Nodes
from tests.processes.cluster import free_addresses

HOUR_S = 3600.0


def line(age_s: float, text: str) -> str:
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(time.time() - age_s))}.123Z WARNING fuse dsreg.x: {text}\n"


def members_of(path: Path) -> dict[str, bytes]:
    """Without the directory that all are in."""
    with tarfile.open(path) as tar:
        names = tar.getnames()
        [top] = {name.split("/")[0] for name in names}
        assert all(tar.getmember(name).mode == 0o600 for name in names)
        files = ((name, tar.extractfile(name)) for name in names)
        return {name.removeprefix(f"{top}/"): file.read() for name, file in files if file is not None}


def test_of_a_cluster_with_a_node_down(tmp_path: Path, dsreg: list[str]) -> None:
    sector = b"neither this nor that is to be told " * 100
    addresses = free_addresses(3)
    file = create_cluster(tmp_path / "cluster", 1 << 20, [f"{host}:{port}" for host, port in addresses])
    host = addresses[0][0]
    served = f'metrics = "{host}"\nmetrics_token_file = "t"'
    file.write_text(file.read_text().replace("[cluster]", f'[cluster]\n{served}', 1))
    token = "correct-horse-battery-staple"
    write_new(file.parent / "t", token.encode(), 0o600)
    with contextlib.closing(Nodes(load_config(file), tmp_path / "nodes.log")) as nodes:
        nodes.start(1, 2, 3)
        subprocess.run([*dsreg, "write", "-c", str(file), "--timeout", "30", "0"], input=sector.ljust(4096, b"."),
                       check=True, timeout=60)
        nodes.kill(3)
        log = tmp_path / "edge.log"
        keys = [nodes.config.client_key.hex(), nodes.config.system_key.hex().upper()]
        told = f"a fault with {keys[0]}, {keys[1]}, {token}"
        log.write_text(line(2 * HOUR_S, "long ago") + line(60, told) + "  more\n")
        made = tmp_path / "bundle.tar.gz"
        command = [*dsreg, "debug", "bundle", str(made), "-c", str(file), "--log", str(log)]
        done = subprocess.run([*command, "--log", str(tmp_path / "none")], capture_output=True, text=True, timeout=60,
                              check=True)
        again = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert again.returncode == 2 and "exists" in again.stderr
    assert made.stat().st_mode & 0o777 == 0o600
    found = members_of(made)
    manifest = json.loads(found["manifest.json"])
    missing = {entry["name"]: entry["reason"] for entry in manifest["not_collected"]}
    assert missing["status.json: node 3"] == "connection refused" and "metrics-3.txt" in missing
    assert missing[f"logs{tmp_path}/none"].endswith("No such file or directory")
    told = {f"dsreg: not collected: {name}: {reason}" for name, reason in missing.items()}
    assert told == {*done.stderr.splitlines()}
    assert {entry["name"]: entry["sha256"] for entry in manifest["files"]} == {
        name: hashlib.sha256(content).hexdigest() for name, content in found.items() if name != "manifest.json"}
    status = json.loads(found["status.json"])
    assert [node["answers"] for node in status["nodes"]] == [True, True, False] and status["quorum"] is True
    assert json.loads(found["health.json"])["health"] == "degraded"
    assert b'dsreg_build_info{rank="1"' in found["metrics-1.txt"]
    assert b"[[node]]" in found["cluster.toml"] and b"client_key_file" in found["cluster.toml"]
    assert b"\ntrio " in found["packages.txt"] and b"kernel: Linux" in found["machine.txt"]
    assert b"journal.0" in found["storage-1.txt"]
    assert found[f"logs{log}"].endswith(b": a fault with <removed>, <removed>, <removed>\n  more\n")
    assert b"long ago" not in found[f"logs{log}"]
    for key in (nodes.config.client_key, nodes.config.system_key):
        for form in (key, key.hex().encode(), key.hex().upper().encode(), base64.b64encode(key)):
            assert not [name for name, content in found.items() if form in content]
    assert not [name for name, content in found.items() if token.encode() in content]
    assert not [name for name, content in found.items() if b"is to be told" in content]


def test_without_a_configuration_that_can_be_used(tmp_path: Path, dsreg: list[str]) -> None:
    file = tmp_path / "cluster.toml"
    file.write_text('[cluster]\nsize = "1MiB"\nclient_key = "5a5a5a"\nnonsense = 1\n')
    made = tmp_path / "bundle.tar"
    done = subprocess.run([*dsreg, "debug", "bundle", str(made), "-c", str(file)], capture_output=True, text=True,
                          timeout=60, check=True)
    found = members_of(made)
    assert b"nonsense" in found["configuration-faults.txt"] and b"5a5a5a" not in b"".join(found.values())
    assert "not collected: status.json: there is no configuration that can be used" in done.stderr
    done = subprocess.run([*dsreg, "debug", "bundle", str(file)], capture_output=True, text=True, timeout=60,
                          check=False)
    assert done.returncode == 2 and f"-c {file}" in done.stderr


def test_what_must_not_be_passed_on_is_removed(tmp_path: Path) -> None:
    (tmp_path / "web.token").write_text("correct-horse-battery\n")
    text = '[cluster]\nweb_token_file = "web.token"\npassword = "hunter2"\nsize = "1MiB"\n'
    secrets = Secrets.of(tmp_path / "cluster.toml", text)
    assert secrets.removed_from(b"a correct-horse-battery, hunter2") == b"a <removed>, <removed>"
    assert secrets.removed_from(b"=" + b"0f" * 32 + b"; " + b"0f" * 16) == b"=<removed>; " + b"0f" * 16
    shown = configuration(text, "")
    assert 'web_token_file = "web.token"' in shown and 'password = "<removed>"' in shown and "hunter2" not in shown
    made = Bundle(secrets)
    made.collect("a\n\udcffb", lambda: "hunter2")
    assert made.parts == [("a??b", b"<removed>")]


def test_a_log_of_the_last_hour(tmp_path: Path) -> None:
    log = tmp_path / "log"
    as_json = line(5, "")[:24]
    log.write_text("no stamp\n" + line(2 * HOUR_S, "old") + line(10, "new") + f'{{"time": "{as_json}", "level": 1}}\n')
    assert recent(log, time.time() - HOUR_S).splitlines()[0].endswith(b": new")
    assert recent(log, time.time() - 7).startswith(b'{"time"')
    with pytest.raises(Missing, match="last hour"):
        recent(log, time.time())
