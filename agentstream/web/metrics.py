"""Metrics: what `GET /metrics` answers, in Prometheus's text format 0.0.4.

Nothing is counted before the first request: it subscribes to the events that are counted
(no chunk is), from then on, of all runs in the log.  What a label may say is bounded: models,
tools and workflows beyond a hundred of each are counted as "_other".
"""

from __future__ import annotations

import bisect
import threading
from collections import Counter
from typing import Callable, Dict, Iterator, List, Mapping, Optional, Sequence, Set, Tuple

from agentstream import threads
from agentstream.errors import LogError
from agentstream.events.accessors import seconds_of, text, usage_of
from agentstream.events.model import TERMINAL, Event, EventType
from agentstream.events.stream import EventStream
from agentstream.events.subscription import Subscription

__all__ = ["CONTENT_TYPE", "FAMILIES", "Metrics"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

#: Values of a label; further ones are counted together.
_MOST_VALUES = 100
OTHER = "_other"
#: The newest runs of the log, whose states are counted.
_MOST_RUNS = 1000
#: Upper bounds of a histogram's buckets, in seconds.
BOUNDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)

#: The families: their kind, and what they are of.
FAMILIES: Mapping[str, Tuple[str, str]] = {
    "agentstream_runs": ("gauge", "Runs by state, of the newest 1000 of the log."),
    "agentstream_runs_ended_total": ("counter", "Runs that have ended, by workflow and state."),
    "agentstream_run_duration_seconds": ("histogram", "Duration of runs that have ended."),
    "agentstream_requests_total": ("counter", "Requests to models, by model and outcome."),
    "agentstream_request_errors_total": ("counter", "Requests that failed, by model and error."),
    "agentstream_request_retries_total": ("counter", "Attempts that were made again, by error."),
    "agentstream_fallbacks_total": (
        "counter",
        "Requests that went on to another client, by error.",
    ),
    "agentstream_request_duration_seconds": ("histogram", "Duration of requests, by model."),
    "agentstream_first_token_seconds": ("histogram", "Time to an answer's first token, by model."),
    "agentstream_tokens_total": ("counter", "Tokens by model and direction: input or output."),
    "agentstream_cost_total": ("counter", "Cost of requests by model, in the prices' unit."),
    "agentstream_tool_calls_total": ("counter", "Tool calls that have ended, by tool and outcome."),
    "agentstream_events": ("gauge", "Position of the newest event of the log."),
    "agentstream_subscribers": ("gauge", "Subscriptions to this process's event stream."),
    "agentstream_streams": ("gauge", "Streams over HTTP that are open."),
    "agentstream_missed_events_total": ("counter", "Events that subscribers have missed."),
}

_STATES = (
    *("queued", "running", "suspended", "interrupted"),
    *("completed", "failed", "cancelled", "closed"),
)

Labels = Tuple[Tuple[str, str], ...]


class _Histogram:
    """The values of one series, by their buckets."""

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect.bisect_left(BOUNDS, value)] += 1
        self.sum += value


