"""Agent: asks a model, publishes every step of it, runs the tools it calls, asks again.

One generator does it; `execute` drains it, `stream` hands it out.  How a tool
is described and called is tools/; which agent comes next is workflow.py's.
"""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass
from typing import (
    TYPE_CHECKING,
    Any,
    Callable,
    Dict,
    Generator,
    Iterator,
    List,
    Mapping,
    Optional,
    Sequence,
    Tuple,
    Union,
)  # fmt: skip

from agentstream.cancel import CancelToken
from agentstream.errors import AgentStreamError, Cancelled, ConfigError, LimitExceeded
from agentstream.events.model import EventType
from agentstream.events.stream import EventStream, RunLog
from agentstream.llm.answer import Answer, tokens_per_second
from agentstream.llm.call import DeltaStream
from agentstream.llm.clients import ChatClient
from agentstream.llm.messages import (
    ChatMessage,
    ChatRequest,
    ChatResponse,
    Content,
    Delta,
    Usage,
)  # fmt: skip

if TYPE_CHECKING:
    from agentstream.tools import Tool

__all__ = ["Agent", "AgentOutput", "AgentStream"]


@dataclass(frozen=True)
class AgentOutput:
    """What an agent came to.

    Attributes:
        response: the text of its last answer.
        agent_name: its name.
        execution_time_ms: from the first request to the last text.
        usage: of all its requests together.
        tool_calls_count: how many tool calls it made.
        tokens_per_second: of its last answer; None when it cannot be known.
        chat_response: the last answer itself.
    """

    response: str
    agent_name: str
    execution_time_ms: float
    usage: Usage
    tool_calls_count: int
    tokens_per_second: Optional[float]
    chat_response: ChatResponse


class Scribe:
    """Writes an agent's events, each labelled with the agent and its step; or nowhere."""

    __slots__ = ("_log", "agent", "step")

    def __init__(self, log: Optional[RunLog], agent: str, step: str) -> None:
        self._log = log
        self.agent = agent
        self.step = step

    @property
    def workflow_id(self) -> str:
        return self._log.workflow_id if self._log is not None else ""

    def note(self, kind: EventType, **data: Any) -> None:
        if self._log is not None:
            self._log.append(kind, {"agent": self.agent, "step": self.step, **data})

    def chunk(self, kind: EventType, text: str) -> None:
        if self._log is not None:
            self._log.append(kind, {"agent": self.agent, "step": self.step, "chunk": text})


