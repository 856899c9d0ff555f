"""Servers that refuse a history which is not what they said: one of each protocol.

A request that misses, alters, adds or moves anything of an earlier answer is a 400, as is
a call without its result or with another's.  `Strict.problem` says what is wrong.
"""

from __future__ import annotations

import json
import re
from typing import Any, Dict, List, Sequence, Tuple

from agentstream import AnthropicClient, LlamaClient, OllamaClient, OpenAIClient
from agentstream.testing import (
    Reply,
    ScriptedServer,
    messages_chunks,
    ollama_chunks,
    responses_chunks,
)
from agentstream.testing.pieces import DONE, chat_chunk
from tests.kit.support import KEY, NO_RETRIES

Answer = Sequence[Any]


class Strict:
    """Plays the answers of a conversation, and holds each request against what was said before.

    Attributes:
        path: where the requests go.
        rounds: a tool loop of three rounds and its end, with all that goes home.
        last: what that end says.
        marks: what of it no other server may see.
        served: answers that were given.
        refused: what was wrong with requests.
    """

    path: str
    rounds: List[Answer]
    last: str
    marks: Tuple[str, ...]

    def __init__(self, server: ScriptedServer, rounds: Sequence[Answer] = ()) -> None:
        self.server = server
        self.answers = list(rounds or self.rounds)
        self.served = 0
        self.refused: List[str] = []
        server.route(self.path, self._answer)

    def _answer(self, request: Any) -> Reply:
        problem = self.problem(request.json)
        if problem:
            self.refused.append(problem)
            return Reply.json(self.refusal(problem), status=400)
        number, self.served = self.served, self.served + 1
        return self.reply(number)

    def hear(self, text: str) -> None:
        """What another model said in the meantime: it will be among what is told."""
        self.answers.insert(self.served, [text])
        self.served += 1

    def refusal(self, problem: str) -> Dict[str, Any]:
        return {"error": {"type": "invalid_request_error", "message": problem}}

    def reply(self, number: int) -> Reply:
        """The answer of that number."""
        raise NotImplementedError

    def problem(self, body: Dict[str, Any]) -> str:
        """What is wrong with a request, after `served` answers; "" for nothing."""
        raise NotImplementedError

    def client(self, **settings: Any) -> Any:
        """A client of this server's protocol."""
        raise NotImplementedError


def altered(told: List[Any], expected: List[Any]) -> str:
    """Which of what is told is not what was said; "" if all of it is."""
    if told == expected:
        return ""
    wrong = [pair for pair in zip(told, expected) if pair[0] != pair[1]]
    return f"altered: {wrong}; {len(told)} told, {len(expected)} said"


class StrictChat(Strict):
    """Chat completions with reasoning that goes home: an answer is its message, as it was said."""

    path = "/v1/chat/completions"
    last = "It is so."
    marks = ("R1", "SIG1", "Hm", "Done.", "OP4")
    rounds = [
        [
            {
                "reasoning_content": "Hm \u00e9.",
                "reasoning_details": [
                    {"type": "reasoning.text", "text": "Hm.", "index": 0, "signature": "SIG1"},
                    {"type": "reasoning.encrypted", "data": "R1", "index": 1},
                ],
            },
            "Let me see.",
            ("look", {"at": "a"}),
            ("look", {"at": "b"}, {"google": {"thought_signature": "SIG1=="}}),
        ],
        [{"reasoning_content": "Hm, once more."}, ("look", {})],
        [("look", {"at": "\u00e9"})],
        [{"reasoning_content": "Done.", "reasoning_opaque": "OP4"}, "It is ", "so."],
    ]

    def client(self, **settings: Any) -> LlamaClient:
        settings = {"api_key": KEY, "retries": NO_RETRIES, **settings}
        return LlamaClient(self.server.url, **settings)

    @staticmethod
    def message(answer: Answer, number: int) -> Dict[str, Any]:
        """An answer as it is to come back."""
        state: Dict[str, Any] = {}
        calls = []
        for part in answer:
            if isinstance(part, dict):
                state.update(part)
            elif isinstance(part, tuple):
                name, given, *signed = part
                function = {"name": name, "arguments": json.dumps(given, ensure_ascii=False)}
                call = {"id": f"r{number}_{len(calls)}", "type": "function", "function": function}
                calls.append({**call, **({"extra_content": signed[0]} if signed else {})})
        text = "".join(part for part in answer if isinstance(part, str))
        message: Dict[str, Any] = {"role": "assistant", "content": text or None, **state}
        return {**message, "tool_calls": calls} if calls else message

    def reply(self, number: int) -> Reply:
        message = self.message(self.answers[number], number)
        calls = message.pop("tool_calls", [])
        texts = [part for part in self.answers[number] if isinstance(part, str)]
        message.pop("content")
        pieces = [chat_chunk({name: value}) for name, value in message.items()]
        pieces += [chat_chunk({"content": text}) for text in texts]
        pieces += [
            chat_chunk({"tool_calls": [{"index": n, **call}]}) for n, call in enumerate(calls)
        ]
        end = chat_chunk({}, finish_reason="tool_calls" if calls else "stop")
        return Reply(*pieces, end, DONE)

    def problem(self, body: Dict[str, Any]) -> str:
        told = [each for each in body["messages"] if each["role"] == "assistant"]
        said = [self.message(answer, n) for n, answer in enumerate(self.answers[: self.served])]
        waiting: List[str] = []
        for message in body["messages"]:
            if message["role"] == "tool":
                if message["tool_call_id"] not in waiting[:1]:
                    return "a result out of place"
                waiting.pop(0)
            elif waiting:
                return f"no result of {waiting}"
            waiting += [call["id"] for call in message.get("tool_calls", ())]
        return altered(told, said) or (f"no result of {waiting}" if waiting else "")


