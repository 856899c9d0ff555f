"""What an agent is told when it is made: its settings, checked, and its tools' limits.  Values."""

from __future__ import annotations

import warnings
from typing import (
    TYPE_CHECKING,
    Any,
    Callable,
    Dict,
    Iterable,
    Mapping,
    Optional,
    Sequence,
    Tuple,
    Union,
)

from agentstream import checks
from agentstream.agent.budget import Budget
from agentstream.errors import ConfigError
from agentstream.llm.clients import ChatClient
from agentstream.llm.frozen import Frozen
from agentstream.llm.messages import check_fields
from agentstream.llm.settings import LLAMA_URL
from agentstream.results import ToolCall

if TYPE_CHECKING:
    from typing_extensions import TypedDict

    from agentstream.schema.output import Output
    from agentstream.tools import Tool

    class RequestFields(TypedDict, total=False):
        """What else an agent takes by keyword."""

        extra: Optional[Mapping[str, Any]]
        parallel_tool_calls: Optional[bool]
        reasoning_effort: Optional[str]
        on_cut: str
        budget: Optional[Budget]
        system: str
        max_rounds: int
        repeat_limit: Optional[int]
        repeat_memory: Optional[int]
        tool_timeout: Optional[float]
        tool_result_limit: int


__all__ = [
    "FIELDS",
    "LIMIT_KEYS",
    "ON_CUT",
    "AgentSettings",
    "ToolLimits",
    "as_choice",
    "as_output",
    "as_tools",
    "split",
    "with_limits",
]

_CHOICES = ("auto", "none", "required")

#: The fields of `ToolLimits` by the keys of workflow files; `Agent` takes them until 0.3.
LIMIT_KEYS = {
    "max_rounds": "max_rounds",
    "repeat_limit": "repeat_limit",
    "repeat_memory": "repeat_memory",
    "tool_timeout": "timeout",
    "tool_result_limit": "result_chars",
}
#: What `Agent` takes besides the parameters in its signature.
FIELDS = ("extra", "parallel_tool_calls", "reasoning_effort", "on_cut", "budget", "system",
          *LIMIT_KEYS, "conversation")  # fmt: skip
#: What an agent may do about an answer that a limit of tokens, or a filter, has cut.
ON_CUT = ("warn", "fail")


class ToolLimits(Frozen):
    """The bounds of an agent's tool calls.

    Attributes:
        max_rounds: requests a run may take; tool calls lead to further ones.
        repeat_limit: a run whose model makes the same call (tool and arguments) in
            so many answers, with the same result each time, ends with
            `LimitExceeded`; from the second time on the model is told so beside the
            result.  None for no limit.
        repeat_memory: a call that was not made in so many answers is forgotten, and
            counted from 1 again; None for never; 0 as None, and the model is told
            nothing.  A tool made `repeatable` is exempt.
        timeout: seconds a tool may take that sets no time of its own; None for no
            bound.
        result_chars: characters of a result that the model is sent.

    Raises:
        ConfigError: a limit cannot be used.
    """

    max_rounds: int = 10
    repeat_limit: Optional[int] = 3
    repeat_memory: Optional[int] = None
    timeout: Optional[float] = 60.0
    result_chars: int = 20_000

    def __post_init__(self) -> None:
        checks.whole("max_rounds", self.max_rounds, 1)
        checks.whole("repeat_limit", self.repeat_limit, 2, optional=True)
        checks.whole("repeat_memory", self.repeat_memory, optional=True)
        checks.seconds("timeout", self.timeout, optional=True)
        checks.whole("result_chars", self.result_chars, 100)


class AgentSettings(Frozen):
    """An agent, as its runs see it.

    Attributes:
        name, client, system_prompt, tool_choice, limits, approve: as given to `Agent`.
        tools: by name.
        request: the fields of its requests besides the messages and `tool_choice`.
        on_cut: one of `ON_CUT`.
        budget: what a run of it may spend.

    Raises:
        ConfigError: the name, the client, `approve`, `on_cut` or `budget` is none.
    """

    name: str
    client: ChatClient
    system_prompt: str
    tools: Mapping[str, Tool]
    tool_choice: Union[str, Dict[str, Any], None]
    limits: ToolLimits
    approve: Optional[Callable[[ToolCall], object]]
    request: Mapping[str, Any]
    on_cut: str = "warn"
    budget: Optional[Budget] = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise ConfigError('an agent needs a name, a str: Agent("poet", client=client)')
        of = f"agent {self.name!r}"
        example = f"LlamaClient({LLAMA_URL!r})"
        checks.instance("client", self.client, ChatClient, of=of, example=example)
        checks.text("system_prompt", self.system_prompt, empty=True, of=of)
        check_fields(self.request, of)
        checks.instance("tool_limits", self.limits, ToolLimits, of=of)
        checks.function("approve", self.approve, optional=True, of=of)
        checks.one_of("on_cut", self.on_cut, ON_CUT, of=of)
        checks.instance("budget", self.budget, Budget, optional=True, of=of)

    @property
    def one_at_a_time(self) -> bool:
        """True if no two calls of an answer may run beside each other.

        However the request says so: by its own field, by `extra`, by the client's body.
        """
        extra = self.request.get("extra") or {}
        said = (
            extra.get("parallel_tool_calls", self.client.parallel_tool_calls),
            self.request.get("parallel_tool_calls"),
        )
        return any(word is False for word in said)

    @property
    def output(self) -> Optional[Output]:
        """What its answer is to be; None for a text."""
        return self.request.get("output")

    def of_round(self, number: int, *, again: bool = False) -> Mapping[str, Any]:
        """What a run's request number `number`, from 1, says besides its messages.

        Args:
            again: it asks for an answer in place of a wrong one: no tool is wanted.
        """
        if again and self.tools:
            return {**self.request, "tool_choice": "none"}
        if number == 1 and self.tool_choice is not None:
            return {**self.request, "tool_choice": self.tool_choice}
        return self.request


