"""Agent: a model with a task and tools, and the ways to run it.

What happens in a run is run.py's, which agent comes next is the workflow's.
"""

from __future__ import annotations

import contextvars
import re
from typing import TYPE_CHECKING, Any, Callable, Dict, Mapping, Optional, Sequence, Union

from agentstream import checks
from agentstream.agent.asked import Asked
from agentstream.agent.keywords import HINTS, METHODS, RUN_HINTS
from agentstream.agent.run import AgentOutput
from agentstream.agent.settings import (
    FIELDS,
    LIMIT_KEYS,
    AgentSettings,
    ToolLimits,
    as_choice,
    as_output,
    as_tools,
    split,
)
from agentstream.agent.stream import AgentStream, drain
from agentstream.cancel import CancelToken
from agentstream.events.model import new_id
from agentstream.events.stream import EventStream
from agentstream.llm.clients import ChatClient
from agentstream.llm.keywords import OTHER_FIELD
from agentstream.results import ToolCall
from agentstream.tools.context import RunContext

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from agentstream.agent.conversation import Conversation
    from agentstream.agent.settings import RequestFields
    from agentstream.tools import Tool

__all__ = ["Agent", "AgentOutput", "AgentStream", "ToolLimits"]

_PARAMETERS = {
    "type": "object",
    "properties": {
        "input": {"type": "string", "description": "What to do, with all that must be known."}
    },
    "required": ["input"],
    "additionalProperties": False,
}


