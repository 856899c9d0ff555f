"""Conversation: what was said between runs; the messages, their budget, and their JSON.

An agent reads it when a run begins and adds to it when the run has come to its
end; in between it is in use.  Nothing here talks to a model.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import threading
from typing import (
    Any,
    Callable,
    ContextManager,
    Dict,
    Iterator,
    List,
    Mapping,
    Optional,
    Sequence,
    Tuple,
    Union,
)

from agentstream import checks
from agentstream.errors import ConfigError
from agentstream.llm.history import is_empty, with_readable_calls
from agentstream.llm.messages import ChatMessage
from agentstream.results import ToolCall

__all__ = [
    "KEEPS",
    "Conversation",
    "Entry",
    "entry_of",
    "estimate_tokens",
    "last_turn",
    "message_of",
    "trimmed",
]

_VERSION = 1

#: What a turn that was stopped or failed may leave.
KEEPS = ("completed", "all")

#: The mode of a new file: what was said is nobody else's.
_PRIVATE = 0o600

#: A message and its tokens.
Entry = Tuple[ChatMessage, int]

#: Tokens that a message's frame costs, about.
_FRAME = 4
#: Tokens that a picture, a sound or a file costs, about.
_PICTURE = 1000


def estimate_tokens(message: ChatMessage) -> int:
    """About how many tokens a message takes: a quarter of its characters, and its frame.

    A part of its content that is no text counts 1000, however long it is written.
    """
    size, parts = 0, 0
    if isinstance(message.content, str):
        size += len(message.content)
    else:
        for part in message.content or ():
            text = part.get("text") if isinstance(part, Mapping) else part
            if isinstance(text, str):
                size += len(text)
            else:
                parts += 1
    for call in message.tool_calls:
        size += len(call.name) + len(call.arguments)
    if message.provider_state is not None:
        size += len(json.dumps(message.provider_state, ensure_ascii=False, default=repr))
    return size // 4 + parts * _PICTURE + _FRAME


class Conversation:
    """A memory for an agent's runs: `agent.execute(text, conversation=conversation)`.

    A runtime takes it as well: `runtime.run(agent, text, conversation=conversation)`.

    Each run that comes to its end adds its messages: the user's, the model's,
    tool calls and their results.  What one adds that fails or is stopped, `keep`
    says; a run that was stopped before it began adds nothing.  The agent's system
    prompt is not part of it.

    One run at a time may use a conversation; a second one gets a RuntimeError.
    The other methods may be called from any thread.  For conversations that are
    kept in a file, and used by several processes, see `Conversations`.

    Args:
        messages: what was said before.
        max_tokens: the budget; None for no bound.  What is over it goes, oldest
            turn first, when something is added, and before a request, where the
            new message counts too.  The system prompt, the tools' descriptions
            and what a run itself adds to its requests do not.
        estimate: tells the tokens of a `ChatMessage`; None for `estimate_tokens`,
            a quarter of its characters.
        keep: "completed": a run that fails or is stopped adds nothing, so that it
            may be tried again.  "all": it adds the question, and what was said up
            to there; a question without an answer is told with the next one.

    Raises:
        ConfigError: a setting cannot be used, or the messages make no conversation: a
            tool's result without its call, or a call without its result.
    """

    def __init__(
        self,
        messages: Sequence[ChatMessage] = (),
        *,
        max_tokens: Optional[int] = None,
        estimate: Optional[Callable[[ChatMessage], int]] = None,
        keep: str = "completed",
    ) -> None:
        checks.whole("Conversation.max_tokens", max_tokens, 1, optional=True)
        checks.function("Conversation.estimate", estimate, optional=True)
        self.keep: str = checks.one_of("Conversation.keep", keep, KEEPS)
        self.max_tokens = max_tokens
        self._estimate = estimate or estimate_tokens
        self._entries: Tuple[Entry, ...] = ()
        self._lock = threading.Lock()
        self._used = False
        self.add(*messages)

    def __repr__(self) -> str:
        return f"<Conversation of {len(self)} messages>"

    def __len__(self) -> int:
        return len(self._read())

    @property
    def messages(self) -> Tuple[ChatMessage, ...]:
        """What was said and is still remembered, oldest first."""
        return tuple(message for message, _ in self._read())

    @property
    def tokens(self) -> int:
        """About how many tokens the messages take."""
        return _total(self._read())

    def add(self, *messages: ChatMessage) -> None:
        """Add messages, a tool call together with its results; trims to the budget.

        A turn whose last answer is empty is left out: no server takes such a message.
        Calls are kept in a form that every server can read.

        Raises:
            ConfigError: a result without its call, or a call without its result.
        """
        _check(messages)
        said = [with_readable_calls(message) for message in _answered(messages)]
        if said:
            self._write(said)

    def _read(self) -> Sequence[Entry]:
        """What is remembered."""
        return self._entries

    def _write(self, messages: Sequence[ChatMessage]) -> None:
        """Remember messages, all of them or none."""
        entries = [(message, self._estimate(message)) for message in messages]
        with self._lock:
            self._entries = tuple(trimmed((*self._entries, *entries), self.max_tokens))

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._entries = ()

    def undo(self) -> List[ChatMessage]:
        """Forget the last turn, from the user's message on; returns its messages, [] for none."""
        with self._lock:
            turn = last_turn([message for message, _ in self._entries])
            self._entries = self._entries[: len(self._entries) - len(turn)]
        return turn

    def fitted(self, *new: ChatMessage) -> List[ChatMessage]:
        """The messages to send before these new ones: as many as the budget allows."""
        entries = self._read()
        if self.max_tokens is not None:
            entries = trimmed(entries, self.max_tokens - sum(map(self._estimate, new)))
        return [message for message, _ in entries]

    def in_use(self) -> ContextManager[None]:
        """Hold the conversation for one run.

        Raises:
            RuntimeError: another run holds it.
        """
        return self._hold()

    @contextlib.contextmanager
    def _hold(self) -> Iterator[None]:
        with self._lock:
            if self._used:
                raise RuntimeError(
                    "another run is under way with this conversation: one run at a time"
                )
            self._used = True
        try:
            yield
        finally:
            self._used = False

    # --- JSON -------------------------------------------------------------------------------

    def to_dict(self) -> Dict[str, Any]:
        """The conversation as JSON values; messages are in OpenAI's form, and have their state."""
        return {
            "version": _VERSION,
            "max_tokens": self.max_tokens,
            "keep": self.keep,
            "messages": [entry_of(message) for message in self.messages],
        }

    @classmethod
    def from_dict(
        cls,
        fields: Mapping[str, Any],
        *,
        estimate: Optional[Callable[[ChatMessage], int]] = None,
    ) -> Conversation:
        """The conversation that `to_dict` gave.

        Raises:
            ConfigError: it is none, or of a version that is not known here.
        """
        if not isinstance(fields, Mapping) or not isinstance(fields.get("messages"), list):
            raise ConfigError("this is no conversation: it has no list of messages")
        if fields.get("version") != _VERSION:
            raise ConfigError(f"this conversation's version is not {_VERSION}")
        messages = [message_of(entry, number) for number, entry in enumerate(fields["messages"])]
        return cls(
            messages,
            max_tokens=fields.get("max_tokens"),
            estimate=estimate,
            keep=fields.get("keep", "completed"),
        )

    def save(self, path: Union[str, os.PathLike[str]]) -> None:
        """Write the conversation to a file, as JSON; the file is whole at every moment.

        A new file is for its owner only (0600); one that is there keeps its mode.

        Raises:
            OSError: it cannot be written.
            ConfigError: a message holds what JSON cannot.
        """
        try:
            text = json.dumps(self.to_dict(), indent=1, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise ConfigError(f"the conversation cannot be written as JSON: {error}") from None
        target = os.fspath(path)
        unfinished = f"{target}.{os.getpid()}-{threading.get_ident()}.tmp"
        try:
            mode = stat.S_IMODE(os.stat(target).st_mode)
        except OSError:
            mode = _PRIVATE
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, _PRIVATE)
        try:
            with open(descriptor, "w", encoding="ascii") as file:
                file.write(text)
            os.chmod(unfinished, mode)
            os.replace(unfinished, target)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(unfinished)
            raise

    @classmethod
    def load(
        cls,
        path: Union[str, os.PathLike[str]],
        *,
        estimate: Optional[Callable[[ChatMessage], int]] = None,
    ) -> Conversation:
        """The conversation that `save` wrote.

        Raises:
            OSError: the file cannot be read.
            ConfigError: it holds no conversation.
        """
        with open(path, encoding="utf-8", errors="replace") as file:
            text = file.read()
        try:
            fields = json.loads(text)
        except (ValueError, RecursionError):
            raise ConfigError("this file holds no conversation: it is not JSON") from None
        return cls.from_dict(fields, estimate=estimate)


