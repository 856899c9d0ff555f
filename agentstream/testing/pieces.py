"""The bytes of a stream: SSE events, chat-completions chunks, recorded bodies.

Pure functions that return pieces for `ScriptedServer.reply`.
"""

from __future__ import annotations

import json
import os
import re
from typing import Any, Dict, List, Mapping, Optional, Tuple, Union

__all__ = ["DONE", "chat_chunk", "recorded", "sse", "text_chunks", "tool_call_chunks"]

DONE = b"data: [DONE]\n\n"

_LINE_END = rb"(?:\r\n|\n|\r(?!\n))"
_EVENT = re.compile(rb".*?" + _LINE_END + _LINE_END + rb"|.+", re.DOTALL)


def sse(data: object, *, event: Optional[str] = None, id: Optional[str] = None) -> bytes:
    """One server-sent event: a str as it is (a `data:` line for each of its lines), else JSON."""
    text = data if isinstance(data, str) else _json(data)
    lines = [] if event is None else [f"event: {event}"]
    if id is not None:
        lines.append(f"id: {id}")
    lines += [f"data: {line}" for line in text.split("\n")]
    return ("\n".join(lines) + "\n\n").encode("utf-8")


def _json(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:  # a lone surrogate can only be sent escaped
        return json.dumps(value, separators=(",", ":"))
    return text


def chat_chunk(
    delta: Mapping[str, Any], *, finish_reason: Optional[str] = None, model: str = "scripted"
) -> bytes:
    """One `chat.completion.chunk` event with one choice of that delta."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return sse(_envelope(model, [choice]))


def text_chunks(
    *texts: str,
    finish_reason: Optional[str] = "stop",
    usage: Union[bool, Mapping[str, Any]] = True,
    done: bool = True,
    model: str = "scripted",
) -> List[bytes]:
    """The events of a whole streamed answer, one delta for each text.

    `finish_reason` None, `usage` False and `done` False leave those marks out.
    `usage` True says 10 prompt tokens and one completion token for each text.
    """
    pieces = [chat_chunk({"role": "assistant", "content": ""}, model=model)]
    pieces += [chat_chunk({"content": text}, model=model) for text in texts]
    return pieces + _ending(finish_reason, usage, len(texts), done, model)


def tool_call_chunks(
    *calls: Tuple[str, Union[str, Mapping[str, Any]]],
    finish_reason: Optional[str] = "tool_calls",
    usage: Union[bool, Mapping[str, Any]] = True,
    done: bool = True,
    model: str = "scripted",
) -> List[bytes]:
    """The events of an answer that calls tools; each call is `(name, arguments)`.

    Arguments that are a str go out as they are, valid JSON or not; they come in
    two deltas, cut in the middle.  The calls' ids are "call_0", "call_1" ...
    """
    pieces = [chat_chunk({"role": "assistant", "content": None}, model=model)]
    for index, (name, arguments) in enumerate(calls):
        text = arguments if isinstance(arguments, str) else _json(arguments)
        half = len(text) // 2
        first = {
            "index": index,
            "id": f"call_{index}",
            "type": "function",
            "function": {"name": name, "arguments": text[:half]},
        }
        second = {"index": index, "function": {"arguments": text[half:]}}
        pieces += [chat_chunk({"tool_calls": [part]}, model=model) for part in (first, second)]
    return pieces + _ending(finish_reason, usage, len(calls), done, model)


def _ending(
    finish_reason: Optional[str],
    usage: Union[bool, Mapping[str, Any]],
    completion_tokens: int,
    done: bool,
    model: str,
) -> List[bytes]:
    pieces = []
    if finish_reason is not None:
        pieces.append(chat_chunk({}, finish_reason=finish_reason, model=model))
    if usage is True:
        usage = {
            "prompt_tokens": 10,
            "completion_tokens": completion_tokens,
            "total_tokens": 10 + completion_tokens,
        }
    if usage:
        pieces.append(sse({**_envelope(model, []), "usage": usage}))
    if done:
        pieces.append(DONE)
    return pieces


def _envelope(model: str, choices: List[Dict[str, Any]]) -> Dict[str, Any]:
    return {
        "id": "chatcmpl-scripted",
        "object": "chat.completion.chunk",
        "created": 1700000000,
        "model": model,
        "choices": choices,
    }


def recorded(source: Union[str, os.PathLike[str], bytes]) -> List[bytes]:
    """A recorded SSE body (a path, or its bytes) as one piece an event.

    Nothing is changed: joined, the pieces are the body again, whatever its line
    ends; a tail without its blank line is the last piece.
    """
    if not isinstance(source, bytes):
        with open(source, "rb") as file:
            source = file.read()
    return _EVENT.findall(source)
