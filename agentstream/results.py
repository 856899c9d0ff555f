"""What comes back: token counts, tool calls, answers, steps and runs.

Values, on the ground floor: nothing of the library but text.py is imported here, so
that every room, the errors among them, can name what it gives.
"""

from __future__ import annotations

from typing import Any, Dict, Mapping, NamedTuple, Optional, Tuple, TypeVar, Union

from agentstream.text import as_text

__all__ = [
    "ChatResponse",
    "PendingCall",
    "PendingSignal",
    "StepResult",
    "ToolCall",
    "Usage",
    "WorkflowRun",
]


class Usage(NamedTuple):
    """Token counts as the server gave them; None where it gave none.

    `estimated` marks counts that are ours: the server sent none, so
    `completion_tokens` counts the deltas and `prompt_tokens` is None.
    `cached_tokens` and `cache_write_tokens` are parts of the prompt,
    `reasoning_tokens` of the completion; `cost` is the server's own figure, else that of
    the client's `Prices`.
    """

    prompt_tokens: Optional[int] = None
    completion_tokens: Optional[int] = None
    total_tokens: Optional[int] = None
    estimated: bool = False
    cached_tokens: Optional[int] = None
    cache_write_tokens: Optional[int] = None
    reasoning_tokens: Optional[int] = None
    cost: Optional[float] = None

    def __add__(self, other: Usage) -> Usage:  # type: ignore[override]
        """Both together; a count that only one side knows stays as that side has it."""
        return Usage(
            _sum(self.prompt_tokens, other.prompt_tokens),
            _sum(self.completion_tokens, other.completion_tokens),
            _sum(self.total_tokens, other.total_tokens),
            self.estimated or other.estimated,
            _sum(self.cached_tokens, other.cached_tokens),
            _sum(self.cache_write_tokens, other.cache_write_tokens),
            _sum(self.reasoning_tokens, other.reasoning_tokens),
            _sum(self.cost, other.cost),
        )

    def __radd__(self, other: Any) -> Usage:
        """As `__add__`; `sum(usages)` begins with 0."""
        return self if other == 0 else NotImplemented

    def to_dict(self) -> Dict[str, Any]:
        """For events and JSON: the first four always, of the others those that are known."""
        fields = self._asdict()
        return {
            name: value
            for place, (name, value) in enumerate(fields.items())
            if place < 4 or value is not None
        }


_Number = TypeVar("_Number", int, float)


def _sum(a: Optional[_Number], b: Optional[_Number]) -> Optional[_Number]:
    return b if a is None else a if b is None else a + b


class _ToolCall(NamedTuple):
    id: str
    name: str
    arguments: str


class ToolCall(_ToolCall):
    """A call the model asks for: `id`, `name`, `arguments`.

    `arguments` stays the JSON string it wrote.
    """

    #: What the server wants back with the call, unread: Gemini signs its thoughts
    #: so, and refuses a history without the signature.  No part of the value.
    extra_content: Optional[Mapping[str, Any]] = None
    #: True if the answer was cut, at a limit perhaps, before this call was surely
    #: whole: it must not be made.  No part of the value either.
    cut: bool = False

    def to_dict(self) -> Dict[str, Any]:
        """The call as OpenAI's messages hold it."""
        function = {"name": self.name, "arguments": self.arguments or "{}"}
        call = {"id": self.id, "type": "function", "function": function}
        if self.extra_content is not None:
            call["extra_content"] = dict(self.extra_content)
        return call


class ChatResponse(NamedTuple):
    """An answer, whole or as far as it got.

    Attributes:
        content: the text.
        reasoning: the model's thinking, where the server sends it apart.
        tool_calls: the calls it asks for, in order.
        finish_reason: as the server wrote it ("stop", "length", "tool_calls", ...);
            None when it never said.
        model: the model's name as the server gave it, else the one asked for.
        usage: token counts; estimated when the server sent none.
        warnings: what was odd about the stream and yet no error.
        first_token_s: seconds from the call to the first text, reasoning or tool call.
        duration_s: seconds from the call to its end, or so far.
        tokens_per_second: the rate after the first token; None when it cannot be known.
        provider_state: what the provider wants back with the answer, unread; see
            `ChatMessage`.
        value: what the answer is, where `output` asked for a type.
        response_id: the server's id for the answer; None if it gave none.
        native_finish_reason: why the answer ended in the server's own word ("end_turn",
            "max_output_tokens", ...), where `finish_reason` has chat completions'.
        provider: who answered, as the client's `provider` has it.
    """

    content: str = ""
    reasoning: str = ""
    tool_calls: Tuple[ToolCall, ...] = ()
    finish_reason: Optional[str] = None
    model: str = ""
    usage: Usage = Usage()
    warnings: Tuple[str, ...] = ()
    first_token_s: Optional[float] = None
    duration_s: float = 0.0
    tokens_per_second: Optional[float] = None
    provider_state: Optional[Mapping[str, Any]] = None
    value: Any = None
    response_id: Optional[str] = None
    native_finish_reason: Optional[str] = None
    provider: str = ""

    def __str__(self) -> str:
        return self.content

    @property
    def text(self) -> str:
        """`content`, by the name that all results have for it."""
        return self.content

    @property
    def goes_on(self) -> bool:
        """True if the server only paused: sent back as it is, the answer goes on.

        An agent does so; who talks to a client puts the answer, with its `provider_state`,
        at the end of the messages.
        """
        return bool(self.provider_state and self.provider_state.get("goes_on"))


