"""What the soak's server says: every answer follows from the seed, the call and the attempt.

So that any process can tell what a call must have delivered, and a broken
invariant can be played again.  No threads and no checks here.
"""

from __future__ import annotations

import json
import random
import threading
import time
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from agentstream.testing import (
    Cut,
    Hang,
    KeepOpen,
    Pause,
    Raw,
    Reply,
    Request,
    Reset,
    ScriptedServer,
)
from stress.soak.toxics import ToxicConnection, ToxicProxy

__all__ = [
    "HEADER",
    "KEY",
    "PROMPT",
    "WHOLE",
    "Attempt",
    "Script",
    "SoakServer",
    "script_for",
    "tool_names",
]

#: Marked secrets, hunted through every error, repr, event and log line.
KEY = "sk-SOAKKEYMARK0123456789abcdefwxyz"
HEADER = "SOAKHEADERMARK-zyxwvu9876543210"
PROMPT = "SOAKPROMPTMARK tell nobody of the blue heron"

_WORDS = [
    "the ",
    "of ",
    "heron",
    "stream",
    "\n",
    "Ünïcödé ",
    "名前",
    "🐦",
    "\u2028",
    "a, ",
    "b. ",
    '"quoted" ',
    "\\",
    "data: x",
    "[DONE] ",
    "  ",
    "longer words as they come ",
]

#: Kinds after which a call may be ok; all others must fail.
WHOLE = {"whole", "finish-no-done", "done-open", "json"}
_WEIGHTS = {
    "whole": 62,
    "finish-no-done": 4,
    "done-open": 3,
    "json": 2,
    "status": 9,
    "auth": 1,
    "html": 1,
    "not-http": 1,
    "bad-json": 2,
    "error-event": 4,
    "cut": 4,
    "reset": 3,
    "cut-before": 3,
    "hang": 2,
    "pings": 2,
    "no-end": 2,
}
#: Of a call within a shape: it has many, and most shapes are to come to their end.
_GENTLE = {**_WEIGHTS, "whole": 600}
_TOOLS = ["lookup", "lookup", "broken", "slow", "stuck"]
_FRAMINGS = ["chunked", "chunked", "chunked", "length", "one-chunk", "close", "http10", "gzip"]


class Script(NamedTuple):
    """One attempt's answer: what it says in all, and what goes wrong with it.

    `at` is how many of `texts` come before what goes wrong.
    """

    kind: str
    framing: str
    texts: Tuple[str, ...]
    at: int
    tools: Tuple[str, ...]
    pace: float

    @property
    def text(self) -> str:
        return "".join(self.texts)


def script_for(seed: str, call: str, round: int, attempt: int) -> Script:
    """The answer to an attempt (from 1) of a round (from 0) of a call."""
    rng = random.Random(f"{seed}:{call}:{round}:{attempt}")
    weights = _GENTLE if ":" in call else _WEIGHTS
    kind = rng.choices(list(weights), list(weights.values()))[0]
    tools = _tools_of(seed, call, round)
    if tools and kind == "json":
        kind = "whole"
    count = rng.choice([0, 1, 3, 10, 25, 50])
    texts = [f"<{call}/{round}/{attempt}>"]
    texts += ["".join(rng.choices(_WORDS, k=rng.randint(1, 4))) for _ in range(count)]
    pace = rng.choice([0.0, 0.002, 0.01, 0.03])
    framing = rng.choice(_FRAMINGS)
    return Script(kind, framing, tuple(texts), rng.randint(0, len(texts)), tools, pace)


def _tools_of(seed: str, call: str, round: int) -> Tuple[str, ...]:
    """The tools that a round's answer asks for, whichever attempt it is."""
    if ":" not in call:
        return ("lookup",) if call.split(".")[0].endswith("t") and round == 0 else ()
    rng = random.Random(f"{seed}:{call}:tools")
    asked: List[Tuple[str, ...]] = []
    for _ in range(rng.choice([0, 0, 1, 1, 2])):
        asked.append(tuple(rng.choices(_TOOLS, k=rng.randint(1, 3))))
    return asked[round] if round < len(asked) else ()


