"""What Prometheus scrapes: talkgen tells OpenTelemetry, and OpenTelemetry's exporter tells it."""

from anyio import to_thread
from fastapi import APIRouter, Response
from opentelemetry import metrics
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

__all__ = ["collect", "router"]

router = APIRouter()


def collect() -> None:
    """Begin to collect; once in a process, which has one registry."""
    metrics.set_meter_provider(MeterProvider(metric_readers=[PrometheusMetricReader()]))


@router.get("/metrics")
async def scrape() -> Response:
    """All metrics of this process; for whoever runs the server."""
    return Response(await to_thread.run_sync(generate_latest), media_type=CONTENT_TYPE_LATEST)
