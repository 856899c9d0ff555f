"""Instrumentation: one subscriber of the bus, which ends spans and measures.

Each span begins in the thread that does the work (beginnings.py), so that what goes out
from there can name it.  All else is done here, in the subscription's own thread, by what the
events say: a slow exporter holds up nobody.  Chunks are not subscribed to.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections import deque
from typing import Any, Callable, Deque, Dict, Iterator, List, Mapping, Optional, Tuple

from opentelemetry import context as current, propagate as propagation, trace
from opentelemetry.metrics import MeterProvider, get_meter_provider
from opentelemetry.trace import TracerProvider

from agentstream import checks, threads
from agentstream._version import __version__
from agentstream.errors import ConfigError
from agentstream.events.accessors import text, usage_of
from agentstream.events.model import TERMINAL, Event, EventType
from agentstream.events.run_log import RunLog
from agentstream.events.stream import EventStream
from agentstream.otel import names
from agentstream.otel.beginnings import Beginnings, key_of, server_of, traceparent_of
from agentstream.otel.spans import Key, OpenSpan, Spans

__all__ = ["Instrumentation", "instrument"]

logger = logging.getLogger("agentstream.otel")

Attributes = Dict[str, Any]

#: What turns content on, of the variable that the conventions have for it.
_CAPTURES = ("true", "1", "span_only", "span_and_event")
_MAX_QUEUE = 10_000


def instrument(
    event_stream: EventStream,
    tracer_provider: Optional[TracerProvider] = None,
    meter_provider: Optional[MeterProvider] = None,
    capture_content: bool = False,
    *,
    propagate: bool = False,
) -> Instrumentation:
    """Make spans and metrics of the runs of this process, until it is closed.

    A run's span is within the span that was current where the run was submitted; those of
    its steps, agents, requests and tool calls are within each other as they are.  One that
    is resumed goes on in the same trace, also in another process.

    Args:
        event_stream: whose runs; `runtime.event_stream`.
        tracer_provider, meter_provider: OpenTelemetry's; default the global ones.
        capture_content: put prompts, answers, tools' arguments and results on spans, which
            hold none of it otherwise.  The variable
            OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT=true turns it on too.
        propagate: send the trace on to models' and MCP servers, in the headers of the
            global propagator (`traceparent`) and in MCP's `_meta`.

    Raises:
        ConfigError: an argument cannot be used, or the stream is instrumented already.
        LogError: the stream is closed.
    """
    checks.instance("event_stream", event_stream, EventStream)
    checks.flag("capture_content", capture_content)
    checks.flag("propagate", propagate)
    if event_stream.tracing is not None:
        raise ConfigError("the event stream is instrumented already: close that one first")
    told = os.environ.get("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "")
    wanted = capture_content or told.lower() in _CAPTURES
    return Instrumentation(
        event_stream,
        tracer_provider or trace.get_tracer_provider(),
        meter_provider or get_meter_provider(),
        capture_content=wanted,
        propagate=propagate,
    )


class Instrumentation:
    """What `instrument` gives: `close` it, or leave its `with` block, to have no more spans.

    Attributes:
        capture_content: spans hold what is said.
        propagate: requests say which trace they belong to.
    """

    def __init__(
        self,
        stream: EventStream,
        tracers: TracerProvider,
        meters: MeterProvider,
        *,
        capture_content: bool,
        propagate: bool,
    ) -> None:
        self.capture_content = capture_content
        self.propagate = propagate
        own = "agentstream", __version__
        self._spans = Spans(
            tracers.get_tracer(*own, schema_url=names.SCHEMA_URL),
            meters.get_meter(*own, schema_url=names.SCHEMA_URL),
        )
        self._stream = stream
        self._closed = False
        self._calls: Deque[Tuple[Key, int, str]] = deque()
        self._beginnings = Beginnings(stream, self._spans, self, capture_content=capture_content)
        self._by_type: Mapping[EventType, Callable[[Event], None]] = {
            **dict.fromkeys((*TERMINAL, EventType.WORKFLOW_SUSPENDED), self._run_ended),
            EventType.WORKFLOW_STEP_COMPLETED: self._step_ended,
            EventType.WORKFLOW_STEP_FAILED: self._step_ended,
            EventType.AGENT_COMPLETED: self._agent_ended,
            EventType.AGENT_FAILED: self._agent_ended,
            EventType.AGENT_LLM_REQUEST_RETRIED: self._retried,
            EventType.AGENT_FALLBACK: self._fell_back,
            EventType.AGENT_LLM_REQUEST_COMPLETED: self._answered,
            EventType.AGENT_LLM_REQUEST_FAILED: self._request_failed,
            EventType.TOOL_CALL_COMPLETED: self._tool_ended,
            EventType.TOOL_CALL_FAILED: self._tool_ended,
            EventType.EVENTS_MISSED: self._missed,
        }
        types = [kind for kind in self._by_type if kind is not EventType.EVENTS_MISSED]
        stream.tracing = self
        try:
            self._subscription = stream.subscribe(self._take, types=types, max_queue=_MAX_QUEUE)
        except BaseException:
            stream.tracing = None
            raise
        threads.after_fork(self)

    def __repr__(self) -> str:
        return f"<Instrumentation of {self._stream!r}{', closed' if self._closed else ''}>"

    def close(self) -> None:
        """Make no more spans; those of what has ended are ended, those of what goes on too.

        What the providers have not exported yet is theirs to flush.  Idempotent.
        """
        if self._closed:
            return
        self._closed = True
        self._stream.tracing = None
        self._subscription.close()
        self._end_calls()
        self._spans.end_all(time.time_ns())

    def __enter__(self) -> Instrumentation:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _after_fork(self) -> None:
        self._spans.forget()

    # --- in the threads of the runs -----------------------------------------------------------

    def note(
        self, log: RunLog, kind: EventType, data: Mapping[str, Any], about: object
    ) -> Mapping[str, Any]:
        """See `Tracing.note`: begin the span of an event that is about to be appended."""
        try:
            return self._beginnings.note(log, kind, data, about)
        except Exception:  # of a span processor: a run does not fail for it
            logger.exception("the span of %s in run %s is not made", kind.value, log.workflow_id)
            return data

    def traceparent(self) -> str:
        """See `Tracing.traceparent`."""
        return traceparent_of(current.get_current())

    def headers(self) -> Mapping[str, str]:
        """See `Outgoing.headers`: the global propagator's, without the program's baggage."""
        carrier: Dict[str, str] = {}
        if self.propagate and not self._closed:
            propagation.inject(carrier)
            carrier.pop("baggage", None)
        return carrier

    @contextlib.contextmanager
    def call(
        self, method: str, name: str, address: Optional[Tuple[str, int]], protocol: str
    ) -> Iterator[Callable[[str], object]]:
        """See `Outgoing.call`: the span of a call of an MCP server's tool."""
        failures: List[str] = []
        if self._closed:
            yield failures.append
            return
        attributes = {
            names.MCP_METHOD: method,
            names.TOOL_NAME: name,
            names.MCP_PROTOCOL: protocol,
            **server_of(address),
        }
        known = {key: value for key, value in attributes.items() if value != ""}
        key, here = key_of("mcp", "", "", os.urandom(8).hex()), current.get_current()
        try:
            here = self._spans.begin(key, name, time.time_ns(), known, context=here).context
        except Exception:  # as in `note`
            logger.exception("the span of a call of %s is not made", name)
        token = current.attach(here)
        try:
            yield failures.append
        except BaseException as error:
            failures.append(type(error).__name__)
            raise
        finally:
            current.detach(token)
            # A span's end may take its processors long: it is left to the subscription's thread.
            self._calls.append((key, time.time_ns(), "".join(failures[-1:])))

    # --- in the subscription's ----------------------------------------------------------------

    def _take(self, event: Event) -> None:
        self._end_calls()
        self._by_type[event.type](event)

    def _end_calls(self) -> None:
        """End the spans of calls to MCP servers that are over; their tools' events come behind."""
        while self._calls:
            key, at, failed = self._calls.popleft()
            self._spans.end(key, at, error=failed, is_failure=failed != _CANCELLED)

    def _run_ended(self, event: Event) -> None:
        status = event.type.value[len("workflow_") :]
        if event.type is EventType.WORKFLOW_SUSPENDED:
            status = text(event.data, "status") or status
        error = _error(event)
        if event.type is EventType.WORKFLOW_CANCELLED:
            error = _CANCELLED
        attributes = {names.RUN_STATUS: status, **_usage(event)}
        self._end("run", event, attributes, error=error)

    def _step_ended(self, event: Event) -> None:
        self._end("step", event, {})

    def _agent_ended(self, event: Event) -> None:
        self._end("agent", event, _usage(event))

    def _retried(self, event: Event) -> None:
        self._add_event(
            event,
            names.RETRY_EVENT,
            {
                names.ATTEMPT: event.data.get("attempt", 0),
                names.DELAY: float(event.data.get("delay_s", 0.0)),
                names.ERROR_TYPE: text(event.data, "error"),
            },
        )

    def _fell_back(self, event: Event) -> None:
        """Another client is asked: from here on the span is of a request to that one."""
        data = event.data
        now = {
            names.PROVIDER: text(data, "next_provider"),
            names.REQUEST_MODEL: text(data, "next_model"),
        }
        why = {names.ERROR_TYPE: text(data, "error")}
        self._add_event(event, names.FALLBACK_EVENT, {**why, **now})
        request = self._spans.oldest(_key("request", event))
        if request is not None:
            request.span.update_name(names.span_name("request", now[names.REQUEST_MODEL]))
            request.span.set_attributes(now)
            request.noted.update(now)

    def _add_event(self, event: Event, name: str, attributes: Attributes) -> None:
        request = self._spans.oldest(_key("request", event))
        if request is not None:
            request.span.add_event(name, attributes, timestamp=_nanoseconds(event))

    def _answered(self, event: Event) -> None:
        data = event.data
        attributes = {
            names.PROVIDER: text(data, "provider") or None,
            names.RESPONSE_MODEL: data.get("model"),
            names.RESPONSE_ID: data.get("response_id"),
            names.FIRST_CHUNK: data.get("first_token_s"),
            **_usage(event),
        }
        if data.get("finish_reason"):
            attributes[names.FINISH_REASONS] = [data["finish_reason"]]
        known = {key: value for key, value in attributes.items() if value is not None}
        request = self._end("request", event, known)
        if request is None:
            return
        if names.FIRST_CHUNK in known:
            self._spans.record(names.TO_FIRST_CHUNK, known[names.FIRST_CHUNK], request)
        usage = usage_of(data) or {}
        for key, kind in (("prompt_tokens", "input"), ("completion_tokens", "output")):
            if isinstance(usage.get(key), int):
                self._spans.record(names.TOKENS, usage[key], request, {names.TOKEN_TYPE: kind})

    def _request_failed(self, event: Event) -> None:
        self._end("request", event, {})

    def _tool_ended(self, event: Event) -> None:
        attributes: Attributes = {}
        if self.capture_content:
            attributes[names.TOOL_RESULT] = text(event.data, "result") or text(
                event.data, "message"
            )
        self._end("tool", event, attributes, call=text(event.data, "id"))

    def _end(
        self,
        kind: str,
        event: Event,
        attributes: Attributes,
        *,
        error: Optional[str] = None,
        call: str = "",
    ) -> Optional[OpenSpan]:
        name = _error(event) if error is None else error
        key = _key(kind, event, call)
        at = _nanoseconds(event)
        return self._spans.end(key, at, attributes, name, is_failure=name != _CANCELLED)

    def _missed(self, event: Event) -> None:
        """Ends were lost: those of runs that are over by now."""
        for run in self._spans.runs():
            state = self._stream.store.run(run)
            if state is None or state.ended_at is not None:
                self._spans.end(key_of("run", run), _nanoseconds(event))


_CANCELLED = "Cancelled"


def _key(kind: str, event: Event, call: str = "") -> Any:
    label = "" if kind == "run" else text(event.data, "step")
    return key_of(kind, event.workflow_id, label, call)


def _error(event: Event) -> str:
    return text(event.data, "error")


def _nanoseconds(event: Event) -> int:
    return int(event.timestamp * 1e9)


def _usage(event: Event) -> Attributes:
    """The token counts of an event that are known, by their attributes' names."""
    usage = usage_of(event.data) or {}
    return {name: usage[key] for key, name in names.USAGE.items() if usage.get(key) is not None}
