"""Spans and metrics through OpenTelemetry's API; nothing at all where that is not installed.

The SDK, the exporters and the sampling are the host's. Every name that a host sees is in this
module, and nothing that is secret or large goes through it: no key, no link, no picture.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal, TypeAlias
from urllib.parse import urlsplit

import attrs

from talkgen.errors import StageFailed, TalkgenError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from opentelemetry.context import Context
    from opentelemetry.metrics import (
        Counter,
        Histogram,
        Meter,
        MeterProvider,
        Observation,
        UpDownCounter,
    )
    from opentelemetry.trace import Link, Tracer, TracerProvider
    from opentelemetry.trace import Span as OtelSpan
    from opentelemetry.util.types import AttributeValue

__all__ = [
    "Outcome",
    "RunSpan",
    "Span",
    "batch",
    "here",
    "load",
    "loading",
    "model",
    "request",
    "resend",
    "run",
    "showing",
    "stage",
]

Outcome: TypeAlias = Literal["completed", "stored", "failed", "deferred", "cancelled"]
"""How a run ended; `stored`: its task had been completed before, and nothing was done."""

Readings: TypeAlias = "Callable[[], Iterable[tuple[float, Mapping[str, str]]]]"
"""Values of a gauge, each with its attributes; called from any thread, and does not block."""

OUTCOMES: tuple[Outcome, ...] = ("completed", "stored", "failed", "deferred", "cancelled")
SECONDS = (0.5, 1, 2.5, 5, 10, 15, 20, 30, 45, 60, 90, 120, 180, 300, 600)  # a minute is the aim
PORTS = {"http": 80, "https": 443}

# Name, unit and meaning of what is read when somebody collects it.
GAUGES = (
    ("gpu_utilization_percent", "%", "Part of the time since the last look with a model at work."),
    ("storage_used_bytes", "By", "Published files."),
    ("storage_free_bytes", "By", "What is free on the storage's disk."),
)


# --- spans -------------------------------------------------------------------------------------


@attrs.frozen
class Span:
    """A piece of work that is recorded, or is not."""

    _span: OtelSpan | None = None

    def set(self, name: str, value: AttributeValue) -> None:
        """Add a fact."""
        if self._span is not None:
            self._span.set_attribute(name, value)

    def failed(self, error: BaseException) -> None:
        """Mark it as failed, with the type, and with the message where that is talkgen's own.

        What others write may hold anything.
        """
        if self._span is None:
            return
        from opentelemetry.trace import StatusCode

        own = isinstance(error, TalkgenError) and not isinstance(error, StageFailed)
        message = str(error) if own else None
        self._span.set_attribute("error.type", type(error).__name__)
        self._span.set_status(StatusCode.ERROR, message)


@attrs.frozen
class RunSpan(Span):
    """The span of a run, which also counts it."""

    _began: float = attrs.field(factory=perf_counter)

    def ended(self, attempt: int, outcome: Outcome, error: BaseException | None) -> None:
        """Tell how the run ended.

        Args:
            attempt: Its number.
            outcome: In a word.
            error: What it raises, if anything.
        """
        self.set("talkgen.attempt", attempt)
        self.set("talkgen.outcome", outcome)
        if error is not None and outcome == "failed":
            self.failed(error)
        if (api := _api()) is not None:
            api.runs.add(1, {"outcome": outcome})
            api.seconds.record(perf_counter() - self._began, {"outcome": outcome})


@contextmanager
def run(task_id: str, stages: Sequence[str], backends: Sequence[str]) -> Iterator[RunSpan]:
    """One attempt of a task, from its start to its last word.

    Args:
        task_id: The task.
        stages: The names of its stages, in order.
        backends: The keys of what they use.
    """
    if (api := _api()) is None:
        yield RunSpan()
        return
    attributes = {
        "talkgen.task.id": task_id,
        "talkgen.stages": stages,
        "talkgen.backends": backends,
    }
    api.active.add(1)
    try:
        if api.traced():
            with api.span("talkgen.run", attributes) as span:
                yield RunSpan(span)
        else:
            yield RunSpan()
    finally:
        api.active.add(-1)


def stage(name: str) -> AbstractContextManager[Span]:
    """A stage at work."""
    return _span(f"talkgen.stage {name}", {"talkgen.stage": name})


def model(key: str) -> AbstractContextManager[Span]:
    """A call of a model, from its caller's side: the wait for its turn, and the work."""
    return _span(f"talkgen.model {_family(key)}", {"talkgen.model": key})


