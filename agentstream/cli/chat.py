"""agentstream chat: one question, its answer as it arrives.

Without a terminal, a log or `--jsonl` it is a plain stream: no agent, no bus, no
thread but the reader.
"""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any, Dict, List

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

__all__ = ["chat"]


def chat(given: argparse.Namespace) -> int:
    """Answer; returns the exit code."""
    system = setting(given, "system") or ""
    with hold(given.lock), contextlib.ExitStack() as stack:
        question = ChatMessage.user(_prompt(given), given.files)
        client = open_client(given, stack, resume=True)
        try:
            if given.jsonl or setting(given, "log") or _is_watched(given):
                return _as_a_run(given, client, system, question.content)
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


def _is_watched(given: argparse.Namespace) -> bool:
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


def _as_a_run(given: argparse.Namespace, client: Any, system: str, content: Any) -> int:
    """The same as a run of one agent: with events, and so with a log and a status line."""
    from agentstream.agent.agent import Agent  # noqa: PLC0415
    from agentstream.cli.execute import execute  # noqa: PLC0415

    agent = Agent("chat", client=client, system_prompt=system, **_sampling(given))
    return execute(given, agent, content, log=find_log(given), plain=True)
