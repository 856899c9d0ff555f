"""A call with dialects of other kinds: named events with an end of their own, and lines of JSON.

Toys, as small as each kind can be: what they ask of a call is what is tried here.
"""

from __future__ import annotations

import json
from typing import Any, Dict, List, Mapping, Optional

import pytest

from agentstream import errors
from agentstream.llm.accumulator import Accumulator
from agentstream.llm.client import ClientSettings, HTTPClient
from agentstream.llm.dialect import Ask, Decoder, Dialect, Wrapped
from agentstream.llm.messages import ChatRequest, Delta, as_request
from agentstream.llm.ndjson import LineDecoder
from agentstream.llm.settings import Limits, Retries, Timeouts
from agentstream.llm.sse import EventDecoder
from agentstream.results import Usage
from agentstream.testing import Cut, Drip, Hang, Pause, Reply, ScriptedServer


class Toy(Dialect):
    """What both have in common: a model, a body, errors by status."""

    ended = False
    model = "toy"

    def __init__(self, client: ToyClient, request: ChatRequest) -> None:
        self.client = client
        self.request = request
        self.failure: Optional[errors.AgentStreamError] = None
        self.begun: List[Accumulator] = []

    def body(self) -> Dict[str, Any]:
        body = {"model": self.model, "told": len(self.request.messages)}
        return body if self.client.plain else {**body, "fancy": True}

    def amend(self, error: errors.AgentStreamError) -> bool:
        fancy, self.client.plain = not self.client.plain, True
        return fancy and isinstance(error, errors.BadRequest) and "fancy" in error.body

    def begin(self, answer: Accumulator) -> None:
        self.ended = False
        self.failure = None
        self.begun.append(answer)

    def read_whole(self, text: str) -> Optional[Delta]:
        return None

    def error(self) -> Optional[errors.AgentStreamError]:
        return self.failure

    def status_error(
        self, status: int, headers: Mapping[str, str], text: str
    ) -> errors.AgentStreamError:
        kind = errors.BadRequest if status < 500 else errors.ServerError
        return kind(f"HTTP {status}", status=status, body=text, retryable=status >= 500)

    def wrong_content(self, content_type: str, text: str) -> errors.AgentStreamError:
        return errors.ProtocolError(f"no {self.end_mark}: {text}", content_type=content_type)

    def is_loading(self, error: errors.AgentStreamError) -> bool:
        return isinstance(error, errors.StatusError) and "loading" in error.body

    def fail(self, message: str) -> None:
        self.ended = True
        begun = self.begun[-1].begun
        self.failure = errors.ProviderStreamError(message, phase="stream", retryable=not begun)


class Named(Toy):
    """Events with names: text, ping, error, and an end of its own."""

    end_mark = "an event named stop"
    headers: Optional[Mapping[str, str]] = {"X-Version": "7"}

    def decoder(self, max_event: Optional[int]) -> Decoder:
        return EventDecoder(max_event=max_event)

    def read(self, event: str, data: str) -> Optional[Delta]:
        said = json.loads(data)
        if event == "text":
            return Delta(said["text"])
        if event == "reason":
            return Delta(finish_reason=said["reason"], usage=Usage(1, 2, 3))
        if event == "stop":
            self.ended = True
        if event == "error":
            self.fail(said["message"])
        return None


class Lines(Toy):
    """A JSON object a line; the last says that it is."""

    end_mark = '"done": true'

    def __init__(self, client: ToyClient, request: ChatRequest) -> None:
        super().__init__(client, request)
        self.url = client.root + "/api/lines"
        self.broken_line = False

    def decoder(self, max_event: Optional[int]) -> Decoder:
        return LineDecoder(max_event=max_event)

    def begin(self, answer: Accumulator) -> None:
        super().begin(answer)
        self.broken_line = False

    def read(self, event: str, data: str) -> Optional[Delta]:
        try:
            said = json.loads(data)
        except ValueError:
            self.broken_line = True  # the body's end cut it off, unless another follows
            return None
        if self.broken_line:
            raise errors.ProtocolError("a line that is no JSON", phase="stream")
        if "error" in said:
            self.fail(said["error"])
            return None
        self.ended = said.get("done", False)
        return Delta(said.get("text", ""), finish_reason="stop" if self.ended else None)


