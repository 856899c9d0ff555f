"""What the tests of otel/ share: the real SDK with its in-memory exporter, and trees drawn of spans."""

from __future__ import annotations

from typing import Any, Dict, Iterable, List, Mapping

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from agentstream import EventStream, otel

Drawn = Dict[str, Any]


class Telemetry:
    """The SDK's providers, and what has come to them.

    Attributes:
        tracers, meters: the providers.
        tracer: of the program's own spans.
    """

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self._reader = InMemoryMetricReader()
        self.meters = MeterProvider([self._reader])
        self.tracer = self.tracers.get_tracer("tests")

    def instrument(self, stream: EventStream, **settings: Any) -> otel.Instrumentation:
        return otel.instrument(stream, self.tracers, self.meters, **settings)

    def close(self) -> None:
        self.tracers.shutdown()
        self.meters.shutdown()

    def __enter__(self) -> Telemetry:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def spans(self) -> List[Drawn]:
        """The spans that have ended, as values."""
        return [as_value(span) for span in self.exporter.get_finished_spans()]

    def named(self, name: str) -> List[Drawn]:
        return [span for span in self.spans() if span["name"] == name]

    def points(self) -> Dict[str, List[Any]]:
        """The data points of each metric."""
        data = self._reader.get_metrics_data()
        found: Dict[str, List[Any]] = {}
        for resource in [] if data is None else data.resource_metrics:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    found[metric.name] = list(metric.data.data_points)
        return found


def as_value(span: ReadableSpan) -> Drawn:
    context = span.get_span_context()
    return {
        "name": span.name,
        "kind": span.kind.name,
        "trace": f"{context.trace_id:032x}",
        "id": f"{context.span_id:016x}",
        "parent": None if span.parent is None else f"{span.parent.span_id:016x}",
        "start": span.start_time,
        "end": span.end_time,
        "failed": span.status.status_code is StatusCode.ERROR,
        "attributes": {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in (span.attributes or {}).items()
        },
        "links": [f"{link.context.span_id:016x}" for link in span.links],
        "events": [[event.name, dict(event.attributes or {})] for event in span.events],
    }


def tree(spans: Iterable[Mapping[str, Any]]) -> str:
    """The spans as a text: each below its parent, in the order of steps and of time.

    Behind a name: "*" for each retry, "+" for each fallback, "!" and the error's type for a span that failed.
    """
    known = sorted(spans, key=_order)
    ids = {span["id"] for span in known}
    lines: List[str] = []

    def draw(parent: Any, depth: int) -> None:
        for span in known:
            above = span["parent"] if span["parent"] in ids else None
            if above == parent:
                lines.append("  " * depth + _line(span))
                draw(span["id"], depth + 1)

    draw(None, 0)
    return "\n".join(lines)


def _order(span: Mapping[str, Any]) -> Any:
    if span["name"].startswith("step "):
        return span["attributes"]["agentstream.step"], span["start"]
    return "~" * span["name"].startswith("invoke_workflow"), span["start"]


def _line(span: Mapping[str, Any]) -> str:
    signs = {"agentstream.retry": " *", "agentstream.fallback": " +"}
    marks = "".join(signs[name] for name, _ in span["events"])
    if span["failed"]:
        marks += f" ! {span['attributes']['error.type']}"
    return span["name"] + marks
