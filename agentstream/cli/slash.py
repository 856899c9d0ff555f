"""The commands within a conversation: lines that begin with "/", none of which is sent."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Callable, Dict, NamedTuple

from agentstream.agent.conversation import estimate_tokens
from agentstream.cli.chats import words_of
from agentstream.cli.output import note
from agentstream.cli.table import meant
from agentstream.errors import AgentStreamError, ConfigError
from agentstream.llm.messages import ChatMessage

if TYPE_CHECKING:
    from agentstream.agent.conversation import Conversation
    from agentstream.cli.turns import Turns

__all__ = ["COMMANDS", "Command", "perform"]


class Command(NamedTuple):
    """A command.

    Attributes:
        argument: what stands behind its name; "" for nothing.
        about: what it does, in some words.
        act: does it, with the argument as given; raises AgentStreamError or OSError.
    """

    argument: str
    about: str
    act: Callable[[Turns, str], None]


def perform(turns: Turns, line: str) -> None:
    """Do what a line says, or say why not."""
    name, _, argument = line[1:].partition(" ")
    command = COMMANDS.get(name.lower())
    if command is None:
        close = meant(name, COMMANDS)
        hint = f"did you mean /{close}? " if close else ""
        note(f"there is no /{name[:40]}: {hint}/help lists them; //{name[:40]} is sent")
        return
    try:
        if argument.strip() and not command.argument:
            raise ConfigError(f"/{name} stands alone")
        command.act(turns, argument.strip())
    except (AgentStreamError, OSError) as error:
        note(f"/{name}: {error}")


def _help(turns: Turns, argument: str) -> None:
    for name, command in COMMANDS.items():
        if not command.about:
            continue
        usage = f"/{name} {command.argument}".rstrip()
        note(f"  {usage:<16}{command.about}")
    note('A paste is one message, and so is what stands between """ and """.')
    note("//word sends /word. Ctrl-C stops an answer, Ctrl-D leaves.")


def _save(turns: Turns, argument: str) -> None:
    if not argument:
        raise ConfigError("which file? /save FILE; NAME.json for what a program reads")
    conversation = turns.chat.conversation
    if not len(conversation):
        raise ConfigError("nothing has been said yet")
    is_json = argument.lower().endswith(".json")
    text = (
        json.dumps(conversation.to_dict(), indent=1) + "\n"
        if is_json
        else _as_markdown(conversation)
    )
    try:
        path = os.path.expanduser(argument)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise ConfigError(f"{argument} is there already: name another file") from None
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    note(f"{len(conversation)} messages are in {argument}")


def _as_markdown(conversation: Conversation) -> str:
    return "\n".join(
        f"## {message.role}\n\n{words_of(message)}\n" for message in conversation.messages
    )


def _model(turns: Turns, argument: str) -> None:
    if argument:
        turns.use_model(argument)
    note(turns.model)


def _system(turns: Turns, argument: str) -> None:
    if argument:
        turns.system = "" if argument == "-" else argument
    note(turns.system or "no instructions; /system TEXT gives some")


def _retry(turns: Turns, argument: str) -> None:
    question = turns.unanswered
    if question is not None:
        turns.ask(question)
        return
    turn = turns.chat.conversation.undo()
    if not turn:
        raise ConfigError("nothing has been asked yet")
    if not turns.ask(turn[0].content or ""):
        turns.chat.conversation.add(*turn)  # the answer there was
        turns.unanswered = None


def _undo(turns: Turns, argument: str) -> None:
    if turns.unanswered is None:
        turn = turns.chat.conversation.undo()
        if not turn:
            raise ConfigError("nothing has been said yet")
    turns.unanswered = None
    note(f"forgotten; {len(turns.chat.conversation)} messages are left")


def _trim(turns: Turns, argument: str) -> None:
    conversation = turns.chat.conversation
    if not len(conversation):
        raise ConfigError("nothing has been said yet")
    question = ChatMessage.user(turns.unanswered or "")  # it counts, too
    told = sum(map(estimate_tokens, conversation.fitted(question)))
    conversation.max_tokens = max(1, told // 2) + estimate_tokens(question)
    count = len(conversation.fitted(question))
    note(f"the model is told the last {count} messages from now on")


def _new(turns: Turns, argument: str) -> None:
    turns.begin()
    note("a new conversation")


def _exit(turns: Turns, argument: str) -> None:
    turns.left = True


#: The commands by name.
COMMANDS: Dict[str, Command] = {
    "help": Command("", "this list", _help),
    "retry": Command("", "ask the last question again, in place of its answer", _retry),
    "undo": Command("", "forget the last question and its answer", _undo),
    "trim": Command("", "tell the model the newer half only, if all is too long for it", _trim),
    "model": Command("NAME", "ask that model from now on; without NAME: which it is", _model),
    "system": Command("TEXT", "the instructions from now on; - for none", _system),
    "save": Command("FILE", "write what was said: Markdown, or JSON for FILE.json", _save),
    "new": Command("", "begin a new conversation", _new),
    "exit": Command("", "leave; /quit and Ctrl-D do, too", _exit),
    "quit": Command("", "", _exit),
}