class StrictMessages(Strict):
    """Messages: an answer is its blocks."""

    path = "/v1/messages"
    last = "It is soindeed."
    marks = ("S1", "R1", "srv_1", "S3", "S4", "Done.")
    rounds = [
        [
            {"type": "thinking", "thinking": "First I look.", "signature": "S1"},
            {"type": "redacted_thinking", "data": "R1"},
            "Let me see.",
            ("look", {"at": "a"}),
            ("look", {"at": "b"}),
        ],
        [
            {"type": "thinking", "thinking": "", "signature": "S2"},
            {
                "type": "server_tool_use",
                "id": "srv_1",
                "name": "web_search",
                "input": {"query": "c"},
            },
            {"type": "web_search_tool_result", "tool_use_id": "srv_1", "content": [{"url": "u"}]},
            "Once more.",
            {"type": "thinking", "thinking": "c \u00e9 \U0001f600", "signature": "S3"},
            ("look", {}),
        ],
        [
            ("look", {"at": "\u00e9"}),
        ],
        [
            {"type": "thinking", "thinking": "Done.", "signature": "S4"},
            "It is ",
            {"type": "text", "text": "so", "citations": [{"url": "u"}]},
            "indeed.",
        ],
    ]

    def client(self, **settings: Any) -> AnthropicClient:
        settings = {"api_key": KEY, "retries": NO_RETRIES, **settings}
        return AnthropicClient("m", base_url=self.server.url, **settings)

    def refusal(self, problem: str) -> Dict[str, Any]:
        return {"type": "error", **super().refusal(problem)}

    @staticmethod
    def blocks(answer: Answer, number: int) -> List[Dict[str, Any]]:
        """An answer as Messages' blocks; its calls' ids tell the round."""
        calls = 0
        blocks = []
        for block in answer:
            if isinstance(block, str):
                block = {"type": "text", "text": block}
            elif isinstance(block, tuple):
                name, given = block
                call_id = f"r{number}_{calls}"
                block = {"type": "tool_use", "id": call_id, "name": name, "input": given}
                calls += 1
            blocks.append(block)
        return blocks

    def reply(self, number: int) -> Reply:
        body = b"".join(messages_chunks(*self.answers[number]))
        return Reply(body.replace(b'"toolu_', f'"r{number}_'.encode()))

    def problem(self, body: Dict[str, Any]) -> str:
        turns = json.loads(
            json.dumps(body["messages"]).replace(', "cache_control": {"type": "ephemeral"}', "")
        )
        told = [turn["content"] for turn in turns if turn["role"] == "assistant"]
        said = [self.blocks(answer, n) for n, answer in enumerate(self.answers[: self.served])]
        for turn, after in zip(turns, turns[1:]):
            ids = [b["id"] for b in turn["content"] if b["type"] == "tool_use"]
            results = [b.get("tool_use_id") for b in after["content"] if b["type"] == "tool_result"]
            if turn["role"] == "assistant" and ids != results:
                return f"results of {results}, not of {ids}"
            if turn["role"] == after["role"]:
                return "two turns in a row"
        return altered(told, said)


def thought(number: int, **more: Any) -> Dict[str, Any]:
    """A reasoning item of the Responses API."""
    return {
        "type": "reasoning",
        "id": f"rs_{number}",
        "summary": [{"type": "summary_text", "text": f"Thinking {number} \u00e9."}],
        "encrypted_content": f"gAAAA{number}\u00e9\U0001f600",
        **more,
    }