def trimmed(entries: Sequence[Entry], budget: Optional[int]) -> List[Entry]:
    """The messages without what is over the budget.

    Whole turns go, oldest first.  Of the last one tool calls go first, each with
    its results, and only then the rest: a turn is about its first message and
    its last.
    """
    if budget is None or _total(entries) <= budget:
        return list(entries)
    turns = _split(entries, lambda message: message.role == "user")
    left = _total(entries)
    while left > budget and len(turns) > 1:
        left -= _total(turns.pop(0))
    if left <= budget:
        return [entry for turn in turns for entry in turn]
    kept: List[Entry] = []
    for group in _split(turns.pop(), lambda message: message.role != "tool"):
        if left > budget and group[0][0].tool_calls:
            left -= _total(group)
        else:
            kept += group
    return kept if left <= budget else []


def last_turn(messages: Sequence[ChatMessage]) -> List[ChatMessage]:
    """The messages from the user's last one on; [] if there is none of a user's."""
    users = [number for number, message in enumerate(messages) if message.role == "user"]
    return list(messages[users[-1] :]) if users else []


def _answered(messages: Sequence[ChatMessage]) -> List[ChatMessage]:
    """The messages without empty answers, and without the turns that end in one."""
    turns: List[List[ChatMessage]] = [[]]
    for message in messages:
        if message.role == "user":
            turns.append([])
        turns[-1].append(message)
    whole = [turn for turn in turns if turn and not is_empty(turn[-1])]
    return [message for turn in whole for message in turn if not is_empty(message)]


