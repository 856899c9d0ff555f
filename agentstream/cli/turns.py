"""The turns of a conversation at a terminal: questions, answers, and what became of both.

Each turn is a run of one agent, shown as a single question's is.  One that fails is told and
not lost: it can be asked again, and the conversation goes on.
"""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any, Dict, List, Optional

from agentstream.agent.agent import Agent
from agentstream.cli.chats import Chat, begin, chat_of
from agentstream.cli.execute import Turn, execute
from agentstream.cli.exits import line_of
from agentstream.cli.output import note, say
from agentstream.cli.servers import title
from agentstream.cli.settings import advise, find_log, open_client, setting
from agentstream.errors import AgentStreamError, BadRequest, Cancelled, ConfigError, WorkflowFailed
from agentstream.llm.messages import ChatMessage, Content

if TYPE_CHECKING:
    import argparse

    from agentstream.runtime.runtime import RunHandle

__all__ = ["CtrlC", "Turns"]


class CtrlC(Exception):
    """Ctrl-C at the prompt, or again while an answer is being stopped."""


class Turns:
    """A conversation under way.

    Args:
        given: the arguments; `use_model` changes them.
        sampling: what an agent is told of how to answer.
        stack: closes the clients.

    Attributes:
        chat: what was said, and where it is kept.
        system: the instructions.
        unanswered: a question without an answer: it failed, or was stopped at once.
        left: the person wants to leave.

    Raises:
        ConfigError: there is no such conversation, or no client to be had.
    """

    def __init__(
        self, given: argparse.Namespace, sampling: Dict[str, Any], stack: contextlib.ExitStack
    ) -> None:
        self.chat: Chat = chat_of(given) or begin(keep=not given.no_save)
        self.system = self.chat.system_of(given)
        self.unanswered: Optional[Content] = None
        self.left = False
        self._given = given
        self._sampling = sampling
        self._files: List[str] = given.files  # they go with the first message
        self._stack = stack
        self._client = self._open()
        self._handle: Optional[RunHandle] = None
        self._stopping = False

    def _open(self) -> Any:
        return open_client(self._given, self._stack, resume=True)

    def greeting(self) -> str:
        """A line to begin with: which conversation, which model, and how to leave."""
        count = len(self.chat.conversation)
        known = f"going on with {self.chat.name or 'a copy'} ({count} messages); " if count else ""
        return f"{known}{self.model}; /help lists commands, Ctrl-D leaves"

    # --- asking -----------------------------------------------------------------------------

    def ask_new(self, text: str) -> None:
        """Ask what was typed."""
        try:
            content = ChatMessage.user(text, self._files).content or text
        except ConfigError as error:
            note(f"agentstream: {error}")
            return
        self._files = []
        self.ask(content)

    def ask(self, content: Content) -> bool:
        """Ask, and show the answer or why there is none; True if there is some of it."""
        self.unanswered = content
        try:
            self._answer(content)
        except Cancelled as stopped:
            said = stopped.run.output if stopped.run is not None else None
            if not (isinstance(said, str) and said.strip()):
                note("(stopped; /retry asks again)")
                return False
            self.chat.conversation.add(ChatMessage.user(content), ChatMessage.assistant(said))
            note("(stopped; /retry asks again, /undo forgets it)")
        except CtrlC:
            note("(left before it had stopped; /retry asks again)")
            return False
        except (AgentStreamError, OSError) as error:
            self._tell(error)
            return False
        self.unanswered = None
        self.chat.keep_instructions(self.system)
        return True

    def _answer(self, content: Content) -> None:
        agent = Agent("chat", client=self._client, system_prompt=self.system, **self._sampling)
        timeout = setting(self._given, "deadline")
        turn = Turn(self.chat.conversation, timeout, self._watch)
        log = find_log(self._given)
        self._stopping = False
        try:
            execute(self._given, agent, content, log=log, plain=True, turn=turn)
        finally:
            self._handle = None
            sys.stdout.write("\n")  # a blank line behind the answer

    def _watch(self, handle: RunHandle) -> None:
        self._handle = handle

    def _tell(self, error: BaseException) -> None:
        """Say why there is no answer."""
        cause = error.__cause__
        known = isinstance(error, WorkflowFailed) and isinstance(cause, AgentStreamError)
        found = cause if known and cause else error
        advise(found, self._given)
        # No server says in the same words that it was told too much.
        too_long = isinstance(found, BadRequest) and len(self.chat.conversation)
        hint = "; if it is told too much: /trim, then /retry" if too_long else "; /retry asks again"
        say(line_of(found) + hint)

    def on_ctrl_c(self) -> None:
        """Stop the answer under way; in the main thread.

        Raises:
            CtrlC: for the second time, and it has not ended.
        """
        handle = self._handle
        if handle is None or handle.done():
            return
        if self._stopping:
            raise CtrlC
        self._stopping = True
        handle.cancel("stopped by Ctrl-C")

    # --- what commands change -----------------------------------------------------------------

    @property
    def model(self) -> str:
        """Which model answers, and at which server."""
        return title(self._client)

    def begin(self) -> None:
        """Begin a new conversation; the one until now stays where it is kept."""
        self.chat = begin(keep=not self._given.no_save)
        self.unanswered = None

    def use_model(self, name: str) -> None:
        """Ask another model of the same provider from now on.

        Raises:
            ConfigError: it cannot be used; the model stays.
        """
        if setting(self._given, "provider") == "embedded":
            raise ConfigError("the embedded model is chosen at the start: --model FILE")
        before, self._given.model = self._given.model, name
        try:
            self._client = self._open()
        except ConfigError:
            self._given.model = before
            raise
