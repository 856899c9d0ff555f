"""Calls over connections that hold more than their answers, and what must come of each.

A `Plan` says how a server answers one request, and what it sends besides and when; a
`Reuser` makes the calls of a client, one after the other, and checks each.  Bytes that
form an answer and meet a request that is out already cannot be told from its own
(HTTP/1.1 numbers no answers): such a plan is made only for bytes that come earlier.
"""

from __future__ import annotations

import re
import threading
from collections import Counter
from typing import Any, Dict, Iterator, List, NamedTuple

from agentstream import errors
from agentstream.cancel import CancelToken
from agentstream.llm.transport import adapter, poll
from agentstream.testing import text_chunks
from tests.kit.support import client_of, wait_until
from tests.kit.wire import WireServer, chunked, closing, sized

__all__ = ["FRAMINGS", "HEADS", "SURPLUS", "WHEN", "Plan", "Reuser", "drains"]

_FORGED = sized(b"".join(text_chunks("forged")), headers=b"Content-Type: text/event-stream\r\n")
#: What a server may send besides its answer.
SURPLUS = {
    "none": b"",
    "crlf": b"\r\n",
    "nul": b"\0",
    "forged": _FORGED,
    "forged-empty": b"HTTP/1.1 204 No Content\r\n\r\n",
    "half-status": _FORGED[:10],
    "half-head": _FORGED[:25],
    "line-of-head": _FORGED[:17],
    "two-lines-of-head": _FORGED[: _FORGED.index(b"Content-Type")],
    "interim": b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n",
    "half-interim": b"HTTP/1.1 100 Conti",
    "chunk": b"5\r\nhello\r\n",
    "end": b"0\r\n\r\n",
    "trailers": b"X: y\r\n\r\n",
    "comment": b": ping\n\n",
    "done": b"data: [DONE]\n\n",
    "much": b"x" * 70_000,
}
#: Those that are a whole answer, or make the head behind them an interim one's.
_CLAIMING = ("forged", "forged-empty", "half-interim")
#: With the answer; right behind it; when the call is over; as the next request is sent.
WHEN = ("with", "behind", "idle", "sending")
FRAMINGS = ("length", "chunked", "small-chunks", "trailers", "drip", "close", "cut")
#: What comes before an answer.
HEADS = (b"", b"HTTP/1.1 100 Continue\r\n\r\n", SURPLUS["interim"] * 3)


class Plan(NamedTuple):
    """How one request is answered: a framing, a name in SURPLUS and its moment, HEADS."""

    framing: str
    surplus: str
    when: str
    head: bytes = b""
    size: int = 1

    def made_fair(self) -> Plan:
        """This plan without bytes that nobody can tell from an answer's own."""
        if self.framing in ("close", "cut"):
            return self._replace(surplus="none", when="with")
        if self.when == "sending" and self.surplus in _CLAIMING:
            return self._replace(when="idle")
        return self


