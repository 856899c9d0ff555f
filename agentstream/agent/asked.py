"""What an agent is asked, in whichever form -> the messages that ask it.  Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, List, Mapping, Optional, Sequence, Union

from agentstream import checks
from agentstream.errors import ConfigError
from agentstream.llm.history import mended
from agentstream.llm.messages import ChatMessage, Content, MessageLike

if TYPE_CHECKING:
    from typing_extensions import TypeGuard

    from agentstream.agent.conversation import Conversation

__all__ = ["Asked", "as_conversation", "as_messages", "is_messages"]

#: A text, a list of a message's parts, a message, or messages as ours or in OpenAI's form.
Asked = Union[Content, MessageLike, Sequence[MessageLike]]


def as_messages(input: Any) -> List[ChatMessage]:
    """The messages of a run's input, the user's question last.

    Raises:
        ConfigError: it is no question, a message cannot be read, or one's call has no result.
    """
    if isinstance(input, ChatMessage) or _has(input, "role"):
        input = [input]
    if isinstance(input, str):
        return [ChatMessage.user(input)]
    if is_messages(input):
        ours = [_ours(message, number) for number, message in enumerate(input, 1)]
        return list(mended(ours))  # type: ignore[arg-type]  # it gives what it is given
    if isinstance(input, list) and input and all(map(_is_part, input)):
        return [ChatMessage.user(input)]
    raise ConfigError(
        "an agent is asked a text, a list of a message's parts, or a list of messages"
        f' ({{"role": "user", "content": "..."}}), not {_told(input)}'
    )


def as_conversation(given: Any) -> Optional[Conversation]:
    """The conversation that a run is given; None for none.

    Raises:
        ConfigError: it is none.
    """
    if given is None:
        return None
    from agentstream.agent.conversation import Conversation  # noqa: PLC0415 - only who has one

    example = "Conversation(); a list of messages is what is asked: agent.run([...])"
    found: Conversation = checks.instance("conversation", given, Conversation, example=example)
    return found


def is_messages(input: Any) -> TypeGuard[Sequence[MessageLike]]:
    """True for a list of messages, ours or dicts with a role."""
    return (
        isinstance(input, (list, tuple))
        and bool(input)
        and all(isinstance(item, ChatMessage) or _has(item, "role") for item in input)
    )


def _is_part(item: Any) -> bool:
    return _has(item, "type")


def _has(item: Any, key: str) -> bool:
    return isinstance(item, Mapping) and isinstance(item.get(key), str)


def _ours(message: MessageLike, number: int) -> ChatMessage:
    if isinstance(message, ChatMessage):
        return message
    ChatMessage(message["role"])  # or the error says which roles there are
    if message["role"] in ("system", "user") and not message.get("content"):
        raise ConfigError(f"message {number} has no content")
    from agentstream.agent.conversation import message_of  # noqa: PLC0415 - few ask with dicts

    return message_of({"content": None, **message}, number)


def _told(input: Any) -> str:
    if isinstance(input, (list, tuple)):
        kinds = dict.fromkeys(type(item).__name__ for item in input)
        return f"a {type(input).__name__} of {', '.join(kinds)}" if kinds else "an empty list"
    return type(input).__name__
