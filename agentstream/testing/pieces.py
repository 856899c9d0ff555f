"""The bytes of a stream: SSE events, chat-completions chunks, recorded bodies.

Pure functions that return pieces for `ScriptedServer.reply`.
"""

from __future__ import annotations

import json
import os
import re
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple, Union

__all__ = [
    "DONE",
    "chat_chunk",
    "messages_chunks",
    "ollama_chunks",
    "recorded",
    "responses_chunks",
    "sse",
    "text_chunks",
    "tool_call_chunks",
]

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


def messages_chunks(
    *blocks: Union[str, Tuple[str, Union[str, Mapping[str, Any]]], Mapping[str, Any]],
    stop_reason: Optional[str] = "",
    usage: Union[bool, Mapping[str, Any]] = True,
    done: bool = True,
    model: str = "scripted",
) -> List[bytes]:
    """The events of an answer in Anthropic's Messages stream.

    A block is a text (texts in a row are one block, a delta each), a call `(name,
    arguments)` as `tool_call_chunks` has it, or a dict in Messages' own form: thinking
    with its signature, say.  The calls' ids are "toolu_0", "toolu_1" ...

    `stop_reason` "" says "tool_use" if there is a call, else "end_turn"; None leaves
    message_delta out, and `done` False message_stop.  `usage` as `text_chunks` has it.
    """
    counts = {} if usage is False else {"input_tokens": 10, "output_tokens": 1}
    start = {"id": "msg_scripted", "type": "message", "role": "assistant", "model": model}
    pieces = [_named("message_start", message={**start, "content": [], "usage": counts})]
    calls = 0
    index = -1
    before: Any = None
    for block in blocks:
        if not (isinstance(block, str) and isinstance(before, str)):
            if before is not None:
                pieces.append(_named("content_block_stop", index=index))
            index += 1
            started, deltas = _started(block, f"toolu_{calls}")
            calls += started["type"] == "tool_use"
            pieces.append(_named("content_block_start", index=index, content_block=started))
        else:
            deltas = [{"type": "text_delta", "text": block}]
        pieces += [_named("content_block_delta", index=index, delta=delta) for delta in deltas]
        before = block
    if before is not None:
        pieces.append(_named("content_block_stop", index=index))
    if stop_reason is not None:
        reason = {"stop_reason": stop_reason or ("tool_use" if calls else "end_turn")}
        last = {"output_tokens": len(blocks)} if usage is True else usage or {}
        pieces.append(_named("message_delta", delta=reason, usage=last))
    if done:
        pieces.append(_named("message_stop"))
    return pieces


def _named(kind: str, **fields: Any) -> bytes:
    return sse({"type": kind, **fields}, event=kind)


def _started(block: Any, call_id: str) -> Tuple[Dict[str, Any], List[Dict[str, Any]]]:
    """How a block of Messages starts, and the deltas that fill it."""
    if isinstance(block, str):
        return {"type": "text", "text": ""}, [{"type": "text_delta", "text": block}]
    if isinstance(block, tuple):
        name, arguments = block
        text = arguments if isinstance(arguments, str) else _json(arguments)
        half = len(text) // 2
        parts = [part for part in (text[:half], text[half:]) if part]
        started: Dict[str, Any] = {"type": "tool_use", "id": call_id, "name": name, "input": {}}
        return started, [{"type": "input_json_delta", "partial_json": part} for part in parts]
    if block.get("type") == "thinking":
        deltas = [{"type": "thinking_delta", "thinking": block["thinking"]}]
        if "signature" in block:
            deltas.append({"type": "signature_delta", "signature": block["signature"]})
        return {**block, "thinking": "", "signature": ""}, deltas
    return dict(block), []


def responses_chunks(
    *items: Union[str, Tuple[str, Union[str, Mapping[str, Any]]], Mapping[str, Any]],
    incomplete: Optional[str] = None,
    usage: Union[bool, Mapping[str, Any]] = True,
    done: bool = True,
    model: str = "scripted",
) -> List[bytes]:
    """The events of an answer of OpenAI's Responses API.

    An item is a text (texts in a row are one message, a delta each), a call `(name,
    arguments)` as `tool_call_chunks` has it, or a dict in the API's own form: reasoning
    with its encrypted_content, say, whose summary then comes as deltas.  The calls' ids
    are "call_0", "call_1" ...; those of items "item_0" ...

    `incomplete` is the reason of an answer that was cut, and `done` False leaves out the
    event that ends it.  `usage` True says 10 input tokens and an output token an item.
    """
    written = _Items()
    for item in items:
        written.add(item)
    written.close()
    response = {"id": "resp_scripted", "object": "response", "model": model}
    status = "completed" if incomplete is None else "incomplete"
    if usage is True:
        counts = {"input_tokens": 10, "output_tokens": len(items)}
        usage = {**counts, "total_tokens": 10 + len(items)}
    ended = {
        **response,
        "status": status,
        "output": written.items,
        "incomplete_details": incomplete and {"reason": incomplete},
        "usage": usage or None,
    }
    running: Dict[str, Any] = {**response, "status": "in_progress", "output": []}
    events: List[Tuple[str, Dict[str, Any]]] = [
        ("created", {"response": running}),
        ("in_progress", {"response": running}),
    ]
    events += written.events
    if done:
        events.append((status, {"response": ended}))
    return [
        _named(f"response.{kind}", **fields, sequence_number=number)
        for number, (kind, fields) in enumerate(events)
    ]


