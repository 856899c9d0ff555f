"""Agent: a model with a task and tools; its settings, and the ways to run it.

`run` is the one generator; `execute` drains it, `stream` hands it out.  What
happens in a run is agent_run.py's, which agent comes next is workflow.py's.
"""

from __future__ import annotations

import contextlib
import time
from typing import (
    TYPE_CHECKING,
    Any,
    Callable,
    Dict,
    Generator,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
    Union,
)

from agentstream import checks
from agentstream.agent.journal import Scribe
from agentstream.agent.run import AgentRun
from agentstream.agent.settings import as_choice, as_tools
from agentstream.cancel import CancelToken
from agentstream.errors import ConfigError
from agentstream.events import payloads
from agentstream.events.model import EventType, new_id
from agentstream.events.stream import EventStream, RunLog
from agentstream.llm.accumulator import tokens_per_second
from agentstream.llm.clients import ChatClient
from agentstream.llm.messages import Content
from agentstream.llm.stream import GuardedStream
from agentstream.results import ChatResponse, Usage

if TYPE_CHECKING:
    from agentstream.agent.conversation import Conversation
    from agentstream.agent.tool_calls import Toolbox
    from agentstream.results import ToolCall
    from agentstream.tools import Tool

__all__ = ["Agent", "AgentOutput", "AgentStream", "Scribe"]


class AgentOutput(NamedTuple):
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