class Agent:
    """A model with a task.

    Keeps nothing between runs; any number of threads may run one.

    Args:
        name: how events and outputs call it.
        system_prompt: its instructions; "" for none.
        client: the model it talks to.
        tools: functions or `Tool`s the model may call.
        temperature, top_p, max_tokens, seed, stop, response_format, extra: as
            in `ChatRequest`; None for the server's default.
        max_rounds: requests a run may take; tool calls lead to further ones.
        tool_timeout: seconds a tool may take that sets no time of its own.

    Raises:
        ConfigError: a setting cannot be used.
    """

    def __init__(
        self,
        name: str,
        *,
        client: ChatClient,
        system_prompt: str = "",
        tools: Sequence[Union[Tool, Callable[..., Any]]] = (),
        temperature: Optional[float] = None,
        top_p: Optional[float] = None,
        max_tokens: Optional[int] = None,
        seed: Optional[int] = None,
        stop: Union[str, Sequence[str], None] = None,
        response_format: Optional[Mapping[str, Any]] = None,
        extra: Optional[Mapping[str, Any]] = None,
        max_rounds: int = 10,
        tool_timeout: Optional[float] = 60.0,
    ) -> None:
        if not isinstance(name, str) or not name:
            raise ConfigError("an agent needs a name")
        if not isinstance(client, ChatClient):
            raise ConfigError(f"agent {name!r}: client must be a ChatClient")
        if not isinstance(max_rounds, int) or max_rounds < 1:
            raise ConfigError(f"agent {name!r}: max_rounds must be 1 or more")
        self.name = name
        self.system_prompt = system_prompt
        self.client = client
        self.max_rounds = max_rounds
        self.tool_timeout = tool_timeout
        self.tools = _as_tools(name, tools)
        self._settings: Dict[str, Any] = {
            "temperature": temperature,
            "top_p": top_p,
            "max_tokens": max_tokens,
            "seed": seed,
            "stop": stop,
            "response_format": response_format,
            "extra": dict(extra or {}),
            "tools": [tool.to_openai() for tool in self.tools.values()],
        }

    def __repr__(self) -> str:
        return f"<Agent {self.name!r} on {self.client!r}>"

    def stream(self, input: Content, *, cancel: Optional[CancelToken] = None) -> AgentStream:
        """Run the agent; iterate its text as it arrives, all rounds of it."""
        return AgentStream(self, input, None, "", cancel)

    def execute(self, input: Content, *, cancel: Optional[CancelToken] = None) -> AgentOutput:
        """Run the agent to its end; returns its `AgentOutput`.

        Raises:
            AgentStreamError: whichever applies, with `partial`.
        """
        return _drain(self.stream(input, cancel=cancel))

    def execute_with_events(
        self,
        input: Content,
        event_stream: EventStream,
        *,
        workflow_id: Optional[str] = None,
        cancel: Optional[CancelToken] = None,
    ) -> AgentOutput:
        """As `execute`, with an event for every step of it.

        The events' `workflow_id` is the given one or a new one; the last is
        agent_completed or agent_failed.
        """
        log = event_stream.open_log(workflow_id or uuid.uuid4().hex[:16])
        return _drain(AgentStream(self, input, log, "", cancel))

    # --- the one generator ------------------------------------------------------------------

    def run(
        self, input: Content, scribe: Scribe, cancel: CancelToken
    ) -> Generator[str, None, AgentOutput]:
        """Yield the text; the generator's value is the `AgentOutput`.  For workflow.py."""
        started = time.monotonic()
        scribe.note(EventType.AGENT_PROCESSING)
        try:
            response, usage, calls = yield from self._rounds(input, scribe, cancel)
        except AgentStreamError as error:
            scribe.note(EventType.AGENT_FAILED, **describe(error))
            raise
        took = (time.monotonic() - started) * 1000
        output = AgentOutput(
            response.content, self.name, took, usage, calls, tokens_per_second(response), response
        )
        scribe.note(
            EventType.AGENT_COMPLETED,
            response=output.response,
            execution_time_ms=took,
            usage=usage.to_dict(),
            tool_calls_count=calls,
        )
        return output

    def _rounds(
        self, input: Content, scribe: Scribe, cancel: CancelToken
    ) -> Generator[str, None, Tuple[ChatResponse, Usage, int]]:
        messages: List[ChatMessage] = []
        if self.system_prompt:
            messages.append(ChatMessage.system(self.system_prompt))
        messages.append(ChatMessage.user(input))
        usage: Optional[Usage] = None
        calls = 0
        for number in range(1, self.max_rounds + 1):
            request = ChatRequest(list(messages), **self._settings)
            response = yield from self._ask(request, number, scribe, cancel)
            usage = response.usage if usage is None else usage + response.usage
            if not response.tool_calls:
                return response, usage, calls
            calls += len(response.tool_calls)
            messages.append(ChatMessage.assistant(response.content or None, response.tool_calls))
            messages += self._call_tools(response, scribe, cancel)
        raise LimitExceeded(
            f"agent {self.name!r} made {self.max_rounds} requests and still calls tools"
            " (Agent.max_rounds)",
            limit="max_rounds", phase="tool", partial=response,
        )  # fmt: skip

    def _ask(
        self, request: ChatRequest, number: int, scribe: Scribe, cancel: CancelToken
    ) -> Generator[str, None, ChatResponse]:
        """One request: yields its text, publishes all it brings, returns the answer."""
        client = self.client
        scribe.note(
            EventType.AGENT_LLM_REQUEST_STARTED,
            provider=client.provider, model=client.model, round=number,
        )  # fmt: skip
        deltas = client.stream_deltas(request, cancel=cancel)
        given = deltas.answer if isinstance(deltas, DeltaStream) else None
        answer = given or Answer(client.model)
        try:
            for delta in deltas:
                if given is None:
                    answer.add(delta)
                content = delta[0]
                if delta[1] or delta[7]:
                    _note_rest(delta, scribe)
                if content:
                    scribe.chunk(EventType.AGENT_LLM_STREAM_CHUNK, content)
                    yield content
        except AgentStreamError as error:
            if error.partial is None:
                error.partial = answer.response()
            scribe.note(EventType.AGENT_LLM_REQUEST_FAILED, round=number, **describe(error))
            raise
        finally:
            close = getattr(deltas, "close", None)
            if close is not None:
                close()
        if given is None:
            answer.end()
        response = answer.response()
        for warning in response.warnings:
            scribe.note(EventType.SYSTEM_WARNING, message=warning)
        scribe.note(
            EventType.AGENT_LLM_REQUEST_COMPLETED,
            round=number,
            model=response.model,
            finish_reason=response.finish_reason,
            usage=response.usage.to_dict(),
            first_token_s=response.first_token_s,
            duration_s=response.duration_s,
            tokens_per_second=response.tokens_per_second,
            warnings=response.warnings,
        )
        return response

    def _call_tools(
        self, response: ChatResponse, scribe: Scribe, cancel: CancelToken
    ) -> List[ChatMessage]:
        from agentstream.tool_runs import run_calls  # noqa: PLC0415 - only who has tools pays

        texts = run_calls(self.tools, response.tool_calls, scribe, cancel, self.tool_timeout)
        if cancel.cancelled:
            raise Cancelled(
                f"stopped while tools ran: {cancel.reason}", phase="tool", partial=response
            )
        return [
            ChatMessage.tool(call.id, text) for call, text in zip(response.tool_calls, texts)
        ]


