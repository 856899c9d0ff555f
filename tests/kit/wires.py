"""The five ways to talk to a server, each with how its answers are written: for tables over all.

`WIRES` has one for each client; `wire.whole()` writes an answer of reasoning, text and a call.
"""

from __future__ import annotations

import json
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Tuple

from agentstream import AnthropicClient, LlamaClient, OllamaClient, OpenAIClient
from agentstream.llm.client import HTTPClient
from agentstream.llm.settings import Timeouts
from agentstream.testing import Reply, messages_chunks, ollama_chunks, responses_chunks, sse
from agentstream.testing.pieces import DONE, chat_chunk
from tests.kit.support import KEY, NO_RETRIES, PATIENT

Calls = Tuple[Tuple[str, Any], ...]


class Wire(NamedTuple):
    """One client and its protocol.

    Attributes:
        name: the client's.
        make: makes a client for a server's URL.
        path: where its requests go.
        write: writes an answer: (reasoning, texts, calls, ended by), of which the last is
            "stop", "length" or None for an answer that has no end.
        error: the piece of a stream that is an error, of a code and words.
        content_type: of a stream.
        idle: a piece that is a sign of life and says nothing; b"" where there is none.
    """

    name: str
    make: Callable[..., HTTPClient]
    path: str
    write: Callable[[str, Tuple[str, ...], Calls, Optional[str]], List[bytes]]
    error: Callable[[str, str], bytes]
    content_type: str = "text/event-stream"
    idle: bytes = b": life\n\n"

    def client(self, url: str, **settings: Any) -> HTTPClient:
        """A client with the marked key, patient and retrying not; clocks may be given by name."""
        clocks = {name: settings.pop(name) for name in vars(PATIENT) if name in settings}
        settings.setdefault("timeouts", Timeouts(**{**vars(PATIENT), **clocks}))
        settings.setdefault("retries", NO_RETRIES)
        settings.setdefault("api_key", KEY)
        return self.make(url, **settings)

    def answer(
        self,
        *texts: str,
        reasoning: str = "",
        calls: Calls = (),
        ended: Optional[str] = "stop",
    ) -> List[bytes]:
        """The pieces of an answer."""
        return self.write(reasoning, texts, calls, ended)

    def whole(self) -> List[bytes]:
        """The pieces of an answer that has everything."""
        calls: Calls = (("look", {"at": "\u00e9 \U0001f600"}), ("go", {}))
        return self.answer("Gr\u00fc", "\u00dfe.", reasoning="Hm \u00e9.", calls=calls)

    def reply(self, *pieces: Any, **options: Any) -> Reply:
        """The reply with these pieces."""
        return Reply(*pieces, content_type=self.content_type, **options)


def _chat(
    reasoning: str, texts: Tuple[str, ...], calls: Calls, ended: Optional[str]
) -> List[bytes]:
    pieces = [chat_chunk({"reasoning_content": reasoning})] if reasoning else []
    pieces += [chat_chunk({"content": text}) for text in texts]
    for index, (name, given) in enumerate(calls):
        text = given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)
        half = len(text) // 2
        head = {"id": f"call_{index}", "function": {"name": name, "arguments": text[:half]}}
        rest = {"function": {"arguments": text[half:]}}
        pieces += [chat_chunk({"tool_calls": [{"index": index, **part}]}) for part in (head, rest)]
    if ended is None:
        return pieces
    reason = "tool_calls" if calls and ended == "stop" else ended
    usage = {"prompt_tokens": 10, "completion_tokens": 3, "total_tokens": 13}
    counts = {"choices": [], "model": "scripted", "usage": usage}
    return [*pieces, chat_chunk({}, finish_reason=reason), sse(counts), DONE]


def _responses(
    reasoning: str, texts: Tuple[str, ...], calls: Calls, ended: Optional[str]
) -> List[bytes]:
    thought = {"type": "reasoning", "summary": [{"type": "summary_text", "text": reasoning}]}
    items = [*([thought] if reasoning else []), *texts, *calls]
    usage = {"input_tokens": 10, "output_tokens": 3, "total_tokens": 13}
    cut = "max_output_tokens" if ended == "length" else None
    return responses_chunks(*items, usage=usage, incomplete=cut, done=ended is not None)


def _messages(
    reasoning: str, texts: Tuple[str, ...], calls: Calls, ended: Optional[str]
) -> List[bytes]:
    thought = {"type": "thinking", "thinking": reasoning, "signature": "S1"}
    blocks = [*([thought] if reasoning else []), *texts, *calls]
    reason = {"stop": "", "length": "max_tokens", None: None}[ended]
    usage = {"output_tokens": 3}
    return messages_chunks(*blocks, stop_reason=reason, usage=usage, done=ended is not None)


def _ollama(
    reasoning: str, texts: Tuple[str, ...], calls: Calls, ended: Optional[str]
) -> List[bytes]:
    pieces = ollama_chunks(
        *texts,
        thinking=[reasoning] if reasoning else [],
        tool_calls=[(name, given) for name, given in calls],
        done=False,
    )
    if ended is None:
        return pieces
    counts = {"prompt_eval_count": 10, "eval_count": 3}
    end: Dict[str, Any] = {"model": "scripted", "done": True, "done_reason": ended, **counts}
    return [*pieces, json.dumps(end).encode() + b"\n"]


def _fields(code: str, words: str) -> Mapping[str, Any]:
    return {"error": {"code": code, "type": code, "message": words}}


def _openai(url: str, **settings: Any) -> HTTPClient:
    return OpenAIClient("m", base_url=url, **settings)


WIRES = (
    Wire("chat", _openai, "/chat/completions", _chat, lambda *e: sse(_fields(*e))),
    Wire("llama", LlamaClient, "/v1/chat/completions", _chat, lambda *e: sse(_fields(*e))),
    Wire(
        "responses",
        lambda url, **settings: _openai(url, api="responses", **settings),
        "/responses",
        _responses,
        lambda *e: sse({"type": "error", **_fields(*e)["error"]}, event="error"),
    ),
    Wire(
        "anthropic",
        lambda url, **settings: AnthropicClient("m", base_url=url, **settings),
        "/v1/messages",
        _messages,
        lambda *e: sse({"type": "error", **_fields(*e)}, event="error"),
        idle=sse({"type": "ping"}, event="ping"),
    ),
    Wire(
        "ollama",
        lambda url, **settings: OllamaClient("m", url, **settings),
        "/api/chat",
        _ollama,
        lambda code, words: json.dumps({"error": words}).encode() + b"\n",
        content_type="application/x-ndjson",
        idle=b"\n",
    ),
)
