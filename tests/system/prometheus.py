"""Debian's Prometheus and promtool, as processes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Collection
from pathlib import Path
from typing import Any, Self

from tests.fuse.tools import ROOT, wait_until
from tests.processes.cluster import free_addresses

# Where scripts/prometheus.sh puts them.
PATH = f"{os.environ['PATH']}:{ROOT / 'build' / 'prometheus' / 'usr' / 'bin'}"
LIMIT_S = 120.0


def promtool(*arguments: str | Path, text: str = "") -> str:
    """What it says; an AssertionError if it finds a fault. `text`: its standard input."""
    program = shutil.which("promtool", path=PATH)
    assert program, "make test-system fetches it"
    done = subprocess.run([program, *map(str, arguments)], input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and not done.stderr, done
    return done.stdout


class Prometheus:
    """A server, as long as the block lasts."""

    def __init__(self, config: Path, directory: Path) -> None:
        program = shutil.which("prometheus", path=PATH)
        assert program, "make test-system fetches it"
        [(host, port)] = free_addresses(1)
        self._url = f"http://{host}:{port}"
        self._log = directory / "prometheus.log"
        self._command = [program, f"--config.file={config}", f"--storage.tsdb.path={directory / 'tsdb'}",
                         f"--web.listen-address={host}:{port}"]

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        wait_until(self._is_ready, "Prometheus", LIMIT_S)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()
        print(self._log.read_text(errors="replace")[-4000:])

    def _is_ready(self) -> bool:
        assert self._process.poll() is None, self._log.read_text(errors="replace")
        try:
            return bool(urllib.request.urlopen(f"{self._url}/-/ready", timeout=LIMIT_S).status == 200)
        except urllib.error.URLError:
            return False

    def _get(self, path: str) -> Any:
        with urllib.request.urlopen(f"{self._url}/api/v1/{path}", timeout=LIMIT_S) as answer:
            found = json.load(answer)
        assert found["status"] == "success", found
        return found["data"]

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Labels and value of each sample at this moment. An HTTPError if it is no expression."""
        found = self._get("query?" + urllib.parse.urlencode({"query": expression}))
        return [(sample["metric"], float(sample["value"][1])) for sample in found["result"]]

    def value(self, expression: str) -> float | None:
        """Of the one sample; None if there is none."""
        samples = self.query(expression)
        assert len(samples) <= 1, samples
        return samples[0][1] if samples else None

    def firing(self, but: Collection[str] = ()) -> dict[str, list[str]]:
        """Names of alerts, and the instances that they are about. `but`: those that do not matter."""
        found: dict[str, list[str]] = {}
        for alert in self._get("alerts")["alerts"]:
            if alert["state"] == "firing" and alert["labels"]["alertname"] not in but:
                found.setdefault(alert["labels"]["alertname"], []).append(alert["labels"].get("instance", ""))
        return found

    def is_scraped(self, *instances: str) -> bool:
        """Whether all of these answer."""
        health = {target["labels"]["instance"]: target["health"] for target in self._get("targets")["activeTargets"]}
        return all(health.get(instance) == "up" for instance in instances)