class AgentStream(Iterator[str]):
    """An agent's text as it arrives.  `output` is there once it has ended."""

    def __init__(
        self,
        agent: Agent,
        input: Content,
        log: Optional[RunLog],
        step: str,
        cancel: Optional[CancelToken],
    ) -> None:
        self._cancel = cancel or CancelToken()
        self._texts = agent.run(input, Scribe(log, agent.name, step), self._cancel)
        self._output: Optional[AgentOutput] = None

    def __next__(self) -> str:
        try:
            return next(self._texts)
        except StopIteration as end:
            self._output = end.value or self._output
            raise

    @property
    def output(self) -> AgentOutput:
        """The `AgentOutput`.

        Raises:
            RuntimeError: the stream has not been read to its end.
        """
        if self._output is None:
            raise RuntimeError("there is no output before the stream has been read to its end")
        return self._output

    def cancel(self, reason: str = "AgentStream.cancel()") -> None:
        """Stop the agent, from any thread; its reader gets `Cancelled`."""
        self._cancel.cancel(reason)

    def close(self) -> None:
        """End the run and free its socket."""
        self._texts.close()

    def __enter__(self) -> AgentStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _drain(stream: AgentStream) -> AgentOutput:
    with stream:
        for _ in stream:
            pass
        return stream.output


def _note_rest(delta: Delta, scribe: Scribe) -> None:
    if delta.reasoning:
        scribe.chunk(EventType.AGENT_LLM_REASONING_CHUNK, delta.reasoning)
    if delta.retry is not None:
        scribe.note(EventType.AGENT_LLM_REQUEST_RETRIED, **delta.retry._asdict())


def describe(error: BaseException) -> Dict[str, Any]:
    """What an event says of an error."""
    data: Dict[str, Any] = {"error": type(error).__name__, "message": str(error)}
    if isinstance(error, AgentStreamError):
        data.update(
            phase=error.phase,
            retryable=error.retryable,
            request_id=error.request_id,
            outcome=error.outcome,
        )
    return data


def _as_tools(
    agent: str, tools: Sequence[Union[Tool, Callable[..., Any]]]
) -> Dict[str, Tool]:
    if not tools:
        return {}
    from agentstream.tools import as_tool  # noqa: PLC0415 - only who has tools pays for it

    found: Dict[str, Tool] = {}
    for given in tools:
        made = as_tool(given)
        if made.name in found:
            raise ConfigError(f"agent {agent!r} has two tools named {made.name!r}")
        found[made.name] = made
    return found
