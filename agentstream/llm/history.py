"""Messages in a form that every server can read.  Pure.

A server refuses a whole request for one call whose arguments are no JSON object or whose
name has a blank in it, though it was the model that wrote them so; for an answer that says
nothing; for a call without its result.  What can be mended is; the rest is said before
anything is sent.
"""

from __future__ import annotations

import json
import re
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

from agentstream.errors import ConfigError
from agentstream.llm.messages import ChatMessage, MessageLike
from agentstream.results import ToolCall
from agentstream.schema.parse import as_object

__all__ = [
    "UNREADABLE",
    "changed",
    "is_empty",
    "mended",
    "readable",
    "with_readable_calls",
    "without_state",
]

#: The key under which arguments that are no JSON object are sent back, as a text.
UNREADABLE = "unreadable_arguments"

#: Characters of such a text that are sent back.
_KEPT = 2000
#: Characters of a tool's name, as servers have it.
_NAME = 64
#: The fields of a message in OpenAI's form that says nothing.
_NOTHING = {"role", "content", "name", "refusal", "tool_calls"}

#: A call that waits for its result: its id, if it has one, and its name.
_Open = Tuple[Optional[str], str]


def is_empty(message: ChatMessage) -> bool:
    """True for an answer that says nothing, which servers refuse to be sent.

    One that the server paused before its first word is none.
    """
    if message.role != "assistant" or _says(message.content) or message.tool_calls:
        return False
    return not (message.provider_state and message.provider_state.get("goes_on"))


def readable(call: ToolCall) -> ToolCall:
    """The call with a name of `[a-zA-Z0-9_-]{1,64}` and arguments that are a JSON object."""
    return changed(call, name=_name(call.name), arguments=_arguments(call.arguments))


def changed(call: ToolCall, **changes: str) -> ToolCall:
    """The call but for these fields; what its server wants back with it stays."""
    made = call._replace(**changes)
    made.__dict__.update(call.__dict__)
    return made


def with_readable_calls(message: ChatMessage) -> ChatMessage:
    """The message with its calls as `readable` makes them; the same one if they are so."""
    calls = tuple(readable(call) for call in message.tool_calls)
    return message if calls == message.tool_calls else message.replace(tool_calls=calls)


def mended(messages: Sequence[MessageLike]) -> Sequence[MessageLike]:
    """The messages of a request: empty answers left out, calls as `readable` makes them.

    What needs no mending is as it was; if nothing does, the same sequence comes back.

    Raises:
        ConfigError: a call has no result right behind it, or a result no call before it.
    """
    _check_results(messages)
    told = [_mended(message) for message in messages if not _is_nothing(message)]
    same = len(told) == len(messages) and all(a is b for a, b in zip(told, messages))
    return messages if same or not told else told


def without_state(
    messages: Sequence[MessageLike], is_own: Callable[[Mapping[str, Any]], bool]
) -> Sequence[MessageLike]:
    """The messages of a request without the provider states that are not the server's own.

    With a state goes what its calls were signed with, and an answer that has no word of
    its own.  If nothing does, the same sequence comes back.

    Args:
        is_own: says of a provider state whether the server that is asked wrote it.
    """
    told = [_without_state(message, is_own) for message in messages]
    if all(a is b for a, b in zip(told, messages)):
        return messages
    return [message for message in told if not _is_nothing(message)]


def _without_state(
    message: MessageLike, is_own: Callable[[Mapping[str, Any]], bool]
) -> MessageLike:
    if not isinstance(message, ChatMessage):
        state = message.get("provider_state")
        if not isinstance(state, Mapping) or is_own(state):
            return message
        return {name: value for name, value in message.items() if name != "provider_state"}
    if message.provider_state is None or is_own(message.provider_state):
        return message
    calls = tuple(ToolCall(*call) for call in message.tool_calls)
    return message.replace(provider_state=None, tool_calls=calls)


def _is_nothing(message: MessageLike) -> bool:
    if isinstance(message, ChatMessage):
        return is_empty(message)
    if message["role"] != "assistant" or _says(message.get("content")):
        return False
    filled = {name for name, value in message.items() if value}
    return not message.get("tool_calls") and filled <= _NOTHING - {"refusal"}


def _says(content: Any) -> bool:
    return bool(content.strip()) if isinstance(content, str) else bool(content)


def _mended(message: MessageLike) -> MessageLike:
    if isinstance(message, ChatMessage):
        return with_readable_calls(message)
    calls = message.get("tool_calls")
    if not isinstance(calls, (list, tuple)):
        return message
    told = [_readable_dict(call) for call in calls]
    return message if told == list(calls) else {**message, "tool_calls": told}


def _readable_dict(call: Any) -> Any:
    """A call in OpenAI's form; one of another kind stays as it is."""
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        return call
    given = function.get("arguments")
    if not isinstance(given, str):
        given = "" if given is None else json.dumps(given, ensure_ascii=False, default=repr)
    told = {"name": _name(function["name"]), "arguments": _arguments(given)}
    return {**call, "function": {**function, **told}}


def _name(name: str) -> str:
    return re.sub(r"[^a-zA-Z0-9_-]", "_", name)[:_NAME] or "unnamed"


def _arguments(arguments: str) -> str:
    if not arguments.strip():
        return "{}"
    meant = as_object(arguments)
    if meant is None:
        return json.dumps({UNREADABLE: arguments[:_KEPT]})
    try:
        if json.loads(arguments, parse_constant=_refuse) == meant:
            return arguments  # as the model wrote it: its server may know the text again
    except (ValueError, RecursionError):
        pass
    return json.dumps(meant, ensure_ascii=False)


def _refuse(name: str) -> None:
    raise ValueError(name)


# --- calls and their results ------------------------------------------------------------------


def _check_results(messages: Sequence[MessageLike]) -> None:
    waiting: List[_Open] = []
    for number, message in enumerate(messages):
        fields: Mapping[str, Any] = (
            message.to_dict() if isinstance(message, ChatMessage) else message
        )
        if fields["role"] in ("tool", "function"):
            _take_result(fields, waiting, number)
            continue
        if waiting:
            raise _lacking(waiting[0], f"messages[{number}]")
        waiting = [_open(call) for call in fields.get("tool_calls") or ()]
    if waiting:
        raise _lacking(waiting[0], "the messages' end")


def _open(call: Any) -> _Open:
    fields: Mapping[str, Any] = call if isinstance(call, Mapping) else {}
    kind: Dict[str, Any] = fields.get("function") or fields.get("custom") or {}
    return fields.get("id"), str(kind.get("name") or "a tool")


def _take_result(fields: Mapping[str, Any], waiting: List[_Open], number: int) -> None:
    """Take the call that a result is of from those that wait; one without an id has the next."""
    call_id = fields.get("tool_call_id")
    if call_id is None:
        del waiting[:1]
        return
    ids = [known for known, _ in waiting]
    for wanted in (call_id, None):
        if wanted in ids:
            del waiting[ids.index(wanted)]
            return
    raise ConfigError(
        f"messages[{number}] is the result of a call that the answer before it does not make, or"
        " of one that has its result; its tool_call_id must be the id of one of that answer's calls"
    )


def _lacking(call: _Open, where: str) -> ConfigError:
    return ConfigError(
        f"a call of {call[1][:_NAME]} has no result before {where}: put"
        " ChatMessage.tool(its id, what it gave) right behind the answer that makes it"
    )
