"""What `ops/alerts` and `ops/grafana` ask of Prometheus is what schedulers tell it."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from evflow.core.tally import Tally
from evflow.log.keys import SHARED_SHARDS
from evflow_scheduler.metrics.census import Census
from evflow_scheduler.metrics.gauges import Gauges
from evflow_scheduler.metrics.meter import Meter
from evflow_scheduler.reading import Seen
from tests.conftest import REPOSITORY

yaml: Any = pytest.importorskip("yaml")

OPS = REPOSITORY / "ops"
RULES: list[dict[str, Any]] = yaml.safe_load((OPS / "alerts" / "evflow.yaml").read_text())["groups"][0]["rules"]
DASHBOARD: dict[str, Any] = json.loads((OPS / "grafana" / "evflow.json").read_text())
OF_A_SCRAPE = {"job", "instance"}
"""Labels that Prometheus adds."""


def told() -> dict[str, dict[str, set[str]]]:
    """Each series that a scheduler has told, with its labels and those of their values that are fixed."""
    registry = CollectorRegistry()
    gauges, meter = Gauges(registry), Meter(registry)
    meter.triggered("schedule", 1.0)
    runs = {"running": 1, "cancelling": 0, "failing": 0, "aside": 0}
    source = Seen("s3://bucket/", True, "", 0, 0, 0, 0, 0, 0)
    gauges.text(Census(8, {"s0": 0.5}, 16, 1, runs, Tally(1, 0, {}), 1, 0, (), 0, (source,)))
    found: dict[str, dict[str, set[str]]] = {"up": {}}
    for family in registry.collect():
        for sample in family.samples:
            labels = found.setdefault(sample.name, {})
            for label, value in sample.labels.items():
                labels.setdefault(label, set()).add(value)
    return found


TOLD = told()


def panels() -> Iterator[tuple[str, str, str]]:
    """Title, question and legend of everything on the dashboard."""
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"], target.get("legendFormat", "")


def selectors(expression: str) -> Iterator[tuple[str, list[tuple[str, str, str]]]]:
    """The series that PromQL names, each with its matchers as label, operator and value."""
    for name, matchers in re.findall(r"\b(up|(?:evflow|process)_\w+)\b(?:\{([^}]*)\})?", expression):
        yield name, re.findall(r'(\w+)\s*(=~|!=|!~|=)\s*"([^"]*)"', matchers)


QUESTIONS = [(rule["alert"], rule["expr"]) for rule in RULES] + [(title, expression) for title, expression, _ in panels()]


@pytest.mark.parametrize(("asker", "expression"), QUESTIONS, ids=[f"{asker}-{number}" for number, (asker, _) in enumerate(QUESTIONS)])
def test_what_is_asked_is_told_with_these_labels(asker: str, expression: str) -> None:
    asked = list(selectors(expression))
    assert asked, f"{asker} asks for nothing of a scheduler: {expression}"
    known = set(OF_A_SCRAPE)
    for name, matchers in asked:
        assert name in TOLD, f"{asker}: no scheduler tells '{name}'"
        known |= TOLD[name].keys()
        for label, operator, value in matchers:
            assert label in TOLD[name] or label in OF_A_SCRAPE, f"{asker}: '{name}' has no label '{label}'"
            assert label in OF_A_SCRAPE or operator not in ("=", "!=") or value in TOLD[name][label], f"{asker}: {label} is never '{value}'"
    for labels in re.findall(r"\bby \(([^)]*)\)", expression):
        assert {label.strip() for label in labels.split(",")} <= known, f"{asker}: {labels}"


def left_by(expression: str) -> set[str]:
    """The labels of what an expression answers: of its outermost aggregation, else of its series."""
    if (grouped := re.match(r"(?:histogram_quantile\([^,]*, )?(?:sum|min|max)(?: by \(([^)]*)\))? ?\(", expression)) is not None:
        return {label.strip() for label in (grouped[1] or "").split(",")} - {"le", ""}
    return OF_A_SCRAPE | {label for name, _ in selectors(expression) for label in TOLD[name]}


def test_texts_name_labels_that_are_left() -> None:
    for rule in RULES:
        for text in rule["annotations"].values():
            assert set(re.findall(r"\$labels\.(\w+)", text)) <= left_by(rule["expr"]), rule["alert"]
    for title, expression, legend in panels():
        assert set(re.findall(r"\{\{(\w+)\}\}", legend)) <= left_by(expression), title


def test_the_dashboard_has_every_metric_of_the_page() -> None:
    page = (REPOSITORY / "docs" / "scheduler.md").read_text()
    shown = {re.sub(r"_bucket$", "", name) for _, expression, _ in panels() for name, _ in selectors(expression)}
    shown |= {name for name, _ in selectors(json.dumps(DASHBOARD["templating"]))}
    assert set(re.findall(r"^\| `(evflow_\w+)", page, re.MULTILINE)) <= shown


def test_the_page_says_the_labels_of_each_metric() -> None:
    page = (REPOSITORY / "docs" / "scheduler.md").read_text()
    for name, kind in re.findall(r"^\| `(evflow_\w+)` \| ([^|]*) \|", page, re.MULTILINE):
        series = f"{name}_bucket" if kind.startswith("histogram") else name
        assert set(re.findall(r"`(\w+)`", kind)) == TOLD[series].keys() - {"le"}, name


def test_an_alert_knows_how_many_shards_there_are() -> None:
    (rule,) = [rule for rule in RULES if rule["alert"] == "EvflowShardsWithoutOwner"]
    assert rule["expr"].endswith(f"< {SHARED_SHARDS}")
    assert f"of {SHARED_SHARDS} shards" in rule["annotations"]["summary"]


def test_panels_lie_beside_each_other() -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert taken.setdefault((x, y), panel["title"]) == panel["title"]
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(numbers) == len(set(numbers))


def test_every_alert_is_seen_to_fire_by_the_rules_own_tests() -> None:
    tests = yaml.safe_load((OPS / "alerts" / "evflow_test.yaml").read_text())["tests"]
    fired = {one["alertname"] for test in tests for one in test["alert_rule_test"] if one["exp_alerts"]}
    assert fired == {rule["alert"] for rule in RULES}


def test_promtool_agrees() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian's package prometheus has it)")
    for command in (["check", "rules", "evflow.yaml"], ["test", "rules", "evflow_test.yaml"]):
        done = subprocess.run([promtool, *command], cwd=OPS / "alerts", capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
