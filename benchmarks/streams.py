"""An answer's words, and what servers write of them in other protocols than chat completions.

In the size of the real thing, for the replay server; which protocol a request speaks, its
path tells.
"""

from __future__ import annotations

import json
from typing import Any, Callable, Dict, NamedTuple

#: An answer's words, over and over.
WORDS = [
    "Hello",
    "!",
    " How",
    " can",
    " I",
    " help",
    " you",
    " today",
    "?",
    "\n",
    " The",
    " quick",
    " brown",
    " fox",
    " jumps",
    " over",
    " the",
    " lazy",
    " dog",
    ".",
]

EVENTS, LINES = "text/event-stream", "application/x-ndjson"
_HEX = "0ad52f880f4d28470068fe7432247c81989f19a135fc8b480f"


def text_of(count: int) -> str:
    """The text that an answer of `count` deltas makes."""
    return "".join(WORDS[i % len(WORDS)] for i in range(count))


class Stream(NamedTuple):
    """An answer's parts: its beginning, the event of one word, and its end by the words' number."""

    content_type: str
    first: bytes
    word: Callable[[str], bytes]
    last: Callable[[int], bytes]


def _event(kind: str, **fields: Any) -> bytes:
    data = json.dumps({"type": kind, **fields}, separators=(",", ":"))
    return f"event: {kind}\ndata: {data}\n\n".encode()


def _response(status: str, **fields: Any) -> Dict[str, Any]:
    return {
        "id": f"resp_{_HEX}",
        "object": "response",
        "created_at": 1795342236,
        "status": status,
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "max_output_tokens": None,
        "model": "gpt-6-luna",
        "output": [],
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "store": False,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": None,
        "metadata": {},
        **fields,
    }


def _of_item(kind: str, **fields: Any) -> bytes:
    place = {"sequence_number": 4, "item_id": f"msg_{_HEX}", "output_index": 0, "content_index": 0}
    return _event(f"response.{kind}", **{**place, **fields})


_MESSAGE = {"id": f"msg_{_HEX}", "type": "message", "role": "assistant"}
_PART = {"type": "output_text", "annotations": [], "logprobs": [], "text": ""}


def _responses_end(count: int) -> bytes:
    part = {**_PART, "text": text_of(count)}
    item = {**_MESSAGE, "status": "completed", "content": [part]}
    details = {"input_tokens_details": {"cached_tokens": 0}}
    usage = {"input_tokens": 7, "output_tokens": count, "total_tokens": 7 + count, **details}
    usage["output_tokens_details"] = {"reasoning_tokens": 0}
    ended = _response("completed", output=[item], usage=usage)
    return (
        _of_item("output_text.done", text=part["text"], logprobs=[])
        + _of_item("content_part.done", part=part)
        + _event("response.output_item.done", sequence_number=7, output_index=0, item=item)
        + _event("response.completed", sequence_number=8, response=ended)
    )


RESPONSES = Stream(
    EVENTS,
    _event("response.created", sequence_number=0, response=_response("in_progress"))
    + _event("response.in_progress", sequence_number=1, response=_response("in_progress"))
    + _event(
        "response.output_item.added",
        sequence_number=2,
        output_index=0,
        item={**_MESSAGE, "status": "in_progress", "content": []},
    )
    + _of_item("content_part.added", part=_PART),
    lambda word: _of_item("output_text.delta", delta=word, logprobs=[]),
    _responses_end,
)

_COUNTS = {
    "input_tokens": 7,
    "cache_creation_input_tokens": 0,
    "cache_read_input_tokens": 0,
    "output_tokens": 1,
    "service_tier": "standard",
}
MESSAGES = Stream(
    EVENTS,
    _event(
        "message_start",
        message={
            "model": "claude-sonnet-5",
            "id": "msg_01Xk2LpI3wEYXCYCNAlDxw3o",
            "type": "message",
            "role": "assistant",
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": _COUNTS,
        },
    )
    + _event("content_block_start", index=0, content_block={"type": "text", "text": ""})
    + _event("ping"),
    lambda word: _event("content_block_delta", index=0, delta={"type": "text_delta", "text": word}),
    lambda count: (
        _event("content_block_stop", index=0)
        + _event(
            "message_delta",
            delta={"stop_reason": "end_turn", "stop_sequence": None},
            usage={"output_tokens": count},
        )
        + _event("message_stop")
    ),
)


def _line(content: str, **fields: Any) -> bytes:
    line = {
        "model": "qwen3",
        "created_at": "2026-11-27T09:47:55.123456789Z",
        "message": {"role": "assistant", "content": content},
        "done": False,
        **fields,
    }
    return json.dumps(line, separators=(",", ":")).encode() + b"\n"


OLLAMA = Stream(
    LINES,
    b"",
    _line,
    lambda count: _line(
        "",
        done=True,
        done_reason="stop",
        total_duration=5_043_500_667,
        load_duration=5_025_959,
        prompt_eval_count=7,
        prompt_eval_duration=325_953_000,
        eval_count=count,
        eval_duration=4_709_213_000,
    ),
)

#: By what a request's path ends with.
STREAMS = {"/responses": RESPONSES, "/v1/messages": MESSAGES, "/api/chat": OLLAMA}
