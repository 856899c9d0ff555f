"""agentstream chat: one question, its answer as it arrives; or a conversation (`talk`).

Without a terminal, a log, a conversation or `--jsonl` it is a plain stream: no agent, no
bus, no thread but the reader.
"""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any, Dict, List, Optional

from agentstream.cli.budget import budget_of
from agentstream.cli.exits import DONE, Interrupted
from agentstream.cli.lock import hold
from agentstream.cli.output import Output, note_unread, piped_in, say
from agentstream.cli.settings import advise, find_log, open_client, setting
from agentstream.console.terminal import is_terminal
from agentstream.errors import AgentStreamError, ConfigError
from agentstream.llm.finish import remark_on
from agentstream.llm.messages import ChatMessage, ChatRequest
from agentstream.results import ChatResponse

if TYPE_CHECKING:
    import argparse

    from agentstream.cli.chats import Chat

__all__ = ["chat", "is_conversation"]


def chat(given: argparse.Namespace) -> int:
    """Answer, or hold a conversation; returns the exit code."""
    if given.list or given.forget is not None:
        return _look_after(given)
    if is_conversation(given):
        from agentstream.cli.talk import talk  # noqa: PLC0415 - a single question needs none

        with hold(given.lock):
            return talk(given, _sampling(given))
    return _answer(given)


def is_conversation(given: argparse.Namespace) -> bool:
    """True if somebody at a terminal asked nothing yet."""
    asked = given.prompt is not None or given.stdin or given.json or given.jsonl
    other = given.list or given.forget is not None
    return not (asked or other) and is_terminal(sys.stdin) and is_terminal(sys.stdout)


def _look_after(given: argparse.Namespace) -> int:
    """List the conversations that are kept, or forget one."""
    from agentstream.cli.chats import forget, listed  # noqa: PLC0415 - as above

    if given.forget is not None:
        forget(given.forget)
        return DONE
    output = Output(sys.stdout)
    for one in listed():
        if given.json:
            output.write_json(one)
        else:
            output.write(f"{one['name']:<28}{one['messages']:>5}  {one['begins']}\n")
    return DONE


def _answer(given: argparse.Namespace) -> int:
    """Answer one question."""
    with hold(given.lock), contextlib.ExitStack() as stack:
        question = ChatMessage.user(_prompt(given), given.files)
        chat = _named(given)
        client = open_client(given, stack, resume=True)
        try:
            if chat is not None or given.jsonl or setting(given, "log") or _counts(given):
                return _as_a_run(given, client, question.content, chat)
            system = setting(given, "system")
            messages = [ChatMessage.system(system)] if system else []
            messages.append(question)
            return _plain(client, ChatRequest(messages, **_sampling(given)), given)
        except AgentStreamError as error:
            advise(error, given)
            raise
        finally:
            if not (given.quiet or _reads_input(given)):
                note_unread("`agentstream chat PROMPT -` adds it")


def _sampling(given: argparse.Namespace) -> Dict[str, Any]:
    return {
        "max_tokens": given.max_tokens,
        "temperature": given.temperature,
        "reasoning_effort": given.reasoning_effort,
    }


def _prompt(given: argparse.Namespace) -> str:
    """What is asked, then what standard input says, where that is asked for."""
    read = piped_in(named=given.stdin) if _reads_input(given) else None
    prompt = "\n\n".join(part for part in (given.prompt, read) if part and part.strip())
    if not prompt:
        raise ConfigError("what is the question? `agentstream chat PROMPT`, or pipe one in")
    return prompt


def _reads_input(given: argparse.Namespace) -> bool:
    """False for a PROMPT alone: in a shell's `while read` loop, standard input is the list."""
    return bool(given.stdin) or not (given.prompt and given.prompt.strip())


def _named(given: argparse.Namespace) -> Optional[Chat]:
    """The conversation that the question belongs to."""
    if not given.last and given.conversation is None:
        return None
    from agentstream.cli.chats import chat_of  # noqa: PLC0415 - most questions have none

    return chat_of(given)


def _counts(given: argparse.Namespace) -> bool:
    """True if somebody watches, or there is a budget: what only a run has."""
    return _watched(given) or budget_of(given) is not None


def _watched(given: argparse.Namespace) -> bool:
    on_terminal = is_terminal(sys.stderr) or (is_terminal(sys.stdout) and not given.json)
    return bool(given.verbose) or (on_terminal and not given.quiet)


def _plain(client: Any, request: ChatRequest, given: argparse.Namespace) -> int:
    as_json, cut = given.json, ""
    output = Output(sys.stdout)
    heard: List[str] = []
    try:
        with client.chat_stream(request) as stream:
            for text in stream:
                heard.append(text)
                if not as_json and not output.write_text(text):
                    return DONE  # nobody reads it any more: `| head`
        if as_json:
            output.write_json(_as_dict(stream.response))
        cut = remark_on(stream.response.finish_reason, request.max_tokens)
    except Interrupted as interruption:
        interruption.text = "".join(heard)
        raise
    finally:
        output.end_line()
    if cut and not given.quiet:
        say(f"the answer {cut}")
    return DONE


def _as_dict(response: ChatResponse) -> Dict[str, Any]:
    """The answer, without what only its provider is to read."""
    calls = [
        {"id": call.id, "name": call.name, "arguments": call.arguments}
        for call in response.tool_calls
    ]
    fields = response._asdict()
    for name in ("provider_state", "value"):  # no type was asked for
        del fields[name]
    return {**fields, "text": response.text, "tool_calls": calls, "usage": response.usage.to_dict()}


def _as_a_run(given: argparse.Namespace, client: Any, content: Any, chat: Optional[Chat]) -> int:
    """The same as a run of one agent: with events, and so with a log and a status line."""
    from agentstream.agent.agent import Agent  # noqa: PLC0415
    from agentstream.cli.execute import Turn, execute  # noqa: PLC0415

    system = setting(given, "system") or ""
    if chat is not None:
        system = chat.system_of(given)
    agent = Agent("chat", client=client, system_prompt=system, **_sampling(given))
    turn = Turn(None if chat is None else chat.conversation)
    code = execute(given, agent, content, log=find_log(given), plain=True, turn=turn)
    if chat is not None:
        chat.keep_instructions(system)
    return code