def tool_names(script: Script, call: str, round: int, attempt: int) -> List[str]:
    """The arguments of the tool calls that an attempt asks for."""
    return [f"{call}/{round}/{attempt}/{number}" for number in range(len(script.tools))]


class Attempt(NamedTuple):
    """A request that reached the server."""

    round: int
    number: int
    when: float
    connection: Optional[ToxicConnection]


def _event(mark: str, delta: Dict[str, Any], finish: Optional[str] = None) -> bytes:
    chunk = {"id": mark, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}
    return b"data: " + json.dumps(chunk, ensure_ascii=len(mark) % 2 == 0).encode() + b"\n\n"


def mark(call: str, round: int, attempt: int, number: int) -> str:
    """The id of a chunk."""
    return f"{call}/{round}/{attempt}#{number}"


class SoakServer(ScriptedServer):
    """Answers as `script_for` says, and keeps which attempts of which call came, and when."""

    def __init__(self, seed: str, *, tls: bool) -> None:
        self.seed = seed
        self.proxy: Optional[ToxicProxy] = None
        self.attempts: Dict[str, List[Attempt]] = {}
        self.strange: List[str] = []  # requests that are not what they should be
        self._guard = threading.Lock()
        super().__init__(tls=tls)

    def pop(self, call: str) -> List[Attempt]:
        """The attempts of a call, forgotten here."""
        with self._guard:
            return self.attempts.pop(call, [])

    def sweep(self, age: float = 150.0) -> None:
        """Forget what nobody asked for: calls of killed workers, say."""
        limit = time.monotonic() - age
        with self._guard:
            old = [c for c, found in self.attempts.items() if found[-1].when < limit]
            for call in old:
                del self.attempts[call]
        with self._changed:  # an hour's worth would look like a leak of the library's
            self._outcomes.clear()

    def _reply_to(self, request: Request) -> Reply:
        if request.method == "GET":  # what a LlamaClient asks before it sends tools
            return Reply.json({"chat_template_caps": {"supports_tools": True}})
        body = request.json
        system = body["messages"][0]["content"]
        call = system.partition("[[")[2].partition("]]")[0]
        if ":" in call:  # a step that may run more than once: which time it is, says its input
            call += "-" + body["messages"][1]["content"].split("#")[1]
        round = sum(1 for m in body["messages"] if m["role"] == "assistant")
        number = self._record(call, round, request)
        self._check(call, body)
        script = script_for(self.seed, call, round, number)
        return _build(script, call, round, number, system, request)

    def _record(self, call: str, round: int, request: Request) -> int:
        link = self._links.get(request.connection_id)
        connection = None
        if link is not None and self.proxy is not None:
            try:
                connection = self.proxy.at(link._sock.getpeername()[1])
            except OSError:
                pass  # it has gone
        with self._guard:
            found = self.attempts.setdefault(call, [])
            number = 1 + sum(1 for a in found if a.round == round)
            found.append(Attempt(round, number, request.received, connection))
        return number

    def _check(self, call: str, body: Dict[str, Any]) -> None:
        """Each tool call has its own result, and a second step the whole of the first's text."""
        self._check_results(call, body)
        if not call.endswith(".1"):
            return
        asked = body["messages"][1]["content"]
        name, _, rest = asked[1:].partition("/")
        place = rest.partition(">")[0].split("/")
        whole = script_for(self.seed, name, int(place[0]), int(place[1])).text
        if name != call[:-1] + "0" or whole != asked:
            self.strange.append(f"{call}: the first step's output came as {asked[:200]!r}")

    def _check_results(self, call: str, body: Dict[str, Any]) -> None:
        asked = {}
        for message in body["messages"]:
            for made in message.get("tool_calls") or ():
                name = json.loads(made["function"]["arguments"])["name"]
                asked[made["id"]] = made["function"]["name"], name
            if message["role"] != "tool":
                continue
            tool, name = asked.pop(message["tool_call_id"], ("none", ""))
            text = message["content"]
            told = {"lookup": f"{name} is a bird", "slow": f"{name} is slow"}.get(tool, text)
            if told != text or tool == "none" or " too late" in text or not name.startswith(call):
                self.strange.append(f"{call}: {tool}({name!r}) was told {text[:200]!r}")
        if asked:
            self.strange.append(f"{call}: calls without results: {asked}")


