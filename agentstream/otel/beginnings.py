"""Where spans begin: in the thread and the context that do the work.

What is within a span, a user's own spans and the requests that leave, is so by way of
OpenTelemetry's current context, which flows as contextvars do.  Runs and agents on their
own begin within it; of what is within a run, the parent is found by the step's label.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Callable, Dict, Mapping, Optional

from opentelemetry import context as current, trace
from opentelemetry.context import Context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from agentstream.events.accessors import text
from agentstream.events.model import EventType
from agentstream.events.run_log import RunLog
from agentstream.events.stream import EventStream
from agentstream.llm.clients import ChatClient
from agentstream.llm.messages import ChatRequest
from agentstream.llm.transport import outgoing
from agentstream.otel import names
from agentstream.otel.spans import Key, OpenSpan, Spans

if TYPE_CHECKING:
    from agentstream.llm.transport.outgoing import Outgoing

__all__ = ["Beginnings", "key_of", "server_of", "traceparent_of"]

Data = Mapping[str, Any]
Attributes = Dict[str, Any]

#: What a metric says of a tool that the agent does not have: models make up names.
OTHER = "_OTHER"
#: Kinds of spans that end with these events.
_LEFT: Mapping[EventType, str] = {
    EventType.WORKFLOW_STEP_COMPLETED: "step",
    EventType.WORKFLOW_STEP_FAILED: "step",
    EventType.AGENT_COMPLETED: "agent",
    EventType.AGENT_FAILED: "agent",
    EventType.AGENT_LLM_REQUEST_COMPLETED: "request",
    EventType.AGENT_LLM_REQUEST_FAILED: "request",
    EventType.TOOL_CALL_COMPLETED: "tool",
    EventType.TOOL_CALL_FAILED: "tool",
}
_FORMAT = TraceContextTextMapPropagator()


class Beginnings:
    """Begins the spans of a stream's runs.

    Args:
        stream: theirs.
        spans: those that are open.
        capture_content: whether spans hold what is said.
        sends: says which headers go out.
    """

    def __init__(
        self, stream: EventStream, spans: Spans, sends: Outgoing, *, capture_content: bool
    ) -> None:
        self._stream = stream
        self._spans = spans
        self._sends = sends
        self._content = capture_content
        self._by_type: Mapping[EventType, Callable[[RunLog, Data, Any], Optional[Data]]] = {
            EventType.WORKFLOW_STARTED: self._run,
            EventType.WORKFLOW_RESUMED: self._resumed,
            EventType.WORKFLOW_STEP_STARTED: self._step,
            EventType.AGENT_PROCESSING: self._agent,
            EventType.AGENT_LLM_REQUEST_STARTED: self._request,
            EventType.AGENT_LLM_REQUEST_COMPLETED: self._answer,
            EventType.TOOL_CALL_STARTED: self._tool,
        }

    def note(self, log: RunLog, kind: EventType, data: Data, about: object) -> Data:
        """See `Tracing.note`; raises what a span processor of the user's raises."""
        begin = self._by_type.get(kind)
        changed = None if begin is None else begin(log, data, about)
        if kind in _LEFT:  # what comes next, a predicate of a Repeat's say, is not within it
            around = self._around(_LEFT[kind], log.workflow_id, text(data, "step"))
            if around is not None:
                current.attach(trace.set_span_in_context(around.span))
        return data if changed is None else changed

    def _around(self, kind: str, run: str, label: str) -> Optional[OpenSpan]:
        """The open span around one of a kind: around an agent's, that of the step which has it."""
        keys = []
        if kind == "step":
            while "." in label:  # "1.then.0" is within "1.then", or "1"
                label = label.rpartition(".")[0]
                keys.append(key_of("step", run, label))
        else:
            keys.append(key_of("step" if kind == "agent" else "agent", run, label))
        return self._spans.newest(*keys, key_of("run", run))

    # --- runs -------------------------------------------------------------------------------

    def _run(self, log: RunLog, data: Data, about: object) -> Data:
        """A run begins within the span that it was queued in, or that is current here."""
        begun = self._begin_within(log, data, about if isinstance(about, str) else "")
        mine = traceparent_of(begun.context)
        return {**data, "traceparent": mine} if mine else data

    def _resumed(self, log: RunLog, data: Data, about: object) -> None:
        """A run goes on within the span that it began with, in whichever process that was."""
        here = current.get_current()
        outer = log.parent_workflow_id
        if outer is not None and self._spans.newest(("run", outer, "", "")) is not None:
            self._begin_run(log, data, here)
            return
        first = self._stream.store.read(workflow_id=log.workflow_id, after=0, limit=1)
        self._begin_within(log, data, text(first[0].data, "traceparent") if first else "")

    def _begin_within(self, log: RunLog, data: Data, traceparent: str) -> OpenSpan:
        """Begin a run's span within one of another process; the current one is a link then."""
        here = current.get_current()
        there = _FORMAT.extract({"traceparent": traceparent}, context=here)
        outer, mine = (trace.get_current_span(each).get_span_context() for each in (there, here))
        if not outer.is_valid or outer.span_id == mine.span_id:
            return self._begin_run(log, data, here)
        links = (trace.Link(mine),) if mine.is_valid else ()
        return self._begin_run(log, data, there, links)

    def _begin_run(self, log: RunLog, data: Data, context: Context, links: Any = ()) -> OpenSpan:
        name = text(data, "workflow")
        attributes = {names.WORKFLOW_NAME: name, names.RUN_ID: log.workflow_id}
        key = key_of("run", log.workflow_id)
        return self._begin(key, name, attributes, context=context, links=links)

    def _step(self, log: RunLog, data: Data, about: object) -> None:
        label, run = text(data, "step"), log.workflow_id
        attributes = {
            names.RUN_ID: run,
            names.STEP: label,
            names.STEP_NAME: text(data, "name"),
            names.STEP_KIND: text(data, "kind"),
            names.ATTEMPT: data.get("attempt", 1),
        }
        self._begin(key_of("step", run, label), text(data, "name"), attributes)

    # --- agents -----------------------------------------------------------------------------

    def _agent(self, log: RunLog, data: Data, about: object) -> None:
        label, run, name = text(data, "step"), log.workflow_id, text(data, "agent")
        attributes: Attributes = {names.AGENT_NAME: name, names.RUN_ID: run}
        if label:
            attributes[names.STEP] = label
        conversation = getattr(about, "key", None)
        if isinstance(conversation, str):
            attributes[names.CONVERSATION_ID] = conversation
        self._begin(key_of("agent", run, label), name, attributes)

    def _request(self, log: RunLog, data: Data, about: Any) -> None:
        attributes: Attributes = {
            names.RUN_ID: log.workflow_id,
            names.AGENT_NAME: text(data, "agent"),
            names.PROVIDER: text(data, "provider"),
            names.REQUEST_STREAM: True,
            names.ROUND: data.get("round", 1),
        }
        model = text(data, "model")
        if about is not None:
            client: ChatClient = about[0]
            request: ChatRequest = about[1]
            model = request.model or model
            attributes.update(_settings(request))
            attributes.update(server_of(client.address))
            if self._content:
                from agentstream.otel.content import asked  # noqa: PLC0415 - only who asks for it

                attributes.update(asked(request))
        if model:
            attributes[names.REQUEST_MODEL] = model
        key = key_of("request", log.workflow_id, text(data, "step"))
        self._begin(key, model, attributes)

    def _answer(self, log: RunLog, data: Data, about: Any) -> None:
        if not self._content or about is None:
            return
        from agentstream.otel.content import said  # noqa: PLC0415 - only who asks for it

        asked = self._spans.newest(key_of("request", log.workflow_id, text(data, "step")))
        if asked is not None:
            asked.span.set_attributes(said(about))

    def _tool(self, log: RunLog, data: Data, about: object) -> None:
        name = text(data, "name")
        attributes: Attributes = {
            names.TOOL_NAME: name,
            names.TOOL_CALL_ID: text(data, "id"),
            names.TOOL_TYPE: "function",
            names.RUN_ID: log.workflow_id,
            names.AGENT_NAME: text(data, "agent"),
        }
        if self._content:
            attributes[names.TOOL_ARGUMENTS] = text(data, "arguments")
        key = key_of("tool", log.workflow_id, text(data, "step"), text(data, "id"))
        begun = self._begin(key, name, attributes)
        if about is None:
            begun.noted[names.TOOL_NAME] = OTHER

    def _begin(
        self,
        key: Key,
        name: str,
        attributes: Attributes,
        *,
        context: Optional[Context] = None,
        links: Any = (),
    ) -> OpenSpan:
        """Begin a span and make it the current one of this context, which is a run's own.

        Args:
            context: in which it begins; None for the span around it, or what is current.
        """
        kind, run, label, _ = key
        parent = self._around(kind, run, label) if context is None else None
        if parent is None and context is None:  # an agent on its own
            context = current.get_current()
        begun = self._spans.begin(
            key, name, time.time_ns(), attributes, parent=parent, context=context, links=links
        )
        # Not the span's own context: what else is in this one, baggage say, is the user's.
        current.attach(trace.set_span_in_context(begun.span))
        outgoing.set(self._sends)
        return begun


def key_of(kind: str, run: str, label: str = "", call: str = "") -> Key:
    """The key of a span: see `Key`."""
    return kind, run, label, call


def traceparent_of(context: Context) -> str:
    """A context's span as W3C Trace Context has it; "" for none."""
    carrier: Dict[str, str] = {}
    _FORMAT.inject(carrier, context=context)
    return carrier.get("traceparent", "")


def server_of(address: Any) -> Attributes:
    """The attributes of a server's host and port."""
    if not isinstance(address, tuple) or len(address) != 2:  # a client of the user's own says it
        return {}
    return {names.SERVER_ADDRESS: address[0], names.SERVER_PORT: address[1]}


def _settings(request: ChatRequest) -> Attributes:
    """What a request sets, as its span's attributes."""
    found: Attributes = {}
    for field, name in names.REQUEST_FIELDS.items():
        value = getattr(request, field)
        if value is not None:
            found[name] = value
    if request.stop:
        found[names.REQUEST_STOP] = (
            [request.stop] if isinstance(request.stop, str) else list(request.stop)
        )
    return found
