"""The alert rules and the dashboard of the web example ask for what is really exported."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from talkgen import LocalStorage, Pipeline

from ..scripted import PICTURE, Step
from .conftest import until

FOLDER = Path(__file__).parents[2] / "docs" / "examples" / "web" / "monitoring"
PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed")

# What of a query names no metric: texts, times, groupings.
ASIDE = re.compile(r'"[^"]*"|\[[^]]*\]|\b(?:by|without|on|ignoring)\s*\([^)]*\)')
SELECTOR = re.compile(r"\b([a-zA-Z_:][\w:]*)\b(?!\s*\()(?:\s*\{([^}]*)\})?")


def rules():
    (group,) = yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"]
    return group["rules"]


def queries():
    """Every expression of the rules and the dashboard."""
    panels = json.loads((FOLDER / "grafana.json").read_text())["panels"]
    shown = [target["expr"] for panel in panels for target in panel["targets"]]
    return [rule["expr"] for rule in rules()] + shown


def selectors(query):
    """The metrics that a query names, each with the labels that it asks for."""
    return {
        (name, tuple(re.findall(r"(\w+)\s*(?:=|!)", labels)))
        for name, labels in SELECTOR.findall(ASIDE.sub("", query))
    }


def run_promtool(*arguments):
    done = subprocess.run(
        [PROMTOOL, *arguments], cwd=FOLDER, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_names_in_a_query():
    query = 'sum by (a) (rate(x_total{job="b", c!="d"}[5m])) / 2 ^ 30 > min(y)'
    assert selectors(query) == {("x_total", ("job", "c")), ("y", ())}


async def test_queries_name_what_is_exported(anyio_backend, sdk, tmp_path):
    async with Pipeline([Step()], storage=LocalStorage(tmp_path)) as opened:
        await opened.run(PICTURE)
        await until(lambda: "storage_free_bytes{" in sdk.exposition())
        exposition = sdk.exposition()
    labels = {}
    for family in text_string_to_metric_families(exposition):
        for sample in family.samples:
            labels.setdefault(sample.name, set()).update(sample.labels)
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    asked = set().union(*map(selectors, queries()))
    assert {name for name, _ in asked} - recorded <= set(labels)
    for name, wanted in asked:
        assert set(wanted) <= labels.get(name, set()), name
    promised = {
        "pipeline_success_rate",
        "pipeline_execution_time_seconds_bucket",
        "gpu_utilization_percent",
        "storage_used_bytes",
        "storage_free_bytes",
        "active_pipelines_count",
    }
    assert promised <= {name for name, _ in asked}


def test_the_alerts_are_the_ones_that_were_asked_for():
    alerts = {rule["alert"]: rule["for"] for rule in rules() if "alert" in rule}
    assert alerts == {
        "PipelineSuccessRateLow": "10m",
        "GPUUtilizationHigh": "5m",
        "StorageSpaceLow": "5m",
    }


@needs_promtool
def test_each_alert_fires_and_not_before():
    run_promtool("test", "rules", "alerts_test.yml")


@needs_promtool
def test_the_configuration_is_valid():
    run_promtool("check", "config", "prometheus.yml")


@needs_promtool
def test_the_dashboards_queries_are_valid(tmp_path):
    records = [
        {"record": f"query:{number}", "expr": query.replace("$__rate_interval", "5m")}
        for number, query in enumerate(queries())
    ]
    file = tmp_path / "queries.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": records}]}))
    run_promtool("check", "rules", str(file))