def as_output(agent: str, output: Any, response_format: object) -> Optional[Output]:
    """What an agent's answer is to be; None for a text.

    Raises:
        ConfigError: it cannot be asked for, or is asked for twice.
    """
    if output is None:
        return None
    from agentstream.schema import output as typed  # noqa: PLC0415 - only who has types pays

    if response_format is not None:
        reason = "says with response_format what the answer looks like: give one of them"
        raise ConfigError.about("output", reason, f"agent {agent!r}")
    try:
        return typed.as_output(output)
    except ConfigError as error:
        raise ConfigError.about("output", error.reason, f"agent {agent!r}") from error.__cause__


def split(
    agent: str, limits: Optional[ToolLimits], given: Mapping[str, Any], system_prompt: Optional[str]
) -> Tuple[ToolLimits, Dict[str, Any]]:
    """`Agent`'s further keywords as (ToolLimits, the request's fields).

    Raises:
        ConfigError: something is given in two ways, is no agent's, or cannot be used.
    """
    old = [name for name in given if name in LIMIT_KEYS]
    fields = {name: value for name, value in given.items() if name not in LIMIT_KEYS}
    if "conversation" in fields:
        raise ConfigError(
            f"agent {agent!r}: a conversation belongs to a run, not to an agent: "
            "agent.run(text, conversation=...), runtime.run(agent, text, conversation=...)"
        )
    if "system" in fields and system_prompt:
        raise ConfigError(f"agent {agent!r}: system is another name for system_prompt: give one")
    if not old:
        return ToolLimits() if limits is None else limits, fields
    if limits is not None:
        raise ConfigError(f"agent {agent!r}: {', '.join(old)} belong into tool_limits")
    now = ", ".join(f"{LIMIT_KEYS[name]}=..." for name in old)
    warnings.warn(
        f"Agent({', '.join(f'{name}=...' for name in old)}) is written"
        f" Agent(tool_limits=ToolLimits({now})) now",
        DeprecationWarning,
        stacklevel=4,
    )
    try:
        return limits_of({name: given[name] for name in old}), fields
    except ConfigError as error:
        raise ConfigError.about(error.setting, error.reason, f"agent {agent!r}") from None


def limits_of(given: Mapping[str, Any]) -> ToolLimits:
    """The limits that stand under `LIMIT_KEYS`.

    Raises:
        ConfigError: one cannot be used; named by its key.
    """
    try:
        return ToolLimits(**{LIMIT_KEYS[key]: value for key, value in given.items()})
    except ConfigError as error:
        key = next(key for key in given if LIMIT_KEYS[key] == error.setting)
        raise ConfigError.about(key, error.reason) from None


def with_limits(settings: Mapping[str, Any]) -> Dict[str, Any]:
    """An agent's settings as a workflow file has them, as `Agent` takes them.

    Raises:
        ConfigError: a limit cannot be used; named by its key.
    """
    limits = {key: value for key, value in settings.items() if key in LIMIT_KEYS}
    others = {key: value for key, value in settings.items() if key not in LIMIT_KEYS}
    return {**others, "tool_limits": limits_of(limits)}


def as_tools(agent: str, tools: Sequence[Union[Tool, Callable[..., Any]]]) -> Dict[str, Tool]:
    """The tools by name; raises ConfigError for a name that comes twice."""
    if not tools:
        return {}
    if not isinstance(tools, Iterable) or isinstance(tools, (str, bytes, Mapping)):
        reason = f"must be a list of functions, not {type(tools).__name__}: tools=[...]"
        raise ConfigError.about("tools", reason, f"agent {agent!r}")
    from agentstream.tools import Tool, as_tool  # noqa: PLC0415 - only who has tools pays for it

    found: Dict[str, Tool] = {}
    listed: Iterable[Any] = tools
    for given in listed:
        if hasattr(given, "as_tool"):
            reason = 'takes an agent as agent.as_tool("what it is good for")'
            raise ConfigError.about("tools", reason, f"agent {agent!r}")
        if not (isinstance(given, Tool) or callable(given)):
            reason = f"must be functions, not {type(given).__name__}: tools=[f], not tools=[f()]"
            raise ConfigError.about("tools", reason, f"agent {agent!r}")
        made = as_tool(given)
        if made.name in found:
            raise ConfigError(f"agent {agent!r} has two tools named {made.name!r}")
        found[made.name] = made
    return found


def as_choice(
    agent: str, choice: Union[str, Mapping[str, Any], None], tools: Dict[str, Tool]
) -> Union[str, Dict[str, Any], None]:
    """A tool_choice as the API takes it; raises ConfigError for a tool that is not there."""
    if choice is None:
        return None
    name: Any = choice
    if not isinstance(choice, str):
        function = choice.get("function") if isinstance(choice, Mapping) else None
        name = function.get("name") if isinstance(function, Mapping) else None
    elif choice in _CHOICES and choice not in tools:
        return choice
    if name not in tools:
        known = ", ".join([*_CHOICES, *tools])
        reason = f"must be one of {known}, not {choice!r}"
        raise ConfigError.about("tool_choice", reason, f"agent {agent!r}")
    return {"type": "function", "function": {"name": name}}
