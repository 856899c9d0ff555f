"""What goes to a model and what comes back: messages, requests, deltas, the answer.

Pure values: nothing here talks to a server or knows one server from another.
Field names are those of OpenAI's chat-completions API.
"""

from __future__ import annotations

from typing import (
    TYPE_CHECKING,
    Any,
    Dict,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
    Union,
)

from agentstream import checks
from agentstream.errors import AgentStreamError, ConfigError
from agentstream.llm.frozen import Frozen
from agentstream.llm.keywords import OTHER_FIELD, REQUEST_HINTS
from agentstream.results import ChatResponse, ToolCall, Usage

if TYPE_CHECKING:
    from typing_extensions import TypedDict, Unpack

    from agentstream.llm.files import FilePath

    class RequestFields(TypedDict, total=False):
        """The fields of a `ChatRequest` besides its messages, as `chat` takes them by keyword."""

        model: Optional[str]
        temperature: Optional[float]
        top_p: Optional[float]
        max_tokens: Optional[int]
        seed: Optional[int]
        stop: Union[str, Sequence[str], None]
        response_format: Optional[Mapping[str, Any]]
        tools: Sequence[Mapping[str, Any]]
        tool_choice: Union[str, Mapping[str, Any], None]
        parallel_tool_calls: Optional[bool]
        extra: Mapping[str, Any]
        reasoning_effort: Optional[str]
        output: Any


__all__ = [
    "ChatMessage",
    "ChatRequest",
    "ChatResponse",
    "Content",
    "Delta",
    "FallbackNotice",
    "Prompt",
    "RetryNotice",
    "ToolCall",
    "ToolCallDelta",
    "Usage",
    "as_request",
    "check_fields",
]

#: A message's content: text, or a list of parts ({"type": "text"|"image_url", ...}).
Content = Union[str, List[Dict[str, Any]]]

_ROLES = ("system", "developer", "user", "assistant", "tool")
_ASKING = ("system", "developer", "user")


class ChatMessage(Frozen):
    """One message of a conversation.

    Its repr gives sizes, not words: a prompt belongs in no log and no traceback.

    Attributes:
        role, content, tool_calls, tool_call_id, name: as OpenAI's messages have them.
        provider_state: what the provider of an answer wants back with it (reasoning,
            signatures), unread; it is sent to that provider and to nobody else.

    Raises:
        ConfigError: the role is not one of the API's, or the content none.
    """

    role: str
    content: Optional[Content] = None
    tool_calls: Tuple[ToolCall, ...] = ()
    tool_call_id: Optional[str] = None
    name: Optional[str] = None
    provider_state: Optional[Mapping[str, Any]] = None

    def __post_init__(self) -> None:
        _check_role(self.role)
        content: Any = self.content
        if content is not None and not isinstance(content, (str, list, tuple)):
            reason = f"must be a str or a list of parts, not {type(content).__name__}"
            raise ConfigError.about("content", reason)

    def __repr__(self) -> str:
        size = "None" if self.content is None else f"<{len(self.content)}>"
        return f"ChatMessage(role={self.role!r}, content={size}, tool_calls={len(self.tool_calls)})"

    @classmethod
    def system(cls, content: str) -> ChatMessage:
        """A system message."""
        return cls("system", content)

    @classmethod
    def user(cls, content: Content, files: Sequence[FilePath] = ()) -> ChatMessage:
        """A user's message: a text, or a list of parts.

        Args:
            content: the text or the parts.
            files: paths of pictures (PNG, JPEG, GIF, WebP) and PDFs, which are read now
                and stand behind the content as parts; what each is, its content says.

        Raises:
            ConfigError: a file cannot be read, is too large, or is of another kind.
        """
        if content is None:
            raise ConfigError("a user message needs content")
        if not files:
            return cls("user", content)
        from agentstream.llm.files import file_parts  # noqa: PLC0415 - only who sends files pays

        parts = content
        if isinstance(content, str):
            parts = [{"type": "text", "text": content}] if content else []
        return cls("user", [*parts, *file_parts(files)])

    @classmethod
    def assistant(
        cls,
        content: Optional[str],
        tool_calls: Sequence[ToolCall] = (),
        provider_state: Optional[Mapping[str, Any]] = None,
    ) -> ChatMessage:
        """What the model said, to be sent back as history."""
        return cls("assistant", content, tuple(tool_calls), provider_state=provider_state)

    @classmethod
    def tool(cls, tool_call_id: str, content: str) -> ChatMessage:
        """The result of one tool call."""
        return cls("tool", content, tool_call_id=tool_call_id)

    def to_dict(self) -> Dict[str, Any]:
        """The message in OpenAI's form, without `provider_state`."""
        message: Dict[str, Any] = {"role": self.role, "content": self.content}
        if self.tool_calls:
            message["tool_calls"] = [call.to_dict() for call in self.tool_calls]
        if self.tool_call_id is not None:
            message["tool_call_id"] = self.tool_call_id
        if self.name is not None:
            message["name"] = self.name
        return message


