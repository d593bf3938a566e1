"""The page about telemetry: its code runs, and its queries and names are the true ones."""

import re
import subprocess
import sys
from pathlib import Path

import attrs

from talkgen import Speech, telemetry

from .test_monitoring import selectors

PAGE = (Path(__file__).parents[2] / "docs" / "telemetry.md").read_text()
METRICS = {
    "pipeline_runs_total",
    "pipeline_execution_time_seconds",
    "active_pipelines_count",
    "gpu_utilization_percent",
    "storage_used_bytes",
    "storage_free_bytes",
}


def blocks(language):
    return re.findall(rf"^```{language}[^\n]*\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def test_its_code_runs(portrait_path, speech_path, tmp_path):
    """In a process of its own, as a process has one SDK."""
    setup, use = blocks("python")
    speech = Speech.open(speech_path)
    short = attrs.evolve(speech, samples=speech.samples[:, : speech.sample_rate // 4])
    (tmp_path / "hello.wav").write_bytes(short.original().data)
    (tmp_path / "me.jpg").write_bytes(portrait_path.read_bytes())
    body = re.sub("^", "    ", use, flags=re.MULTILINE)
    (tmp_path / "host.py").write_text(
        f"import asyncio\n{setup}\nasync def main():\n{body}\nasyncio.run(main())\n"
    )
    done = subprocess.run(
        [sys.executable, "host.py"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert not done.stderr
    for name in METRICS:
        assert f"\n# TYPE {name} " in done.stdout
    assert 'pipeline_runs_total{otel_scope_name="talkgen"' in done.stdout
    assert '"name": "talkgen.stage video_generation"' in done.stdout  # the spans, at the end


def test_its_queries_and_its_table_name_the_metrics():
    rows = re.findall(r"^\| `(\w+_\w+)` \| (?:counter|histogram|gauge)", PAGE, re.MULTILINE)
    assert set(rows) == METRICS
    queries = [*blocks("promql"), *re.findall(r"\? \| `(.*)` \|$", PAGE, re.MULTILINE)]
    assert len(queries) == 6
    for query in queries:
        for name, _ in selectors(query):
            assert METRICS & {name, re.sub("_(sum|count|bucket)$", "", name)}


def test_it_names_every_outcome():
    (line,) = re.findall(r"^`outcome` is .*?\.", PAGE, re.DOTALL | re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", line)) - {"outcome"} == set(telemetry.OUTCOMES)