def _total(entries: Sequence[Entry]) -> int:
    return sum(tokens for _, tokens in entries)


def _split(entries: Sequence[Entry], begins: Callable[[ChatMessage], bool]) -> List[List[Entry]]:
    """The messages in groups; one begins with each message of which `begins` is true."""
    groups: List[List[Entry]] = []
    for entry in entries:
        if begins(entry[0]) or not groups:
            groups.append([])
        groups[-1].append(entry)
    return groups


def _check(messages: Sequence[ChatMessage]) -> None:
    open_calls: List[str] = []
    for message in messages:
        if not isinstance(message, ChatMessage):
            raise ConfigError(f"a message is a ChatMessage, not {type(message).__name__}")
        if message.role == "tool":
            if message.tool_call_id not in open_calls:
                raise ConfigError("a tool's result has no call before it")
            open_calls.remove(message.tool_call_id)
            continue
        if open_calls:
            break
        open_calls = [call.id for call in message.tool_calls]
    if open_calls:
        raise ConfigError("a tool call has no result after it")


def entry_of(message: ChatMessage) -> Dict[str, Any]:
    """A message as JSON values: in OpenAI's form, with its provider's state."""
    entry = message.to_dict()
    if message.provider_state is not None:
        entry["provider_state"] = message.provider_state
    return entry


def message_of(entry: Any, number: int) -> ChatMessage:
    """The message that `entry_of` gave; raises ConfigError, with its number, if that is none."""
    try:
        calls = [_call(call) for call in entry.get("tool_calls") or ()]
        content = entry["content"]
        if content is not None and not isinstance(content, (str, list)):
            raise TypeError("content")
        state = entry.get("provider_state")
        if state is not None and not isinstance(state, dict):
            raise TypeError("provider_state")
        return ChatMessage(
            entry["role"],
            content,
            tuple(calls),
            entry.get("tool_call_id"),
            entry.get("name"),
            state,
        )
    except (KeyError, TypeError, AttributeError, ConfigError):
        raise ConfigError(f"message {number} of the conversation cannot be read") from None


def _call(entry: Any) -> ToolCall:
    function = entry["function"]
    call = ToolCall(str(entry["id"]), str(function["name"]), str(function["arguments"]))
    extra = entry.get("extra_content")
    if isinstance(extra, dict):
        call.extra_content = extra
    return call