class _Turn:
    """One call: its plan, when it is over, and when the next one sends its request."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.over = threading.Event()
        self.next_sends = threading.Event()


class Reuser:
    """A client and the server it calls; a context manager.

    Args:
        tls: speak TLS.

    Attributes:
        came_to: how many calls were "whole", or of which error's type.
        crossed: how many got another answer than their own.
        lost: how many failed that nothing hindered.
    """

    def __init__(self, *, tls: bool) -> None:
        self.server = WireServer(self._answer, tls=tls)
        self.client: Any = None
        self.came_to: Counter[str] = Counter()
        self.crossed: List[Any] = []
        self.lost: List[Any] = []
        self._turns: Dict[int, _Turn] = {0: _Turn(Plan("length", "none", "with"))}

    def __enter__(self) -> Reuser:
        self.server.__enter__()
        self.client = client_of(self.server)
        self._readable = adapter.readable
        adapter.readable = self._look  # type: ignore[attr-defined]
        return self

    def __exit__(self, *details: object) -> None:
        """Raises AssertionError if a thread, a socket or a place of the pool is left."""
        adapter.readable = self._readable  # type: ignore[attr-defined]
        for turn in list(self._turns.values()):
            turn.over.set()
            turn.next_sends.set()
        self.client.close()
        try:
            if details[0] is None:
                wait_until(lambda: not drains(), 2.0)
                wait_until(lambda: not self.server.open, 2.0)
                places = self.client._transport.places
                assert (places.free, places.waiting) == (self.client.limits.pool_size, 0)
        finally:
            self.server.__exit__(*details)

    def call(self, plan: Plan) -> None:
        """Make one call whose answer is `plan`'s, and look at what came of it."""
        number = self._begin(plan)
        transport = self.client._transport
        stop = CancelToken()
        watchdog = threading.Timer(5.0, stop.cancel)
        watchdog.start()
        try:
            with transport.exchange(b"%d" % number, stop) as exchange:
                text = exchange.read(10**6).decode()
                broken = exchange.broken
        except errors.AgentStreamError as error:
            self._end(number, type(error).__name__)
        else:
            self._end(number, "broken" if broken else "", text.partition("\n")[0])
        finally:
            watchdog.cancel()
            watchdog.join()

    def chat(self, plan: Plan) -> None:
        """As `call`, of a chat completion that ends in [DONE]."""
        number = self._begin(plan)
        try:
            answer = self.client.chat([{"role": "user", "content": f"<{number}>"}])
        except errors.AgentStreamError as error:
            self._end(number, type(error).__name__)
        else:
            self._end(number, "", answer.content)

    def _begin(self, plan: Plan) -> int:
        number = max(self._turns) + 1
        self._turns[number] = _Turn(plan)
        return number

    def _end(self, number: int, failure: str, text: str = "") -> None:
        """Count what a call came to, and wait until its connection is as it will be."""
        turn, before = self._turns[number], self._turns.pop(number - 1)
        plan = turn.plan
        self.came_to[failure or "whole"] += 1
        if failure:
            # A head in halves may merge with the next into one that says nothing clear.
            merged = before.plan.when == "sending" and "half" in before.plan.surplus
            if plan.framing != "cut" and not merged:
                self.lost.append((before.plan, plan, failure))
        elif text != _text(number, plan):
            self.crossed.append((before.plan, plan, text[:200]))
        before.next_sends.set()
        turn.over.set()
        wait_until(lambda: not drains(), 2.0)
        if plan.when != "sending":
            wait_until(lambda: self.server.answered >= len(self.server.requests))

    # --- the server -------------------------------------------------------------------------

    def _answer(self, head: bytes, body: bytes) -> Iterator[Any]:
        chat = re.search(rb"<(\d+)>", body)
        number = int(chat.group(1) if chat else body)
        turn = self._turns[number]
        plan = turn.plan
        text = _text(number, plan)
        content = b"".join(text_chunks(text)) if chat else text.encode()
        whole = plan.head + _framed(plan.framing, content)
        extra = SURPLUS[plan.surplus]
        if plan.when == "with":
            yield whole + extra
        else:
            yield whole
            if plan.when == "idle":
                turn.over.wait(10.0)
            elif plan.when == "sending":
                turn.next_sends.wait(10.0)
            if extra:
                yield extra
        if plan.framing in ("close", "cut"):
            yield None

    def _look(self, sock: Any, seconds: float) -> bool:
        """In place of the adapter's look before it sends: what comes then comes after it."""
        there = poll.readable(sock, seconds)
        before = self._turns[min(self._turns)]
        if before.plan.when == "sending" and not there and not before.next_sends.is_set():
            before.next_sends.set()
            if before.plan.surplus != "none":
                assert poll.readable(sock, 5.0)
        return there


def _text(number: int, plan: Plan) -> str:
    return f"answer {number};" * plan.size


def _framed(framing: str, content: bytes) -> bytes:
    if framing == "length":
        answer = sized(content)
    elif framing == "close":
        answer = closing(content)
    elif framing == "cut":
        answer = sized(content[: len(content) // 2], length=len(content))
    else:
        end = b"0\r\n\r\n"
        if framing == "trailers":
            end = b"0\r\nX: y\r\nServer-Timing: z\r\n\r\n"
        elif framing == "drip":
            end = b"3\r\n\n:\n\r\n" * 20 + end
        answer = chunked(content, end=end, size=3 if framing == "small-chunks" else 65536)
    return answer.replace(b"\r\n\r\n", b"\r\nContent-Type: text/event-stream\r\n\r\n", 1)


def drains() -> List[threading.Thread]:
    return [t for t in threading.enumerate() if t.name.startswith("agentstream-drain")]
