"""The spans that are open, by what they are of, and the histograms of those that have ended.

A span begins in the thread that does the work, and ends in the subscriber's, later: of one
step there may be two attempts open by then.  So each key has a queue, whose oldest span is
the one that an end means, and whose newest is the parent of what begins.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from typing import Any, Deque, Dict, List, Mapping, Optional, Tuple

from opentelemetry.context import Context
from opentelemetry.metrics import Histogram, Meter
from opentelemetry.trace import Link, Span, SpanKind, Tracer, set_span_in_context
from opentelemetry.trace.status import Status, StatusCode

from agentstream.otel import names

__all__ = ["Key", "OpenSpan", "Spans"]

#: What a span is of: its kind in `names.SPANS`, the run's id, the step's label, a call's id.
Key = Tuple[str, str, str, str]
Attributes = Dict[str, Any]

#: Spans open at once; beyond that the oldest ends without its end having been seen.
_MOST = 20_000
_NANO = 1_000_000_000


class OpenSpan:
    """A span that has begun.

    Attributes:
        context: in which what is within it begins.
        began: when, in nanoseconds.
        noted: attributes that it has so far, for its metrics.
    """

    __slots__ = ("began", "children", "context", "key", "noted", "parent", "span")

    def __init__(
        self, key: Key, span: Span, began: int, noted: Attributes, parent: Optional[OpenSpan]
    ) -> None:
        self.key = key
        self.span = span
        self.began = began
        self.noted = noted
        self.parent = parent
        self.children: Dict[OpenSpan, None] = {}
        self.context: Context = set_span_in_context(span)


class Spans:
    """The open spans of one `Instrumentation`.  Any number of threads may use it."""

    def __init__(self, tracer: Tracer, meter: Meter) -> None:
        self._tracer = tracer
        self._histograms: Mapping[str, Histogram] = {
            name: meter.create_histogram(
                name,
                unit=metric.unit,
                description=metric.what,
                explicit_bucket_boundaries_advisory=metric.bounds,
            )
            for name, metric in names.METRICS.items()
        }
        self.forget()

    def forget(self) -> None:
        """Know of no open span: they are another process's."""
        self._lock = threading.Lock()
        self._open: Dict[Key, Deque[OpenSpan]] = {}
        self._all: OrderedDict[OpenSpan, None] = OrderedDict()

    def newest(self, *keys: Key) -> Optional[OpenSpan]:
        """The newest open span of the first of the keys that has any."""
        with self._lock:
            found = next((self._open[key] for key in keys if key in self._open), None)
            return found[-1] if found else None

    def oldest(self, key: Key) -> Optional[OpenSpan]:
        """The oldest open span of a key: the one of which events tell."""
        with self._lock:
            found = self._open.get(key)
            return found[0] if found else None

    def begin(
        self,
        key: Key,
        name: str,
        at: int,
        attributes: Attributes,
        *,
        parent: Optional[OpenSpan] = None,
        context: Optional[Context] = None,
        links: Tuple[Link, ...] = (),
    ) -> OpenSpan:
        """Begin a span within another one, or in a context; `name` fills in its kind's."""
        kind = names.SPANS[key[0]]
        if kind.operation:
            attributes = {names.OPERATION: kind.operation, **attributes}
        span = self._tracer.start_span(
            names.span_name(key[0], name),
            context if parent is None else parent.context,
            kind=SpanKind.CLIENT if kind.is_client else SpanKind.INTERNAL,
            attributes=attributes,
            links=links,
            start_time=at,
        )
        begun = OpenSpan(key, span, at, dict(attributes), parent)
        lost: Optional[OpenSpan] = None
        with self._lock:
            self._open.setdefault(key, deque()).append(begun)
            self._all[begun] = None
            if parent is not None:
                parent.children[begun] = None
            if len(self._all) > _MOST:
                lost = next(iter(self._all))
        if lost is not None:
            self._finish(lost, at)
        return begun

    def end(
        self,
        key: Key,
        at: int,
        attributes: Optional[Attributes] = None,
        error: str = "",
        *,
        is_failure: bool = True,
    ) -> Optional[OpenSpan]:
        """End the oldest span of a key, what is still open within it first, and measure it.

        Args:
            error: the class's name of what ended it; "" for nothing.
            is_failure: the span's status is an error then.

        Returns the span; None if there is none: what ended was begun elsewhere.
        """
        found = self.oldest(key)
        if found is None:
            return None
        noted = {**(attributes or {})}
        if error:
            noted[names.ERROR_TYPE] = error
            if is_failure:
                found.span.set_status(Status(StatusCode.ERROR, error))
        if noted:
            found.span.set_attributes(noted)
            found.noted.update(noted)
        if self._finish(found, at) and key[0] in names.DURATIONS:
            self.record(names.DURATIONS[key[0]], max(0, at - found.began) / _NANO, found)
        return found

    def record(
        self, metric: str, value: float, of: OpenSpan, more: Optional[Attributes] = None
    ) -> None:
        """Add a value to a histogram, with what is known of a span, and more."""
        known = {key: of.noted[key] for key in names.DIMENSIONS if key in of.noted}
        self._histograms[metric].record(value, {**known, **(more or {})}, context=of.context)

    def end_all(self, at: int) -> None:
        """End all that is open: nobody will see their ends."""
        while True:
            with self._lock:
                found = next(iter(self._all), None)
            if found is None:
                return
            self._finish(found, at)

    def runs(self) -> List[str]:
        """The ids of the runs that are open."""
        with self._lock:
            return [key[1] for key in self._open if key[0] == "run"]

    def _finish(self, found: OpenSpan, at: int) -> bool:
        """End a span and those within it; False if it has ended.  Processors run unlocked."""
        ending: List[OpenSpan] = []
        with self._lock:
            if found not in self._all:
                return False
            self._collect(found, ending)
        for each in ending:
            each.span.end(end_time=max(at, each.began))
        return True

    def _collect(self, found: OpenSpan, into: List[OpenSpan]) -> None:
        for child in list(found.children):
            self._collect(child, into)
        if self._all.pop(found, 0) is None:
            into.append(found)
            of_key = self._open[found.key]
            of_key.remove(found)
            if not of_key:
                del self._open[found.key]
            if found.parent is not None:
                found.parent.children.pop(found, None)
