"""Rules and dashboard in deploy/ name metrics, labels and sections of the runbook that there are.

That docs/metrics.md has the metrics as they are: tests/processes/test_metrics_reference.py. That Prometheus takes the
rules, and what they do: tests/system/test_prometheus.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from dsreg.config.metrics import BASE_PORT
from tests.metrics.reference import ROOT, documented

PROMETHEUS, DASHBOARD = ROOT / "deploy" / "prometheus", ROOT / "deploy" / "grafana" / "dashboard.json"
RULES, RULE_TESTS = PROMETHEUS / "dsreg.rules.yml", PROMETHEUS / "dsreg.rules.test.yml"
RUNBOOK = ROOT / "deploy" / "runbook.md"
SEVERITIES = {"critical", "warning", "notice"}
# Of the configuration in deploy/prometheus, and of Prometheus itself.
OF_THE_SCRAPER = {"cluster", "instance", "job", "le", "alertname", "alertstate", "severity"}
# A name with the labels that are matched.
_SELECTOR = re.compile(r"\b(dsreg[_:]\w+)(?:\{([^}]*)\})?")
_GROUPING = re.compile(r"\b(?:by|on) \(([^)]*)\)")


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def alerts() -> list[dict[str, Any]]:
    return [rule for rule in rules() if "alert" in rule]


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(DASHBOARD.read_text())["panels"]
    return found


def expressions() -> Iterator[tuple[str, str]]:
    """Whose it is, and what it says."""
    for rule in rules():
        yield rule.get("alert") or rule["record"], rule["expr"]
    for panel in panels():
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]
    for variable in json.loads(DASHBOARD.read_text())["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["name"], variable["query"]["query"]


def faults_of(expression: str) -> list[str]:
    """Metrics, and labels of them, that there are not."""
    series = {name: metric for metric in documented() for name in metric.series}
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    used = [found for found in _SELECTOR.finditer(expression) if found[1] not in recorded]
    faults = [found[1] for found in used if found[1] not in series]
    known = OF_THE_SCRAPER.union(*(series[found[1]].labels for found in used if found[1] in series))
    for found in used:
        own = OF_THE_SCRAPER.union(series[found[1]].labels) if found[1] in series else OF_THE_SCRAPER
        faults += [f"{found[1]}{{{label}}}" for label in re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", found[2] or "")
                   if label not in own]
    for grouped in _GROUPING.finditer(expression):
        faults += [f"by {label}" for label in re.split(r",\s*", grouped[1]) if label not in known]
    return faults


@pytest.mark.parametrize(("whose", "expression"), [*expressions()])
def test_what_is_named_there_is(whose: str, expression: str) -> None:
    assert _SELECTOR.search(expression) or "up{" in expression, whose
    assert not faults_of(expression)


@pytest.mark.parametrize("expression", [
    "dsreg_nothing > 0", "rate(dsreg_requests_unfinished_total[5m])", 'dsreg_health{node="1"}',
    "sum by (operation) (dsreg_life)", "dsreg_sync_duration_seconds > 1", "dsreg:nothing < 1",
])
def test_what_is_not_there_is_found(expression: str) -> None:
    assert faults_of(expression)


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert["alert"])
def test_an_alert_says_what_to_do(alert: dict[str, Any]) -> None:
    assert set(alert["labels"]) == {"severity"} and alert["labels"]["severity"] in SEVERITIES
    annotations = alert["annotations"]
    assert set(annotations) == {"summary", "description", "runbook"}
    assert annotations["summary"].endswith((".", "fail.")) and annotations["description"].endswith(".")
    assert f"\n## {annotations['runbook']}\n" in RUNBOOK.read_text()
    by_scraper = set(re.findall(r"\$labels\.(\w+)", str(annotations))) - {"operation", "check"}
    assert by_scraper <= OF_THE_SCRAPER
    assert re.search(rf'"{alert["alert"]}"', RULE_TESTS.read_text()), "no test has it fire"


def test_names_of_alerts_are_their_own() -> None:
    names = [alert["alert"] for alert in alerts()]
    assert len(set(names)) == len(names) > 20


def test_the_configuration_fits_the_rules() -> None:
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    assert all((PROMETHEUS / name).exists() for name in config["rule_files"])
    jobs = {job["job_name"]: job for job in config["scrape_configs"]}
    assert set(jobs) == set(re.findall(r'job="([^"]*)"', RULES.read_text())), "rules know nodes and edges by the job"
    assert all(set(each["labels"]) == {"cluster"} for job in jobs.values() for each in job["static_configs"])
    ports = [int(target.rpartition(":")[2]) for target in jobs["dsreg-node"]["static_configs"][0]["targets"]]
    assert ports == [BASE_PORT + rank for rank in (1, 2, 3)]


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    ids = [panel["id"] for panel in panels()]
    assert len(set(ids)) == len(ids)
    for panel in panels():
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken and all(x < 24 for x, _ in cells), panel["title"]
        taken |= cells


def test_every_panel_says_what_it_shows() -> None:
    for panel in panels():
        assert panel["type"] == "row" or panel["description"].endswith(".") and panel["targets"], panel["title"]


def test_the_dashboard_is_of_a_cluster_that_is_chosen() -> None:
    unchosen = [panel["title"] for panel in panels() for target in panel.get("targets", ())
                if 'cluster="$cluster"' not in target["expr"]]
    assert not unchosen


def test_files_are_named_where_people_look() -> None:
    reference = (ROOT / "docs" / "metrics.md").read_text()
    for path in (RULES, DASHBOARD):
        assert path.name in reference and Path(path).exists()