class ToyClient(HTTPClient):
    """A client that speaks one of them."""

    provider = "toy"

    def __init__(self, root: str, kind: type, **settings: Any) -> None:
        settings.setdefault("timeouts", Timeouts())
        settings.setdefault("retries", Retries(0))
        super().__init__(root + "/stream", ClientSettings("toy", **settings))
        self.root = root
        self.kind = kind
        self.plain = False

    def _dialect(self, request: ChatRequest) -> Dialect:
        dialect: Dialect = self.kind(self, request)
        return dialect


def event(name: str, **data: Any) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()


def line(**data: Any) -> bytes:
    return json.dumps(data).encode() + b"\n"


KINDS = {
    Named: [event("text", text="a"), event("text", text="b"), event("reason", reason="stop")],
    Lines: [line(text="a"), line(text="b")],
}
ENDS = {Named: event("stop"), Lines: line(done=True)}
FAILS = {Named: event("error", message="overloaded"), Lines: line(error="overloaded")}
NDJSON = {"Content-Type": "application/x-ndjson"}


@pytest.fixture(params=list(KINDS), ids=lambda kind: kind.__name__)
def kind(request: Any) -> Any:
    return request.param


def answer(kind: Any, *pieces: Any, **settings: Any) -> Reply:
    return Reply(*pieces, headers=NDJSON if kind is Lines else {}, **settings)


def serve(server: ScriptedServer, kind: Any, *replies: Reply) -> None:
    queue = list(replies)
    server.route("/api/lines" if kind is Lines else "/stream", lambda _: queue.pop(0))


def test_a_whole_answer(server: ScriptedServer, kind: Any) -> None:
    serve(server, kind, answer(kind, *KINDS[kind], ENDS[kind]), answer(kind, ENDS[kind]))
    with ToyClient(server.url, kind) as client:
        response = client.chat("hi")
        assert (response.content, response.finish_reason) == ("ab", "stop")
        assert response.warnings == ()
        assert client.chat("hi").warnings == ("the answer is empty",)
    assert server.connections == 1  # the end was found before the body's
    assert server.requests[0].json == {"model": "toy", "told": 1, "fancy": True}
    assert server.requests[0].headers.get("X-Version") == ("7" if kind is Named else None)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_a_cut_answer_is_truncated(server: ScriptedServer, kind: Any, count: int) -> None:
    half = [*KINDS[kind], ENDS[kind]][count][:-4]
    serve(server, kind, answer(kind, *KINDS[kind][:count], half, Cut()))
    with ToyClient(server.url, kind) as client, pytest.raises(errors.StreamTruncated) as caught:
        client.chat("hi")
    assert caught.value.partial is not None
    assert caught.value.partial.content == "ab"[:count]
    assert kind.end_mark in str(caught.value)


def test_a_failure_before_the_first_delta_is_tried_again(server: ScriptedServer, kind: Any) -> None:
    serve(server, kind, answer(kind, FAILS[kind]), answer(kind, *KINDS[kind], ENDS[kind]))
    with ToyClient(server.url, kind, retries=Retries(1, backoff=0.001)) as client:
        assert client.chat("hi").content == "ab"


def test_a_failure_after_it_is_not(server: ScriptedServer, kind: Any) -> None:
    serve(server, kind, answer(kind, *KINDS[kind][:2], FAILS[kind], ENDS[kind]))
    with ToyClient(server.url, kind, retries=Retries(2, backoff=0.001)) as client:
        with pytest.raises(errors.ProviderStreamError, match="overloaded") as caught:
            client.chat("hi")
    assert caught.value.partial is not None and caught.value.partial.content == "ab"
    assert len(server.requests) == 1