class StepResult(NamedTuple):
    """What a step came to, or how far it got.

    Attributes:
        name, kind: the step's name, and "Agent", "Function", "Parallel",
            "Map", "Branch", "Repeat", "Wait", "Sequence" or "Workflow".
        duration_ms: `duration_s` in milliseconds; until 0.3.
        output: an agent's text; what a function returned; the results by name
            of a `Parallel`, in a list of a `Map`.  Of a step that did not complete: the
            text, as far as it got.
        usage: its tokens, those of the steps within it and of its retries
            among them; what a failed request used may not be known.
        tokens_per_second: of its last answer; None when it cannot be known.
        status: "completed", "failed" or "cancelled"; of a run that can be resumed also
            "suspended" or "interrupted".
        step: its place, as the events write it: "0", or "1.facts" for the
            branch "facts" of the second step.
        steps: one `StepResult` for each step within it that began.
        finish_reason: how its last answer ended ("stop", "length", ...), as
            `ChatResponse` has it; None if it had none.
        warnings: what was odd and yet no error, a cut answer say; of the steps
            within it as well, after their names.
    """

    name: str
    kind: str
    duration_ms: float
    output: Any
    usage: Usage
    tokens_per_second: Optional[float]
    status: str
    step: str = ""
    steps: Tuple[StepResult, ...] = ()
    finish_reason: Optional[str] = None
    warnings: Tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.text

    @property
    def text(self) -> str:
        """The output as a text: named results under headings, anything else as JSON."""
        return as_text(self.output)

    @property
    def duration_s(self) -> float:
        """Seconds it took, its retries included."""
        return self.duration_ms / 1000


class PendingCall(NamedTuple):
    """A tool call that a suspended run waits for somebody to decide.

    Attributes:
        id: what `Runtime.approve` takes: no other call of the run has it.
        tool: the tool's name.
        arguments: the JSON text that the model wrote.
        step: the label of the step, as the events write it.
        agent: the name of the agent that asks for it.
        why: "approval" where `approve` answered `Approval.later()`; "unknown" where the call
            was begun when its process died, and nobody knows whether it was made.
        expires_at: the Unix time after which it counts as refused; None for never.
    """

    id: str
    tool: str
    arguments: str
    step: str = ""
    agent: str = ""
    why: str = "approval"
    expires_at: Optional[float] = None


class PendingSignal(NamedTuple):
    """A value that a suspended run waits for, at a `Wait`.

    Attributes:
        name: what `Runtime.signal` takes.
        step: the label of the step.
        expires_at: the Unix time at which its wait is over; None for never.
    """

    name: str
    step: str = ""
    expires_at: Optional[float] = None

    @property
    def id(self) -> str:
        """`name`: an id as a `PendingCall` has one."""
        return self.name


class WorkflowRun(NamedTuple):
    """A run, ended or as far as it got.

    Attributes:
        workflow_id: the run's id, that of its events.
        status: "completed", "failed" or "cancelled"; of one that can be resumed "suspended"
            or "interrupted".
        output: the last step's output; of a run that did not complete, all that
            its last step had said.
        usage: of all steps together.
        steps: one `StepResult` for each of the workflow's steps that began.
        duration_s: seconds from its start to its end, or so far.
        finish_reason, warnings: as `StepResult` has them, of all steps together.
        pending: what a suspended run waits for, `PendingCall`s and `PendingSignal`s.
    """

    workflow_id: str
    status: str
    output: Any = ""
    usage: Usage = Usage()
    steps: Tuple[StepResult, ...] = ()
    duration_s: float = 0.0
    finish_reason: Optional[str] = None
    warnings: Tuple[str, ...] = ()
    pending: Tuple[Union[PendingCall, PendingSignal], ...] = ()

    def __str__(self) -> str:
        return self.text

    @property
    def text(self) -> str:
        """The output as a text: named results under headings, anything else as JSON."""
        return as_text(self.output)