class Agent:
    """A model with a task.

    Keeps nothing between runs (that is what a `Conversation` is for); any number
    of threads may run one.

    Args:
        name: how events and outputs call it.
        client: the model it talks to.
        system_prompt: its instructions; "" for none.  `system` is the same.
        tools: functions or `Tool`s the model may call.
        tool_choice: "auto", "none", "required" or a tool's name; it binds a run's
            first request only, or no run that must call a tool would ever end.
        tool_limits: how many rounds, repeats, seconds and characters its tools may
            take; None for the defaults of `ToolLimits`.
        approve: called with each `ToolCall` before it is made, whose arguments
            have been found valid; answers True, False, a reason (a str: no),
            other arguments (a dict), or an `Approval`.  Anything else, and what
            it raises, is a no.  It runs in a thread of its own, for one call of
            an answer after the other, and may take its time; several runs may
            call it at once.
        output: the type of its answer, or an `Output`: the `value` of what a run gives.
            A wrong answer is sent back with its problems, as often as `Output.retries`
            says; then a run raises `OutputInvalid`.
        temperature, top_p, max_tokens, seed, stop, response_format: as in
            `ChatRequest`; None for the server's default.
        fields: `extra`, as in `ChatRequest`; `parallel_tool_calls`: may the model
            make several calls at once, None for the server's default; with False
            they are also run one after the other; `reasoning_effort`, as in
            `ChatRequest`; `on_cut`: what an answer is that a limit of tokens or a
            filter has cut: "warn" (default), among the warnings of the output, or
            "fail", a `LimitExceeded`; `budget`: what each of its runs may spend, the agents
            that are its tools included, a `Budget`.  The limits by their old names, as
            `max_rounds`, are taken until 0.3.

    Raises:
        ConfigError: a setting cannot be used.
    """

    @checks.keywords(HINTS, more=FIELDS, otherwise=OTHER_FIELD)
    def __init__(
        self,
        name: str,
        client: ChatClient,
        *,
        system_prompt: Optional[str] = "",
        tools: Sequence[Union[Tool, Callable[..., Any]]] = (),
        tool_choice: Union[str, Mapping[str, Any], None] = None,
        tool_limits: Optional[ToolLimits] = None,
        approve: Optional[Callable[[ToolCall], object]] = None,
        output: Any = None,
        temperature: Optional[float] = None,
        top_p: Optional[float] = None,
        max_tokens: Optional[int] = None,
        seed: Optional[int] = None,
        stop: Union[str, Sequence[str], None] = None,
        response_format: Optional[Mapping[str, Any]] = None,
        **fields: Unpack[RequestFields],
    ) -> None:
        limits, more = split(name, tool_limits, fields, system_prompt)
        self.name = name
        self.client = client
        self.system_prompt = more.get("system", system_prompt) or ""
        self.tools = as_tools(name, tools)
        self.tool_choice = as_choice(name, tool_choice, self.tools)
        self.tool_limits = limits
        self.approve = approve
        self.on_cut = more.get("on_cut", "warn")
        self.budget = more.get("budget")
        self._settings: Dict[str, Any] = {
            "temperature": temperature,
            "top_p": top_p,
            "max_tokens": max_tokens,
            "seed": seed,
            "stop": stop,
            "response_format": response_format,
            "output": as_output(name, output, response_format),
            "extra": dict(more.get("extra") or {}),
            "tools": [tool.to_openai() for tool in self.tools.values()],
            "parallel_tool_calls": more.get("parallel_tool_calls"),
            "reasoning_effort": more.get("reasoning_effort"),
        }
        self.settings  # noqa: B018 - what cannot be used is refused here

    @property
    def settings(self) -> AgentSettings:
        """The agent as a run that begins now sees it."""
        return AgentSettings(
            self.name,
            self.client,
            self.system_prompt,
            self.tools,
            self.tool_choice,
            self.tool_limits,
            self.approve,
            self._settings,
            self.on_cut,
            self.budget,
        )

    def __repr__(self) -> str:
        return f"<Agent {self.name!r} on {self.client!r}>"

    def __getattr__(self, name: str) -> Any:
        if name in LIMIT_KEYS:  # until 0.3
            return getattr(self.tool_limits, LIMIT_KEYS[name])
        known = METHODS.get(name)
        hint = f": it is {known}" if known else ""
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}{hint}")

    @checks.keywords(RUN_HINTS)
    def stream(
        self,
        input: Asked,
        *,
        cancel: Optional[CancelToken] = None,
        conversation: Optional[Conversation] = None,
    ) -> AgentStream:
        """Run the agent; iterate its text as it arrives, all rounds of it.

        It is asked a text, a list of a message's parts, or messages (`ChatMessage`s, or
        dicts in OpenAI's form), which stand behind its system prompt.
        With a `Conversation` the model is told what was said before, and the
        run is added to it once it has come to its end.

        Raises:
            ConfigError: it cannot be asked that.
        """
        return AgentStream(self.settings, input, None, cancel, conversation)

    @checks.keywords(RUN_HINTS)
    def execute(
        self,
        input: Asked,
        *,
        cancel: Optional[CancelToken] = None,
        conversation: Optional[Conversation] = None,
    ) -> AgentOutput:
        """Run the agent to its end; returns its `AgentOutput`.

        Raises:
            AgentStreamError: whichever applies, with `partial`.
            RuntimeError: another run is under way with that conversation.
        """
        return drain(self.stream(input, cancel=cancel, conversation=conversation))

    @checks.keywords(RUN_HINTS)
    def run(
        self,
        input: Asked,
        *,
        cancel: Optional[CancelToken] = None,
        conversation: Optional[Conversation] = None,
    ) -> AgentOutput:
        """The same as `execute`."""
        return self.execute(input, cancel=cancel, conversation=conversation)

    def execute_with_events(
        self,
        input: Asked,
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
        log = event_stream.open_log(new_id() if workflow_id is None else workflow_id)
        stream = AgentStream(self.settings, input, log, cancel, conversation)
        # In a context of its own: who traces the run leaves its span there as the current one.
        return contextvars.copy_context().run(drain, stream)

    def as_tool(
        self,
        description: str,
        *,
        name: Optional[str] = None,
        timeout: Optional[float] = 600.0,
    ) -> Tool:
        """This agent as a tool of another: it takes a text, `input`, and answers with its own.

        In a run that has events it is a run of its own, whose events name the
        calling run (`parent_workflow_id`).  It ends when that one is stopped.  Its
        `on_unknown` is "rerun": what its own tools do twice, theirs says.

        Args:
            description: what it is good for, for the other's model.
            name: for the model; None for the agent's own, with "_" for what a
                tool's name cannot have.
            timeout: seconds it may take; None for the other agent's limit.

        Raises:
            ConfigError: the name or the timeout cannot be used.
        """
        from agentstream.tools import Tool  # noqa: PLC0415 - only who has tools pays for it

        def ask(input: str, context: RunContext) -> Any:
            return context.run(self, input)

        named = re.sub(r"[^a-zA-Z0-9_-]", "_", self.name)[:64] if name is None else name
        return Tool(named, description, _PARAMETERS, ask, timeout=timeout, on_unknown="rerun")