def test_a_request_that_is_refused_is_changed_once(server: ScriptedServer, kind: Any) -> None:
    refused = Reply(b"fancy is unknown", status=400)
    whole = [answer(kind, *KINDS[kind], ENDS[kind]) for _ in range(2)]
    serve(server, kind, refused, *whole, Reply(b"fancy is unknown", status=400))
    with ToyClient(server.url, kind) as client:
        deltas = list(client.stream_deltas(as_request("hi")))
        assert [d.retry.attempt for d in deltas if d.retry] == [1]
        assert client.chat("hi").content == "ab"
        with pytest.raises(errors.BadRequest):
            client.chat("hi")
    assert ["fancy" in request.json for request in server.requests] == [True, False, False, False]


def test_loading_is_no_failure(server: ScriptedServer, kind: Any) -> None:
    loading = Reply(b"loading", status=503)
    serve(server, kind, loading, answer(kind, *KINDS[kind], ENDS[kind]))
    with ToyClient(server.url, kind) as client:
        assert client.chat("hi").content == "ab"


def test_what_is_neither(server: ScriptedServer, kind: Any) -> None:
    page = Reply(b"<html>busy</html>", headers={"Content-Type": "text/html"})
    serve(server, kind, page)
    with ToyClient(server.url, kind) as client, pytest.raises(errors.ProtocolError, match="busy"):
        client.chat("hi")


def test_lines_are_signs_of_life_and_silence_is_a_stall(server: ScriptedServer) -> None:
    words = [piece for n in range(6) for piece in (line(text=str(n)), Pause(0.1))]
    serve(
        server,
        Lines,
        answer(Lines, *words, line(done=True)),
        answer(Lines, line(text="a"), Hang()),
    )
    with ToyClient(server.url, Lines, timeouts=Timeouts(stall=0.5)) as client:
        assert client.chat("hi").content == "012345"
        with pytest.raises(errors.StallTimeout):
            client.chat("hi")


def test_lines_cut_anywhere(server: ScriptedServer) -> None:
    whole = b"".join([*KINDS[Lines], b"\n", line(text="\u00e9"), line(done=True)])
    serve(server, Lines, answer(Lines, Drip(whole, 1, 0.0)))
    with ToyClient(server.url, Lines) as client:
        assert client.chat("hi").content == "ab\u00e9"


def test_a_line_that_is_no_json_with_others_behind_it(server: ScriptedServer) -> None:
    serve(server, Lines, answer(Lines, line(text="a"), b'{"text": \n', line(text="b")))
    with ToyClient(server.url, Lines) as client, pytest.raises(errors.ProtocolError):
        client.chat("hi")


def test_a_line_past_the_bound(server: ScriptedServer) -> None:
    serve(server, Lines, answer(Lines, line(text="a" * 500)))
    with ToyClient(server.url, Lines, limits=Limits(event=100)) as client:
        with pytest.raises(errors.LimitExceeded):
            client.chat("hi")


def test_a_dialect_may_ask_the_server_first_and_choose_another(server: ScriptedServer) -> None:
    class Asking(Wrapped):
        def __init__(self, client: ToyClient, request: ChatRequest) -> None:
            super().__init__(Named(client, request))
            self.root = client.root

        def prepare(self, ask: Ask) -> Dialect:
            status, _, text = ask(self.root + "/about", 5.0, 4096)
            assert (status, text) == (200, "named")
            return self._inner

    server.route("/about", lambda _: Reply(b"named"))
    serve(server, Named, answer(Named, *KINDS[Named], ENDS[Named]))
    with ToyClient(server.url, Asking) as client:
        assert client.chat("hi").content == "ab"
    assert [request.method for request in server.requests] == ["GET", "POST"]