def _build(
    script: Script, call: str, round: int, number: int, system: str, request: Request
) -> Reply:
    kind = script.kind
    rng = random.Random(f"{call}:{round}:{number}:build")
    echo = (
        f"{'x' * rng.randint(0, 1100)} {request.headers.get('Authorization')} "
        f"{request.headers.get('X-Secret')} said: {system}"
    )
    if kind == "status":
        status = rng.choice([408, 429, 429, 500, 502, 503, 529])
        after = rng.choice([None, "0", "0.2", "1", "3600", "junk", "Wed, 21 Oct 2015 07:28:00 GMT"])
        fields = [] if after is None else [("Retry-After", after)]
        return Reply.json({"error": {"message": echo}}, status=status, headers=fields)
    if kind == "auth":
        return Reply.json({"error": {"message": echo}}, status=rng.choice([400, 401, 403]))
    if kind == "html":
        return Reply(f"<html><title>{echo}</title></html>", content_type="text/html")
    if kind == "not-http":
        return Reply("SSH-2.0-OpenSSH_9.6\r\n\r\n", framing="raw")
    if kind == "cut-before":
        return Reply(before_headers=[rng.choice([Cut(), Reset(), Pause(0.05)]), Cut()])
    if kind == "json":
        message = {"role": "assistant", "content": script.text}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return Reply.json({"id": "whole", "choices": [choice]})
    return Reply(*_pieces(script, call, round, number, echo, rng), framing=script.framing)


def _pieces(
    script: Script, call: str, round: int, number: int, echo: str, rng: random.Random
) -> List[Any]:
    said: List[Any] = [_event("role", {"role": "assistant", "content": ""})]
    for place, text in enumerate(script.texts, 1):
        said.append(_event(mark(call, round, number, place), {"content": text}))
        if script.pace:
            said.append(Pause(script.pace))
    if script.kind in WHOLE:
        return said + _ending(script, tool_names(script, call, round, number), rng)
    pieces = said[: 1 + script.at * (2 if script.pace else 1)]
    if script.kind == "bad-json":
        return [*pieces, f'data: {{"choices": [{{"delta": {echo}\n\n'.encode()]
    if script.kind == "error-event":
        error = json.dumps({"error": {"message": echo, "code": 500}})
        head = rng.choice(["", "event: error\n"])
        return [*pieces, f"{head}data: {error}\n\n".encode()]
    if script.kind == "cut":
        return [*pieces, *rng.choice([[], [Raw(b'9f\r\ndata: {"choi')]]), Cut()]
    if script.kind == "reset":
        return [*pieces, Pause(0.02), Reset()]
    if script.kind == "hang":
        return [*pieces, Hang()]
    if script.kind == "pings":
        return [*pieces, *[p for _ in range(100) for p in (Pause(0.2), b": ping\n\n")]]
    return pieces  # "no-end": the framing ends, the answer does not


def _ending(script: Script, names: List[str], rng: random.Random) -> List[Any]:
    finish = "tool_calls" if script.tools else "stop"
    pieces: List[Any] = []
    for index, (tool, name) in enumerate(zip(script.tools, names)):
        text = json.dumps({"name": name})
        cut = rng.randint(0, len(text))
        head = {"index": index, "id": f"call_{name}", "type": "function"}
        function = {"name": tool, "arguments": text[:cut]}
        pieces.append(_event("tool", {"tool_calls": [{**head, "function": function}]}))
        rest = {"index": index, "function": {"arguments": text[cut:]}}
        pieces.append(_event("tool", {"tool_calls": [rest]}))
    pieces.append(_event("finish", {}, finish))
    if script.kind == "finish-no-done":
        return pieces
    if rng.random() < 0.5:
        usage = {"prompt_tokens": 5, "completion_tokens": len(script.texts), "total_tokens": 9}
        pieces.append(b"data: " + json.dumps({"choices": [], "usage": usage}).encode() + b"\n\n")
    pieces.append(b"data: [DONE]\n\n")
    if script.kind == "done-open":
        pieces.append(KeepOpen())
    return pieces
