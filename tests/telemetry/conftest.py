"""A host's SDK, in memory."""

import anyio
import attrs
import pytest
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry, generate_latest

from talkgen import telemetry


async def until(condition):
    """Wait for what a thread or another task brings about, and give it back."""
    with anyio.fail_after(10):
        while not (value := condition()):  # noqa: ASYNC110 - nobody tells
            await anyio.sleep(0.01)
    return value


@attrs.define(eq=False)
class Sdk:
    """What a host configures, and a look at what it got."""

    exporter: InMemorySpanExporter = attrs.field(factory=InMemorySpanExporter)
    traces: TracerProvider = attrs.field(factory=TracerProvider)
    reader: InMemoryMetricReader = attrs.field(factory=InMemoryMetricReader)
    registry: CollectorRegistry = attrs.field(factory=CollectorRegistry)
    meters: MeterProvider = attrs.field(init=False)

    def __attrs_post_init__(self):
        self.traces.add_span_processor(SimpleSpanProcessor(self.exporter))
        prometheus = PrometheusMetricReader(registry=self.registry)
        self.meters = MeterProvider(metric_readers=[self.reader, prometheus])

    @property
    def spans(self):
        """Those that have ended, in the order of their beginnings."""
        return sorted(self.exporter.get_finished_spans(), key=lambda span: span.start_time)

    def named(self, name):
        return [span for span in self.spans if span.name == name]

    def tree(self):
        """The names, each with as many dots as it has spans above it."""
        by_id = {span.context.span_id: span for span in self.spans}

        def depth(span):
            above = by_id.get(span.parent.span_id) if span.parent else None
            return 0 if above is None else 1 + depth(above)

        return ["." * depth(span) + span.name for span in self.spans]

    def points(self, name):
        """Attributes and value of a metric now."""
        data = self.reader.get_metrics_data()
        return [
            (dict(point.attributes), getattr(point, "value", None) or getattr(point, "count", 0))
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
        ]

    def exposition(self):
        """What Prometheus would scrape."""
        return generate_latest(self.registry).decode()


@pytest.fixture
def sdk(monkeypatch):
    """Not the process's own, which can be set once only."""
    sdk = Sdk()
    api = telemetry._connect(sdk.traces, sdk.meters)
    monkeypatch.setattr(telemetry, "_found", lambda: api)
    yield sdk
    sdk.traces.shutdown()
    sdk.meters.shutdown()