def batch(
    callers: Sequence[Any], key: str, device: str, level: int
) -> AbstractContextManager[Span]:
    """A batch in a worker's thread: below the first of its calls, and linked to the others.

    Args:
        callers: What `here` gave to each of them.
        key: The model's.
        device: Where it runs.
        level: At what size.
    """
    attributes: dict[str, AttributeValue] = {
        "talkgen.model": key,
        "talkgen.device": device,
        "talkgen.level": level,
        "talkgen.batch.size": len(callers),
    }
    known = [caller for caller in callers if caller is not None]
    return _span(f"talkgen.batch {_family(key)}", attributes, callers=known)


def loading(caller: Any, key: str, device: str) -> AbstractContextManager[Span]:
    """A model being loaded in a worker's thread: below the call that needs it.

    Args:
        caller: What `here` gave to it.
        key: The model's.
        device: Where it will run.
    """
    attributes = {"talkgen.model": key, "talkgen.device": device}
    known = [] if caller is None else [caller]
    return _span(f"talkgen.load {_family(key)}", attributes, callers=known)


def here() -> Context | None:
    """Where the caller is among the spans: what a worker's thread needs to go on below it."""
    if _tracing() is None:
        return None
    from opentelemetry import context

    return context.get_current()


def request(method: str, url: str, template: str | None = None) -> AbstractContextManager[Span]:
    """An HTTP request to somebody else, once; the conventions' names for its facts.

    `url.full`, which they ask for too, is left out: a link to a result opens it for anybody.

    Args:
        method: Like `GET`.
        url: Only its host and its port are told.
        template: Its path, with names for what differs, like `/talks/{id}`.
    """
    parts = urlsplit(url)
    attributes: dict[str, AttributeValue] = {
        "http.request.method": method,
        "server.address": parts.hostname or "",
        "server.port": parts.port or PORTS.get(parts.scheme, 0),
    }
    if template is not None:
        attributes["url.template"] = template
    if resends := _resends.get():
        attributes["http.request.resend_count"] = resends
    return _span(f"{method} {template or ''}".rstrip(), attributes, client=True)


_resends: ContextVar[int] = ContextVar("talkgen_resends", default=0)


@contextmanager
def resend(count: int) -> Iterator[None]:
    """The request inside has been sent so often before."""
    token = _resends.set(count)
    try:
        yield
    finally:
        _resends.reset(token)


_UNSEEN = nullcontext(Span())


def _span(
    name: str,
    attributes: Mapping[str, AttributeValue],
    *,
    client: bool = False,
    callers: Sequence[Any] = (),
) -> AbstractContextManager[Span]:
    if (api := _tracing()) is None:
        return _UNSEEN
    return _seen(api, name, attributes, client=client, callers=callers)


@contextmanager
def _seen(
    api: _Api,
    name: str,
    attributes: Mapping[str, AttributeValue],
    *,
    client: bool,
    callers: Sequence[Any],
) -> Iterator[Span]:
    with api.span(name, attributes, client=client, callers=callers) as started:
        span = Span(started)
        try:
            yield span
        except Exception as error:
            span.failed(error)
            raise
        except BaseException:
            span.set("talkgen.cancelled", True)  # noqa: FBT003 - a fact, not a switch
            raise


