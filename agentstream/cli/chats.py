"""The conversations that `agentstream chat` keeps: their file, and which one a command is about.

A conversation at a terminal is kept, and so is a question that says so: `--continue`,
`--conversation NAME`.  Any other question is nobody's conversation, and leaves nothing behind.
"""

from __future__ import annotations

import itertools
import os
import time
from typing import TYPE_CHECKING, Any, Dict, List, NamedTuple, Optional, Sequence

from agentstream.agent.conversation import Conversation, Entry
from agentstream.agent.conversations import Conversations, StoredConversation
from agentstream.cli.settings import setting, state_folder
from agentstream.errors import ConfigError
from agentstream.events.entry import check_id
from agentstream.llm.messages import ChatMessage

if TYPE_CHECKING:
    import argparse

__all__ = ["Chat", "begin", "chat_of", "forget", "listed", "names", "words_of"]

_FILE = "chats.db"
#: Characters of a conversation's first words that a list shows.
_SHOWN = 60


class Chat(NamedTuple):
    """A conversation, and where it is kept.

    Attributes:
        name: its name in the file; "" for one that is not kept.
        conversation: what was said, and takes what is said now; no instructions.
        instructions: those it was held with last; None if none were given.
    """

    name: str
    conversation: Conversation
    instructions: Optional[str] = None

    def system_of(self, given: argparse.Namespace) -> str:
        """The instructions that hold: the flag's, its own, else those of the settings; or ""."""
        if given.system is None and self.instructions is not None:
            return self.instructions
        return setting(given, "system") or ""

    def keep_instructions(self, text: str) -> None:
        """Keep what it is held with, for who goes on with it."""
        if isinstance(self.conversation, _Kept) and text != (self.conversation.instructions or ""):
            self.conversation.add(ChatMessage.system(text))


class _Kept(StoredConversation):
    """A conversation in the file: its instructions are kept among its messages."""

    @property
    def instructions(self) -> Optional[str]:
        """The instructions that were kept last; None for none."""
        said = [message for message, _ in super()._read() if message.role == "system"]
        return words_of(said[-1]) if said else None

    def _read(self) -> Sequence[Entry]:
        return [entry for entry in super()._read() if entry[0].role != "system"]


def chat_of(given: argparse.Namespace) -> Optional[Chat]:
    """The conversation that the flags name; None if they name none.

    Raises:
        ConfigError: there is no last one to go on with, or the name cannot be used.
        LogError: the file cannot be used.
    """
    if not given.last and given.conversation is None:
        return None
    name = given.conversation
    if given.last:
        found = names()
        if not found:
            raise ConfigError(
                "there is no conversation to go on with: `agentstream chat` begins one, and"
                " `agentstream chat --conversation NAME PROMPT` with a question"
            )
        name = found[0]
    if given.no_save and not os.path.exists(_path()):
        return Chat("", Conversation())
    kept = _kept(name)
    if given.no_save:
        return Chat("", Conversation(kept.messages), kept.instructions)
    return Chat(name, kept, kept.instructions)


def begin(*, keep: bool) -> Chat:
    """A new conversation, named by the hour; it is in the file once something was said."""
    if not keep:
        return Chat("", Conversation())
    hour = f"{time.strftime('%Y-%m-%d-%H%M%S')}-{os.getpid()}"
    taken = names()
    further = (f"{hour}-{number}" for number in itertools.count(2))  # of the same second
    name = next(each for each in itertools.chain([hour], further) if each not in taken)
    return Chat(name, _kept(name))


def names() -> List[str]:
    """The names of the conversations that are kept, the one that was added to last first."""
    return _store().keys() if os.path.exists(_path()) else []


def listed() -> List[Dict[str, Any]]:
    """Name, number of messages and first words of each conversation, in the order of `names`."""
    found = []
    for name in names():
        messages = _kept(name).messages
        found.append({"name": name, "messages": len(messages), "begins": _beginning(messages)})
    return found


def forget(name: str) -> None:
    """Delete a conversation.

    Raises:
        ConfigError: there is none of that name.
    """
    if not (os.path.exists(_path()) and _store().delete(name)):
        raise ConfigError(f"there is no conversation {name!r}: `agentstream chat --list` has them")


def words_of(message: ChatMessage) -> str:
    """A message's content as a text; of a picture or a file, what kind of part it is."""
    content: Any = message.content
    if isinstance(content, str) or content is None:
        return content or ""
    return "\n\n".join(part.get("text") or f"({part.get('type')})" for part in content)


def _beginning(messages: Any) -> str:
    text = next((words_of(message) for message in messages if message.role == "user"), "")
    words = " ".join(text[: 4 * _SHOWN].split())
    return words if len(words) <= _SHOWN else words[: _SHOWN - 1] + "…"


def _kept(name: str) -> _Kept:
    check_id("a conversation's name", name)
    return _Kept(_store(), name)


def _path() -> str:
    return os.path.join(state_folder(), _FILE)


def _store() -> Conversations:
    folder = state_folder()
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"the folder {folder} cannot be made: {error.strerror}") from None
    return Conversations(_path())
