"""How a step's input becomes an agent's question; and `Context`, the older name of RunContext."""

from __future__ import annotations

import enum
import json
import re
from typing import Any, Dict, List, Mapping, Optional

from agentstream.agent.asked import Asked, is_messages
from agentstream.errors import ConfigError
from agentstream.events.model import freeze
from agentstream.llm.messages import ChatMessage, Content
from agentstream.schema.plain import plain
from agentstream.text import as_text, part_as_text, pattern
from agentstream.tools.context import RunContext

__all__ = ["PLACEHOLDER", "Context", "answered", "as_content", "fill", "has_names"]


#: What the steps of a run share, as a function sees it: the older name of `RunContext`.
Context = RunContext


class _Dict(Dict[str, Any]):
    """A dict that an agent's `output` asked for: another agent is asked its JSON."""


class _List(List[Any]):
    """The same for a list."""


def answered(value: Any) -> Any:
    """An agent's typed answer as the next step gets it: itself, or what equals it."""
    kinds: Dict[Any, Any] = {dict: _Dict, list: _List}
    return kinds[type(value)](value) if type(value) in kinds else value


def has_names(value: Any) -> bool:
    """True for results by name, which are told under headings; an answer's dict is told as JSON."""
    return isinstance(value, Mapping) and not isinstance(value, _Dict)


def as_content(value: Any, step: str) -> Asked:
    """What an agent is asked when its step is given `value`.

    A text, a list of a message's parts, a message and a list of messages are asked as
    they are; of a dict, each value under a heading with its name; anything else, and
    what another agent's `output` asked for, as JSON.

    Raises:
        ConfigError: the value is None.
    """
    if isinstance(value, (str, ChatMessage)) and not isinstance(value, enum.Enum):
        return value
    if isinstance(value, (_Dict, _List)):
        return _text(value)
    if is_messages(value):
        return value
    parts = _parts_of(value)
    if parts is not None:
        return parts
    if value is None:
        raise _nothing(step)
    return _text(value)


def _nothing(step: str) -> ConfigError:
    return ConfigError(
        f"step {step!r} was given nothing (None): does the function before it return a value?"
    )


def _parts_of(value: Any) -> Optional[List[Dict[str, Any]]]:
    """The parts of a message that `value` is; an answer's list is none, whatever it looks like."""
    is_list = isinstance(value, list) and not isinstance(value, _List)
    return value if is_list and value and all(_is_part(item) for item in value) else None


def _is_part(item: object) -> bool:
    return isinstance(item, Mapping) and isinstance(item.get("type"), str)


def _text(value: Any) -> str:
    named = has_names(value)
    value = plain(value)
    if named or isinstance(value, str):
        return as_text(freeze(value))
    return json.dumps(freeze(value), ensure_ascii=False)


_MISSING = object()
#: What a prompt's template may name.
PLACEHOLDER = pattern(r"\{(input|context)(?:\.([^{}\s]+(?: [^{}\s]+)*))?\}")


def fill(template: str, input: Any, context: Mapping[str, Any], step: str) -> Content:
    """The template with its placeholders filled in.

    Of an input with pictures or files, a message or its parts, "{input}" is the text; they
    stand behind it.

    Raises:
        ConfigError: the input or the context has no such name.
    """
    content = input.content if isinstance(input, ChatMessage) else input
    parts = _parts_of(content)
    if parts is not None:
        texts = [part["text"] for part in parts if isinstance(part.get("text"), str)]
        text = _filled(template, "\n\n".join(texts), context, step)
        return [{"type": "text", "text": text}, *(p for p in parts if p["type"] != "text")]
    return _filled(template, content, context, step)


def _filled(template: str, input: Any, context: Mapping[str, Any], step: str) -> str:

    def value_of(found: re.Match[str]) -> str:
        whole, part = found.group(1), found.group(2)
        source: Any = input if whole == "input" else context
        if whole == "input" and part is not None and not isinstance(source, (str, Mapping)):
            source = plain(source)
        if whole == "input" and source is None:
            raise _nothing(step)
        if part is None:
            return _text(source) if whole == "input" else found.group(0)
        value = _named(source, part)
        if value is _MISSING:
            raise ConfigError(f"step {step!r}: its prompt names {found.group(0)}{_known(source)}")
        return part_as_text(freeze(plain(value)))

    return PLACEHOLDER.sub(value_of, template)


def _named(source: Any, name: str) -> Any:
    """What has that name, "a.b" in `source` or "b" in its "a"; `_MISSING` for nothing."""
    if not isinstance(source, Mapping):
        return _MISSING
    if name in source:
        return source[name]
    first, dot, rest = name.partition(".")
    if not dot or first not in source:
        return _MISSING
    return _named(plain(source[first]), rest)


def _known(source: Any) -> str:
    names: Optional[str] = None
    if isinstance(source, Mapping):
        names = ", ".join(map(str, source))
    if names is None:
        return ", but its input is a text, without names"
    return f", which is not there: there is {names or 'nothing'}"
