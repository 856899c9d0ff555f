"""The conformance corpus through a client: what of each recorded stream it reads right.

The corpus says what a stream holds: text, reasoning, tool calls, finish_reason,
usage, and whether it is an error.  A peer is judged by what its own objects give
a caller, wherever it keeps it; a stream is right when text, tool calls, finish
reason and error are, so that a peer that has no place for reasoning loses
nothing there.  `all` counts reasoning and usage too.
"""

from __future__ import annotations

import json
import pathlib
import urllib.parse
from typing import Any, Callable, Dict, List

from benchmarks.clients import BODY, MESSAGES

FIELDS = ("text", "reasoning", "tool_calls", "finish_reason", "usage", "error")
_RIGHT = ("text", "tool_calls", "finish_reason", "error")
_COUNTS = ("prompt_tokens", "completion_tokens", "total_tokens")


def score(client: str, url: str, corpus: str, most: int = 10_000) -> Dict[str, Any]:
    """How many streams come out right, field by field, and the names of those that do not."""
    streams = json.loads((pathlib.Path(corpus) / "index.json").read_text("utf-8"))[:most]
    right = dict.fromkeys((*FIELDS, "right", "all"), 0)
    wrong: List[str] = []
    read = _READERS[client]
    for stream in streams:
        name = pathlib.Path(stream["file"]).name
        got = dict.fromkeys(FIELDS, None)
        try:
            read(f"{url}/file={urllib.parse.quote(name)}/v1", got)
            got["error"] = False
        except Exception:
            got["error"] = True
        fields = _compare(got, _expected(stream))
        for field in FIELDS:
            right[field] += fields[field]
        right["all"] += all(fields.values())
        if all(fields[field] for field in _RIGHT):
            right["right"] += 1
        else:
            wrong.append(f"{name}: {', '.join(f for f in _RIGHT if not fields[f])}")
    return {"of": len(streams), **right, "wrong": wrong}


def _expected(stream: Dict[str, Any]) -> Dict[str, Any]:
    expected = stream["expected"]
    truncated = not stream["saw_done"] and expected["finish_reason"] is None
    return {
        "text": expected["text"],
        "reasoning": expected["reasoning_text"],
        "tool_calls": [(c["name"], c["arguments"]) for c in expected["tool_calls"]],
        "finish_reason": expected["finish_reason"],
        "usage": _counts(expected["usage"]),
        "error": expected["error"] is not None or truncated,
    }


def _counts(usage: Any) -> Dict[str, int]:
    found = {name: (usage or {}).get(name) for name in _COUNTS}
    return {name: count for name, count in found.items() if count is not None}


def _compare(got: Dict[str, Any], expected: Dict[str, Any]) -> Dict[str, bool]:
    fields = {field: (got[field] or None) == (expected[field] or None) for field in FIELDS}
    wanted = [(name, _value(text)) for name, text in expected["tool_calls"]]
    fields["tool_calls"] = [(n, _value(a)) for n, a in got["tool_calls"] or []] == wanted
    return fields


def _value(arguments: Any) -> Any:
    """Arguments as JSON values: who hands out a dict is as right as who hands out the text."""
    if isinstance(arguments, str):
        try:
            return json.loads(arguments or "{}")
        except ValueError:
            return arguments
    return arguments


# Each reader writes into `got` as it goes, so that what came before an error counts.


def _ours(base_url: str, got: Dict[str, Any]) -> None:
    from agentstream import OpenAIClient, Retries

    with OpenAIClient("m", base_url=base_url, api_key="k", retries=Retries(0)) as client:
        stream = client.chat_stream("hi")
        try:
            for _ in stream:
                pass
        finally:
            response = stream.response
            usage = response.usage
            got.update(
                text=response.content,
                reasoning=response.reasoning,
                tool_calls=[(call.name, call.arguments) for call in response.tool_calls],
                finish_reason=response.finish_reason,
                usage={} if usage.estimated else _counts(usage.to_dict()),
            )


def _chunks_of_openai(chunks: Any, got: Dict[str, Any]) -> None:
    """Sums chunks in openai-python's form as its own helper does: by index."""
    calls: Dict[Any, List[str]] = {}
    got.update(text="", reasoning="", tool_calls=[])
    for chunk in chunks:
        if getattr(chunk, "usage", None):
            got["usage"] = _counts(chunk.usage.model_dump())
        for choice in chunk.choices or []:
            if choice.index or choice.delta is None:
                continue
            delta = choice.delta
            got["text"] += delta.content if isinstance(delta.content, str) else ""
            for name in ("reasoning_content", "reasoning"):
                more = getattr(delta, name, None)
                if isinstance(more, str) and more:
                    got["reasoning"] += more
                    break
            for call in delta.tool_calls or []:
                slot = calls.setdefault(call.index, ["", ""])
                function = call.function
                slot[0] = slot[0] or (function and function.name) or ""
                slot[1] += (function and function.arguments) or ""
            got["tool_calls"] = [tuple(slot) for slot in calls.values()]
            got["finish_reason"] = choice.finish_reason or got["finish_reason"]


def _openai(base_url: str, got: Dict[str, Any]) -> None:
    import openai

    with openai.OpenAI(base_url=base_url, api_key="k", max_retries=0) as client:
        _chunks_of_openai(client.chat.completions.create(**BODY), got)


def _litellm(base_url: str, got: Dict[str, Any]) -> None:
    import litellm

    chunks = litellm.completion(
        model="openai/m",
        api_base=base_url,
        api_key="k",
        messages=MESSAGES,
        stream=True,
        stream_options={"include_usage": True},
        max_retries=0,
    )
    _chunks_of_openai(chunks, got)


def _langchain(base_url: str, got: Dict[str, Any]) -> None:
    from langchain_openai import ChatOpenAI

    model = ChatOpenAI(model="m", base_url=base_url, api_key="k", max_retries=0, stream_usage=True)
    total: Any = None
    got.update(text="", reasoning="", tool_calls=[])
    try:
        for chunk in model.stream("hi"):
            total = chunk if total is None else total + chunk
    finally:
        if total is not None:
            usage = total.usage_metadata or {}
            names = ("input_tokens", "output_tokens", "total_tokens")
            got.update(
                text=total.text if isinstance(total.text, str) else total.text(),
                reasoning=total.additional_kwargs.get("reasoning_content", ""),
                tool_calls=[(c["name"], c["args"] or {}) for c in total.tool_calls]
                + [(c["name"], c["args"]) for c in total.invalid_tool_calls],
                finish_reason=total.response_metadata.get("finish_reason"),
                usage=_counts({ours: usage.get(name) for ours, name in zip(_COUNTS, names)}),
            )


_READERS: Dict[str, Callable[[str, Dict[str, Any]], None]] = {
    "agentstream": _ours,
    "openai": _openai,
    "langchain-openai": _langchain,
    "litellm": _litellm,
}