class _Items:
    """The items of a response as they are written, and the events that tell of them."""

    def __init__(self) -> None:
        self.items: List[Dict[str, Any]] = []
        self.events: List[Tuple[str, Dict[str, Any]]] = []
        self._message: Optional[Dict[str, Any]] = None
        self._calls = 0

    def add(self, item: Any) -> None:
        """Write one: a text, a call, or an item as it is."""
        if isinstance(item, str):
            self._say(item)
            return
        self.close()
        if isinstance(item, tuple):
            name, given = item
            text = given if isinstance(given, str) else _json(given)
            call = {"type": "function_call", "call_id": f"call_{self._calls}", "name": name}
            self._calls += 1
            call = self._open({**call, "arguments": ""})
            half = len(text) // 2
            for part in filter(None, (text[:half], text[half:])):
                self._tell("function_call_arguments.delta", delta=part)
            self._tell("function_call_arguments.done", arguments=text)
            self._done({**call, "arguments": text, "status": "completed"})
            return
        whole = self._open({**item, **({"summary": []} if "summary" in item else {})})
        for index, part in enumerate(item.get("summary", ())):
            self._tell("reasoning_summary_text.delta", summary_index=index, delta=part["text"])
        self._done({**whole, **item})

    def close(self) -> None:
        """End the message that is being written, if there is one."""
        message, self._message = self._message, None
        if message is not None:
            text = message["content"][0]["text"]
            self._tell("output_text.done", content_index=0, text=text)
            self._done({**message, "status": "completed"})

    def _say(self, text: str) -> None:
        if self._message is None:
            message = {"type": "message", "role": "assistant", "content": []}
            part = {"type": "output_text", "text": "", "annotations": []}
            self._message = {**self._open(message), "content": [part]}
            self._tell("content_part.added", content_index=0, part=dict(part))
        self._message["content"][0]["text"] += text
        self._tell("output_text.delta", content_index=0, delta=text)

    def _open(self, item: Dict[str, Any]) -> Dict[str, Any]:
        number = len(self.items)
        item = {"id": f"item_{number}", **item, "status": "in_progress"}
        self.events.append(("output_item.added", {"output_index": number, "item": item}))
        return item

    def _tell(self, kind: str, **fields: Any) -> None:
        number = len(self.items)
        place = {"output_index": number, "item_id": f"item_{number}"}
        self.events.append((kind, {**place, **fields}))

    def _done(self, item: Dict[str, Any]) -> None:
        self.events.append(("output_item.done", {"output_index": len(self.items), "item": item}))
        self.items.append(item)


def ollama_chunks(
    *texts: str,
    thinking: Sequence[str] = (),
    tool_calls: Sequence[Tuple[str, Mapping[str, Any]]] = (),
    done_reason: Optional[str] = "stop",
    usage: bool = True,
    done: bool = True,
    model: str = "scripted",
) -> List[bytes]:
    """The lines of a whole answer of Ollama's /api/chat: thinking, texts, calls, the end.

    Each call is `(name, arguments)`.  `done` False leaves the last line out, `usage` False
    its counts: 10 prompt tokens, and a completion token for each line before it.
    """
    messages: List[Dict[str, Any]] = [{"content": "", "thinking": text} for text in thinking]
    messages += [{"content": text} for text in texts]
    if tool_calls:
        calls = [{"function": {"name": n, "arguments": given}} for n, given in tool_calls]
        messages.append({"content": "", "tool_calls": calls})
    pieces = [_ollama_line(model, message, done=False) for message in messages]
    if done:
        counts = {"prompt_eval_count": 10, "eval_count": len(pieces)} if usage else {}
        reason = {} if done_reason is None else {"done_reason": done_reason}
        pieces.append(_ollama_line(model, {"content": ""}, done=True, **reason, **counts))
    return pieces


def _ollama_line(model: str, message: Mapping[str, Any], **fields: Any) -> bytes:
    line = {
        "model": model,
        "created_at": "2026-11-27T08:00:00.000000Z",
        "message": {"role": "assistant", **message},
        **fields,
    }
    return _json(line).encode() + b"\n"


def recorded(source: Union[str, os.PathLike[str], bytes]) -> List[bytes]:
    """A recorded SSE body (a path, or its bytes) as one piece an event.

    Nothing is changed: joined, the pieces are the body again, whatever its line
    ends; a tail without its blank line is the last piece.
    """
    if not isinstance(source, bytes):
        with open(source, "rb") as file:
            source = file.read()
    return _EVENT.findall(source)