def _check_role(role: Any, roles: Tuple[str, ...] = _ROLES) -> None:
    if checks.text("role", role, empty=True) not in roles:
        raise ConfigError.about("role", f"must be one of {', '.join(_ROLES)}, not {role[:40]!r}")


def check_fields(fields: Mapping[str, Any], of: str = "") -> None:
    """Refuse what no server takes among a request's fields, `of` naming whose they are.

    Raises:
        ConfigError: with the field's name.
    """
    for name in ("temperature", "top_p"):
        checks.number(name, fields.get(name), optional=True, of=of)
    for name in ("max_tokens", "seed"):
        checks.whole(name, fields.get(name), -(2**63), optional=True, of=of)
    stop = fields.get("stop")
    if not isinstance(stop, (str, list, tuple, type(None))):
        reason = f"must be a str or a list of them, not {type(stop).__name__}"
        raise ConfigError.about("stop", reason, of)
    tools = fields.get("tools") or ()
    if not isinstance(tools, (list, tuple)) or not all(isinstance(t, Mapping) for t in tools):
        reason = "must be a list of dicts in OpenAI's form; functions are an Agent's tools"
        raise ConfigError.about("tools", reason, of)


#: A message as ours, or as a dict in OpenAI's form.
MessageLike = Union[ChatMessage, Mapping[str, Any]]


def _as_messages(given: Any) -> Any:
    """A request's messages: those of a list, a message alone, or a text as a user's.

    Raises:
        ConfigError: it is neither, or an empty text.
    """
    if isinstance(given, str):
        if not given:
            raise ConfigError("the prompt is empty")
        return [ChatMessage("user", given)]
    if isinstance(given, (ChatMessage, Mapping)):
        return [given]
    if isinstance(given, Sequence) and not isinstance(given, (bytes, bytearray, memoryview)):
        return given
    raise ConfigError(
        f"expected a str, a list of messages or a ChatRequest, not {type(given).__name__}"
    )


class ChatRequest(Frozen):
    """A request to a model.  None leaves a field to the server's default.

    Attributes:
        messages: a text, which becomes a user's message, or one or a list of `ChatMessage`s, or
            of dicts in OpenAI's form, which are sent as they are, but for what no server
            could read (see `ChatClient.chat_stream`).
        model: overrides the client's.
        tools: tool descriptions in OpenAI's form.
        extra: further fields of the body, sent as they are; they win over ours.
        reasoning_effort: how much the model reasons before it answers: "none", "low",
            "medium", "high", or another word that the model knows; it is not checked.
        output: the type of the answer, or an `Output`.

    Raises:
        ConfigError: the type cannot be asked for, or is asked for twice.
    """

    messages: Sequence[MessageLike]
    model: Optional[str] = None
    temperature: Optional[float] = None
    top_p: Optional[float] = None
    max_tokens: Optional[int] = None
    seed: Optional[int] = None
    stop: Union[str, Sequence[str], None] = None
    response_format: Optional[Mapping[str, Any]] = None
    tools: Sequence[Mapping[str, Any]] = ()
    tool_choice: Union[str, Mapping[str, Any], None] = None
    parallel_tool_calls: Optional[bool] = None
    extra: Mapping[str, Any] = {}
    reasoning_effort: Optional[str] = None
    output: Any = None

    if TYPE_CHECKING:

        def __init__(
            self,
            messages: Union[str, MessageLike, Sequence[MessageLike]],
            **fields: Unpack[RequestFields],
        ) -> None: ...

    def __post_init__(self) -> None:
        self.__dict__["messages"] = _as_messages(self.messages)
        check_fields(self.__dict__)
        if self.output is None:
            return
        from agentstream.schema.output import as_output  # noqa: PLC0415 - only who has types pays

        if self.response_format is not None:
            reason = "and response_format exclude each other: both say what the answer looks like"
            raise ConfigError.about("output", reason)
        self.__dict__["output"] = as_output(self.output)

    def _misnamed(self, name: str) -> TypeError:
        return checks.misnamed("ChatRequest", name, self._fields, REQUEST_HINTS, OTHER_FIELD)

    def __repr__(self) -> str:
        return f"ChatRequest({len(self.messages)} messages, model={self.model!r})"