def _family(key: str) -> str:
    """A model's name without the digest of its weights: spans have few names."""
    return key.partition("@")[0]


# --- gauges ------------------------------------------------------------------------------------

_shown: list[Mapping[str, Readings]] = []
_lock = threading.Lock()


@contextmanager
def showing(**gauges: Readings) -> Iterator[None]:
    """Let gauges show values as long as the block lasts, beside what others show.

    Args:
        **gauges: What reads a gauge, by its name in `GAUGES`. One that several show is read once.
    """
    if (api := _api()) is None:
        yield
        return
    for outcome in OUTCOMES:
        api.runs.add(0, {"outcome": outcome})  # a rate does not see a counter's first value
    with _lock:
        _shown.append(gauges)
    try:
        yield
    finally:
        with _lock:
            _shown.remove(gauges)


def _read(name: str, _options: object) -> list[Observation]:
    from opentelemetry.metrics import Observation

    with _lock:
        sources = dict.fromkeys(gauges[name] for gauges in _shown if name in gauges)
    return [Observation(value, attributes) for read in sources for value, attributes in read()]


# --- the API -----------------------------------------------------------------------------------


@attrs.frozen
class _Api:
    """What talkgen uses of OpenTelemetry. A provider that the host sets later is found, too."""

    tracer: Tracer
    traced: Callable[[], bool]  # somebody takes the spans: without, not even empty ones are made
    runs: Counter
    seconds: Histogram
    active: UpDownCounter

    def span(
        self,
        name: str,
        attributes: Mapping[str, AttributeValue],
        *,
        client: bool = False,
        callers: Sequence[Context | None] = (),
    ) -> AbstractContextManager[OtelSpan]:
        """A span that is current in the block; what goes wrong there is not its business."""
        from opentelemetry.trace import SpanKind

        return self.tracer.start_as_current_span(
            name,
            context=callers[0] if callers else None,
            kind=SpanKind.CLIENT if client else SpanKind.INTERNAL,
            attributes=attributes,
            links=[_link(caller) for caller in callers[1:]],
            record_exception=False,  # it would record foreign messages, and links in them
            set_status_on_exception=False,
        )


def _link(caller: Context | None) -> Link:
    from opentelemetry.trace import Link, get_current_span

    return Link(get_current_span(caller).get_span_context())


def load() -> bool:
    """Import the API, which takes a while; False where it is not installed."""
    return _api() is not None


def _api() -> _Api | None:
    with _loading:
        return _found()


def _tracing() -> _Api | None:
    api = _api()
    return api if api is not None and api.traced() else None


_loading = threading.Lock()


@cache
def _found() -> _Api | None:
    try:
        return _connect()
    except ImportError:
        return None


def _connect(traces: TracerProvider | None = None, meters: MeterProvider | None = None) -> _Api:
    """Make the instruments of these providers; by default, of the host's."""
    from opentelemetry import metrics, trace

    meter = metrics.get_meter("talkgen", _version(), meters)
    _create_gauges(meter)
    return _Api(
        tracer=trace.get_tracer("talkgen", _version(), traces),
        traced=_provided if traces is None else lambda: True,
        runs=meter.create_counter("pipeline_runs", "1", "Runs that have ended, by their outcome."),
        seconds=meter.create_histogram(
            "pipeline_execution_time_seconds",
            "s",
            "From a run's start to its end, by its outcome.",
            explicit_bucket_boundaries_advisory=SECONDS,
        ),
        active=meter.create_up_down_counter(
            "active_pipelines_count", "1", "Runs that are under way."
        ),
    )


def _provided() -> bool:
    """The host has set a provider of spans."""
    from opentelemetry import trace

    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


def _create_gauges(meter: Meter) -> None:
    for name, unit, description in GAUGES:
        meter.create_observable_gauge(name, [partial(_read, name)], unit, description)


def _version() -> str:
    try:
        return version("talkgen")
    except PackageNotFoundError:  # sources that were not installed
        return ""