class Metrics:
    """Counts what happens in a log, once somebody has asked for it.

    Args:
        events: the log.
        streams: says how many streams are open.
    """

    def __init__(self, events: EventStream, streams: Callable[[], int]) -> None:
        self._events = events
        self._streams = streams
        self._subscription: Optional[Subscription] = None
        self._lock = threading.Lock()  # of what follows
        self._counts: Dict[str, Counter[Labels]] = {}
        self._histograms: Dict[str, Dict[Labels, _Histogram]] = {}
        self._values: Dict[str, Set[str]] = {}
        self._by_type: Mapping[EventType, Callable[[Event], None]] = {
            **dict.fromkeys(TERMINAL, self._run_ended),
            EventType.AGENT_LLM_REQUEST_COMPLETED: self._answered,
            EventType.AGENT_LLM_REQUEST_FAILED: self._failed,
            EventType.AGENT_LLM_REQUEST_RETRIED: self._retried,
            EventType.AGENT_FALLBACK: self._fell_back,
            EventType.TOOL_CALL_COMPLETED: self._tool_ended,
            EventType.TOOL_CALL_FAILED: self._tool_ended,
        }
        self._begun = self._closed = False
        threads.after_fork(self)

    def _after_fork(self) -> None:
        self._lock = threading.Lock()  # a thread of the parent's may have held it

    def page(self) -> str:
        """All metrics as text; the first call begins the counting.

        Raises:
            LogError: the log cannot be read.
        """
        self._begin()
        lines: List[str] = []
        now = self._now()
        with self._lock:
            for family, (kind, what) in FAMILIES.items():
                lines.append(f"# HELP {family} {_escaped(what, quotes=False)}")
                lines.append(f"# TYPE {family} {kind}")
                lines += now.get(family) or self._series(family)
        return "\n".join(lines) + "\n"

    def close(self) -> None:
        """Count no more.  Takes no lock: a server's signal handler may call it."""
        self._closed = True
        if self._subscription is not None:
            self._subscription.close(0)

    def _begin(self) -> None:
        with self._lock:
            if self._begun or self._closed:
                return
            self._begun = True
        try:
            self._subscription = self._events.subscribe(self._take, types=list(self._by_type))
        except LogError:
            if not self._events.closed:
                self._begun = False
                raise
        if self._is_closed():  # in this moment, and `close` may have missed it
            self.close()

    def _is_closed(self) -> bool:
        return self._closed

    # --- counting, in the subscription's thread -----------------------------------------------

    def _take(self, event: Event) -> None:
        count = self._by_type.get(event.type)
        if count is not None:  # else it tells of events that were missed
            with self._lock:
                count(event)

    def _run_ended(self, event: Event) -> None:
        state = event.type.value[len("workflow_") :]
        labels = self._labels(workflow=text(event.data, "workflow"), state=state)
        self._count("agentstream_runs_ended_total", labels)
        self._observe("agentstream_run_duration_seconds", labels, seconds_of(event.data))

    def _answered(self, event: Event) -> None:
        data = event.data
        model = text(data, "model")
        labels = self._labels(model=model)
        self._count("agentstream_requests_total", self._labels(model=model, outcome="completed"))
        self._observe("agentstream_request_duration_seconds", labels, seconds_of(data))
        first = data.get("first_token_s")
        if isinstance(first, (int, float)):
            self._observe("agentstream_first_token_seconds", labels, first)
        usage = usage_of(data) or {}
        for key, direction in (("prompt_tokens", "input"), ("completion_tokens", "output")):
            tokens = self._labels(model=model, direction=direction)
            self._count("agentstream_tokens_total", tokens, usage.get(key))
        self._count("agentstream_cost_total", labels, usage.get("cost"))

    def _failed(self, event: Event) -> None:
        model, error = text(event.data, "model"), text(event.data, "error")
        outcome = "cancelled" if error == "Cancelled" else "failed"
        self._count("agentstream_requests_total", self._labels(model=model, outcome=outcome))
        if outcome == "failed":
            self._count("agentstream_request_errors_total", self._labels(model=model, error=error))
        labels = self._labels(model=model)
        self._observe("agentstream_request_duration_seconds", labels, seconds_of(event.data))

    def _retried(self, event: Event) -> None:
        labels = self._labels(error=text(event.data, "error"))
        self._count("agentstream_request_retries_total", labels)

    def _fell_back(self, event: Event) -> None:
        self._count("agentstream_fallbacks_total", self._labels(error=text(event.data, "error")))

    def _tool_ended(self, event: Event) -> None:
        outcome = event.type.value[len("tool_call_") :]
        labels = self._labels(tool=text(event.data, "name"), outcome=outcome)
        self._count("agentstream_tool_calls_total", labels)

    def _labels(self, **labels: str) -> Labels:
        """Labels whose values are of those that are counted apart."""
        return tuple((name, self._bounded(name, value)) for name, value in labels.items())

    def _bounded(self, name: str, value: str) -> str:
        known = self._values.setdefault(name, set())
        if value not in known:
            if len(known) >= _MOST_VALUES:
                return OTHER
            known.add(value)
        return value

    def _count(self, family: str, labels: Labels, number: object = 1) -> None:
        if isinstance(number, (int, float)) and number >= 0:  # else nobody knows it
            self._counts.setdefault(family, Counter())[labels] += number  # type: ignore[assignment]

    def _observe(self, family: str, labels: Labels, value: float) -> None:
        found = self._histograms.setdefault(family, {})
        if labels not in found:
            found[labels] = _Histogram()
        found[labels].observe(max(0.0, value))

    # --- writing ------------------------------------------------------------------------------

    def _now(self) -> Mapping[str, List[str]]:
        """The lines of what is not counted, but looked at now."""
        states = Counter(run.status for run in self._events.store.runs(limit=_MOST_RUNS))
        singles = {
            "agentstream_events": self._events.store.bounds().last,
            "agentstream_subscribers": self._events.subscribers,
            "agentstream_streams": self._streams(),
            "agentstream_missed_events_total": self._events.missed,
        }
        runs = [_line("agentstream_runs", (("state", s),), states[s]) for s in _STATES]
        found = {family: [_line(family, (), value)] for family, value in singles.items()}
        return {"agentstream_runs": runs, **found}

    def _series(self, family: str) -> Iterator[str]:
        for labels, value in sorted(self._counts.get(family, {}).items()):
            yield _line(family, labels, value)
        for labels, histogram in sorted(self._histograms.get(family, {}).items()):
            total = 0
            for bound, count in zip((*map(_number, BOUNDS), "+Inf"), histogram.counts):
                total += count
                yield _line(f"{family}_bucket", (*labels, ("le", bound)), total)
            yield _line(f"{family}_sum", labels, histogram.sum)
            yield _line(f"{family}_count", labels, total)


def _line(name: str, labels: Sequence[Tuple[str, str]], value: float) -> str:
    shown = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels)
    return f"{name}{f'{{{shown}}}' if shown else ''} {_number(value)}"


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else repr(float(value))


def _escaped(text: str, *, quotes: bool = True) -> str:
    text = text.replace("\\", "\\\\").replace("\n", "\\n")
    return text.replace('"', '\\"') if quotes else text