#: What `chat` and `chat_stream` take.
Prompt = Union[str, MessageLike, Sequence[MessageLike], ChatRequest]


def as_request(prompt: Prompt, fields: Optional[Mapping[str, Any]] = None) -> ChatRequest:
    """Make a `ChatRequest` of a text, of a message or a list of them, or of a request.

    Args:
        fields: further fields, which win over the request's own.

    Raises:
        ConfigError: it is none of these, or empty, or a message's role is none of the API's.
    """
    if not isinstance(prompt, ChatRequest):
        prompt = ChatRequest(prompt, **(fields or {}))
    elif fields:
        prompt = prompt.replace(**fields)
    if not prompt.messages:
        raise ConfigError("a request needs at least one message")
    for message in prompt.messages:
        if isinstance(message, ChatMessage):
            continue
        if not isinstance(message, Mapping):
            raise ConfigError(f"a message is a ChatMessage or a dict, not {type(message).__name__}")
        _check_role(message.get("role"), (*_ROLES, "function"))
        if message["role"] in _ASKING and message.get("content") is None:
            raise ConfigError(f"a {message['role']} message needs content")
    return prompt


class ToolCallDelta(NamedTuple):
    """A piece of a tool call.

    `place` is the call's place in the answer, from 0 without a gap, whatever
    the server numbered it; `id` comes once, `arguments` in pieces,
    `extra_content` and `cut` (see `ToolCall`) hardly ever.  `name` is the whole
    name as it is known now: the last one counts.  `replaces` says that
    `arguments` takes the place of all that came before.
    """

    place: int
    id: str = ""
    name: str = ""
    arguments: str = ""
    extra_content: Optional[Mapping[str, Any]] = None
    replaces: bool = False
    cut: bool = False


class _RetryNotice(NamedTuple):
    attempt: int
    delay_s: float
    error: str
    message: str
    resumed: bool = False


class RetryNotice(_RetryNotice):
    """Told in the stream before another try: which one (from 1), after how long, why."""

    #: The error itself, for who may rather ask another client.  No part of the value.
    cause: Optional[AgentStreamError] = None


class FallbackNotice(NamedTuple):
    """Told in the stream before another client is asked: who failed, why, and who is next.

    Attributes:
        client, provider, model: who failed; the client by its place, from 1.
        error, message: the error's class's name and its text.
        status: its HTTP status; None for none.
        pause_s: seconds for which the client is left alone from now on.
        next_client, next_provider, next_model: who is asked now.
    """

    client: int
    provider: str
    model: str
    error: str
    message: str
    status: Optional[int]
    pause_s: float
    next_client: int
    next_provider: str
    next_model: str


class Delta(NamedTuple):
    """What one chunk added.  Most hold a `content` and nothing else.

    `provider_state` (see `ChatMessage`) comes whole, with the answer's last delta.
    `retry` tells of another try, or of another client that is asked.
    """

    content: str = ""
    reasoning: str = ""
    tool_calls: Tuple[ToolCallDelta, ...] = ()
    finish_reason: Optional[str] = None
    usage: Optional[Usage] = None
    model: Optional[str] = None
    warnings: Tuple[str, ...] = ()
    retry: Union[RetryNotice, FallbackNotice, None] = None
    provider_state: Optional[Mapping[str, Any]] = None