class StrictResponses(Strict):
    """The Responses API: an answer is its items."""

    path = "/responses"
    last = "It is so."
    marks = ("gAAAA", "rs_", "ws_1", "Thinking")
    rounds = [
        [thought(1), "Let me", " see.", ("look", {"at": "a"}), ("look", {"at": "b"})],
        [
            thought(2, status=None, content=[]),
            {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"q": "c"}},
            thought(3),
            "Once more.",
            ("look", {}),
        ],
        [("look", {"at": "\u00e9"})],
        [thought(4), "It is ", "so."],
    ]

    def client(self, **settings: Any) -> OpenAIClient:
        settings = {"api": "responses", "api_key": KEY, "retries": NO_RETRIES, **settings}
        return OpenAIClient("m", base_url=self.server.url, **settings)

    def hear(self, text: str) -> None:
        """What has no id is not held against what was said."""

    @staticmethod
    def events(answer: Answer, number: int) -> bytes:
        """The events of an answer, its calls' and items' ids telling the round."""
        body = b"".join(responses_chunks(*answer))
        body = re.sub(rb'"call_(?=\d)', f'"r{number}_'.encode(), body)
        return re.sub(rb'"item_(?=\d)', f'"i{number}_'.encode(), body)

    @classmethod
    def items(cls, answer: Answer, number: int) -> List[Dict[str, Any]]:
        """The items that an answer consists of, as their `output_item.done` has them."""
        lines = cls.events(answer, number).split(b"\n")
        events = [json.loads(line[5:]) for line in lines if line[:5] == b"data:"]
        return [e["item"] for e in events if e["type"] == "response.output_item.done"]

    def reply(self, number: int) -> Reply:
        return Reply(self.events(self.answers[number], number))

    def problem(self, body: Dict[str, Any]) -> str:
        if body["store"] or body.get("include") != ["reasoning.encrypted_content"]:
            return "not stateless"
        told = [item for item in body["input"] if "id" in item]
        said = sum((self.items(a, n) for n, a in enumerate(self.answers[: self.served])), [])
        waiting = []
        for item in body["input"]:
            if item.get("type") == "function_call":
                waiting.append(item["call_id"])
            elif item.get("type") == "function_call_output":
                if item["call_id"] != waiting.pop(0):
                    return "a result out of place"
            elif waiting and item.get("type") not in ("reasoning", "message", "web_search_call"):
                return f"no result of {waiting}"
        return altered(told, said) or (f"no result of {waiting}" if waiting else "")


class StrictOllama(Strict):
    """Ollama's own API: an answer is its message; a result stands behind its call, by name."""

    path = "/api/chat"
    last = "It is so."
    marks = ("Hm", "Done.")
    rounds = [
        [{"thinking": "Hm \u00e9."}, "Let me see.", ("look", {"at": "a"}), ("look", {"at": "b"})],
        [{"thinking": "Hm, once more."}, ("look", {})],
        [("look", {"at": "\u00e9"})],
        [{"thinking": "Done."}, "It is ", "so."],
    ]

    def client(self, **settings: Any) -> OllamaClient:
        settings = {"api_key": KEY, "retries": NO_RETRIES, **settings}
        return OllamaClient("m", self.server.url, **settings)

    @staticmethod
    def parts(answer: Answer) -> Dict[str, Any]:
        """An answer's texts, thinking and calls."""
        return {
            "texts": [part for part in answer if isinstance(part, str)],
            "thinking": [part["thinking"] for part in answer if isinstance(part, dict)],
            "calls": [part for part in answer if isinstance(part, tuple)],
        }

    @classmethod
    def message(cls, answer: Answer) -> Dict[str, Any]:
        """An answer as it is to come back."""
        parts = cls.parts(answer)
        message: Dict[str, Any] = {"role": "assistant", "content": "".join(parts["texts"])}
        if parts["thinking"]:
            message["thinking"] = "".join(parts["thinking"])
        if parts["calls"]:
            calls = [{"function": {"name": n, "arguments": given}} for n, given in parts["calls"]]
            message["tool_calls"] = calls
        return message

    def reply(self, number: int) -> Reply:
        parts = self.parts(self.answers[number])
        lines = ollama_chunks(
            *parts["texts"], thinking=parts["thinking"], tool_calls=parts["calls"]
        )
        return Reply(*lines, content_type="application/x-ndjson")

    def problem(self, body: Dict[str, Any]) -> str:
        told = [each for each in body["messages"] if each["role"] == "assistant"]
        said = [self.message(answer) for answer in self.answers[: self.served]]
        waiting: List[str] = []
        for message in body["messages"]:
            if message["role"] == "tool":
                if message.get("tool_name") not in waiting[:1]:
                    return "a result out of place"
                waiting.pop(0)
            elif waiting:
                return f"no result of {waiting}"
            waiting += [call["function"]["name"] for call in message.get("tool_calls", ())]
        return altered(told, said) or (f"no result of {waiting}" if waiting else "")


STRICT = (StrictChat, StrictResponses, StrictMessages, StrictOllama)