class Agent:
    """A model with a task.

    Keeps nothing between runs (that is what a `Conversation` is for); any number
    of threads may run one.

    Args:
        name: how events and outputs call it.
        system_prompt: its instructions; "" for none.
        client: the model it talks to.
        tools: functions or `Tool`s the model may call.
        temperature, top_p, max_tokens, seed, stop, response_format, extra: as
            in `ChatRequest`; None for the server's default.
        tool_choice: "auto", "none", "required" or a tool's name; it binds a run's
            first request only, or no run that must call a tool would ever end.
        parallel_tool_calls: may the model make several calls at once; None for
            the server's default.
        max_rounds: requests a run may take; tool calls lead to further ones.
        repeat_limit: a run whose model makes the same call (tool and arguments)
            in so many answers ends with `LimitExceeded`, after as many requests;
            until then it is told the earlier result again, with a remark.  None
            for no limit.
        repeat_memory: how many of a run's last answers count for that; None for
            all of them; 0: no result is told again, each call runs anew, and
            the limit counts all the same.  A tool made `repeatable` is exempt.
        tool_timeout: seconds a tool may take that sets no time of its own; None
            for no bound.
        tool_result_limit: characters of a result that the model is sent.
        approve: called with each `ToolCall` before it is made, whose arguments
            have been found valid; answers True, False, a reason (a str: no),
            other arguments (a dict), or an `Approval`.  Anything else, and what
            it raises, is a no.  It runs in a thread of its own, for one call of
            an answer after the other, and may take its time; several runs may
            call it at once.

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
        tool_choice: Union[str, Mapping[str, Any], None] = None,
        parallel_tool_calls: Optional[bool] = None,
        max_rounds: int = 10,
        repeat_limit: Optional[int] = 3,
        repeat_memory: Optional[int] = None,
        tool_timeout: Optional[float] = 60.0,
        tool_result_limit: int = 20_000,
        approve: Optional[Callable[[ToolCall], object]] = None,
    ) -> None:
        if not isinstance(name, str) or not name:
            raise ConfigError("an agent needs a name")
        of = f"agent {name!r}"
        checks.instance("client", client, ChatClient, of=of)
        checks.whole("max_rounds", max_rounds, 1, of=of)
        checks.whole("repeat_limit", repeat_limit, 2, optional=True, of=of)
        checks.whole("repeat_memory", repeat_memory, optional=True, of=of)
        checks.whole("tool_result_limit", tool_result_limit, 100, of=of)
        tool_timeout = checks.seconds("tool_timeout", tool_timeout, optional=True, of=of)
        checks.function("approve", approve, optional=True, of=of)
        self.name = name
        self.system_prompt = system_prompt
        self.client = client
        self.max_rounds = max_rounds
        self.repeat_limit = repeat_limit
        self.repeat_memory = repeat_memory
        self.tool_timeout = tool_timeout
        self.tool_result_limit = tool_result_limit
        self.approve = approve
        self.tools = as_tools(name, tools)
        self._toolbox: Optional[Toolbox] = None
        self.tool_choice = as_choice(name, tool_choice, self.tools)
        self._settings: Dict[str, Any] = {
            "temperature": temperature,
            "top_p": top_p,
            "max_tokens": max_tokens,
            "seed": seed,
            "stop": stop,
            "response_format": response_format,
            "extra": dict(extra or {}),
            "tools": [tool.to_openai() for tool in self.tools.values()],
            "parallel_tool_calls": parallel_tool_calls,
        }

    def __repr__(self) -> str:
        return f"<Agent {self.name!r} on {self.client!r}>"

    def stream(
        self,
        input: Content,
        *,
        cancel: Optional[CancelToken] = None,
        conversation: Optional[Conversation] = None,
    ) -> AgentStream:
        """Run the agent; iterate its text as it arrives, all rounds of it.

        With a `Conversation` the model is told what was said before, and the
        run is added to it once it has come to its end.
        """
        return AgentStream(self, input, None, "", cancel, conversation=conversation)

    def execute(
        self,
        input: Content,
        *,
        cancel: Optional[CancelToken] = None,
        conversation: Optional[Conversation] = None,
    ) -> AgentOutput:
        """Run the agent to its end; returns its `AgentOutput`.

        Raises:
            AgentStreamError: whichever applies, with `partial`.
            RuntimeError: another run is under way with that conversation.
        """
        return _drain(self.stream(input, cancel=cancel, conversation=conversation))

    def execute_with_events(
        self,
        input: Content,
        event_stream: EventStream,
        *,
        workflow_id: Optional[str] = None,
        cancel: Optional[CancelToken] = None,
        conversation: Optional[Conversation] = None,
    ) -> AgentOutput:
        """As `execute`, with an event for every step of it.

        The events' `workflow_id` is the given one or a new one; the last is
        agent_completed or agent_failed.
        """
        log = event_stream.open_log(workflow_id or new_id())
        return _drain(AgentStream(self, input, log, "", cancel, conversation=conversation))

    def as_tool(
        self,
        description: str,
        *,
        name: Optional[str] = None,
        timeout: Optional[float] = 600.0,
    ) -> Tool:
        """This agent as a tool of another: it takes a text, `input`, and answers with its own.

        In a run that has events it is a run of its own, whose events name the
        calling run (`parent_workflow_id`).  It ends when that one is stopped.

        Args:
            description: what it is good for, for the other's model.
            name: for the model; None for the agent's own, with "_" for what a
                tool's name cannot have.
            timeout: seconds it may take; None for the other agent's `tool_timeout`.

        Raises:
            ConfigError: the name or the timeout cannot be used.
        """
        from agentstream.agent.delegation import AgentTool  # noqa: PLC0415 - it knows workflows

        return AgentTool(self, description, name=name, timeout=timeout)

    # --- the one generator ------------------------------------------------------------------

    def run(
        self,
        input: Content,
        scribe: Scribe,
        cancel: CancelToken,
        conversation: Optional[Conversation] = None,
    ) -> Generator[str, None, AgentOutput]:
        """Yield the text; the generator's value is the `AgentOutput`.  For workflow.py."""
        with conversation._in_use() if conversation is not None else contextlib.nullcontext():
            started = time.monotonic()
            scribe.note(EventType.AGENT_PROCESSING, payloads.agent_processing())
            run = AgentRun(self, scribe, cancel, conversation)
            try:
                response, usage = yield from run.rounds(input)
            except BaseException as error:  # Ctrl-C and a closed generator too
                scribe.note_failure(EventType.AGENT_FAILED, payloads.agent_failed(error))
                raise
            took = (time.monotonic() - started) * 1000
            rate = tokens_per_second(response)
            output = AgentOutput(
                response.content, self.name, took, usage, run.tool_calls, rate, response
            )
            if conversation is not None:
                conversation.add(*run.turn)
        scribe.note(
            EventType.AGENT_COMPLETED,
            payloads.agent_completed(
                response=output.response,
                execution_time_ms=took,
                usage=usage.to_dict(),
                tool_calls_count=run.tool_calls,
            ),
        )
        return output

    def settings_of(self, number: int) -> Dict[str, Any]:
        """What a run's request number `number`, from 1, says besides its messages."""
        if number == 1 and self.tool_choice is not None:
            return {**self._settings, "tool_choice": self.tool_choice}
        return self._settings

    @property
    def toolbox(self) -> Toolbox:
        """The tools, and how they are run."""
        if self._toolbox is None:
            from agentstream.agent.tool_calls import Toolbox  # noqa: PLC0415 - only who has tools pays

            self._toolbox = Toolbox(
                self.tools, self.tool_timeout, self.approve, self.tool_result_limit
            )
        return self._toolbox


class AgentStream(GuardedStream[str]):
    """An agent's text as it arrives.  `output` is there once it has ended."""

    def __init__(
        self,
        agent: Agent,
        input: Content,
        log: Optional[RunLog],
        step: str,
        cancel: Optional[CancelToken],
        *,
        conversation: Optional[Conversation] = None,
    ) -> None:
        super().__init__(cancel)
        scribe = Scribe(log, agent.name, step)
        self._items = agent.run(input, scribe, self._cancel, conversation)
        self._output: Optional[AgentOutput] = None

    def _ended(self, value: Optional[AgentOutput]) -> None:
        self._output = value or self._output

    @property
    def output(self) -> AgentOutput:
        """The `AgentOutput`.

        Raises:
            RuntimeError: the stream has not been read to its end.
        """
        if self._output is None:
            raise RuntimeError("there is no output before the stream has been read to its end")
        return self._output


def _drain(stream: AgentStream) -> AgentOutput:
    with stream:
        for _ in stream:
            pass
        return stream.output
