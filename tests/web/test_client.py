"""follow() and runs(): remote runs through cuts, restarts, refusals and odd answers."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from typing import Any, Callable, Iterator, List, Tuple

import pytest

from agentstream import CancelToken, Event, EventStream, EventType, Limits, MemoryStore, Runtime
from agentstream.errors import (
    AgentStreamError,
    AuthError,
    BadRequest,
    Cancelled,
    ConfigError,
    ConnectError,
    LimitExceeded,
    ProtocolError,
    StatusError,
)
from agentstream.events.sqlite import SqliteStore
from agentstream.llm.sse import encode_event
from agentstream.testing import Hang, Pause, ScriptedServer
from agentstream.web import follow, runs
from tests.kit.serve import Serve
from tests.kit.support import Task, free_port, wait_until
from tests.kit.web_support import TOKEN, chunks, finish, site
from tests.web.test_servers import wsgiref_server

STREAM = {"Content-Type": "text/event-stream"}


class Script:
    """A WSGI app that answers each request with the next of its answers; the last one again."""

    def __init__(self, *answers: Tuple[str, dict, Any]) -> None:
        self._answers = list(answers)
        self.queries: List[str] = []
        self.asked = threading.Event()

    def __call__(self, environ: Any, start_response: Callable[..., Any]) -> Any:
        self.queries.append(environ["QUERY_STRING"])
        self.asked.set()
        place = min(len(self.queries), len(self._answers)) - 1
        status, headers, body = self._answers[place]
        start_response(status, list(headers.items()))
        return body if callable(getattr(body, "__next__", None)) else [body]


@contextlib.contextmanager
def scripted(*answers: Any) -> Iterator[Tuple[str, Script]]:
    """A server that says just that: (status, headers, body), or a body of an event stream."""
    script = Script(*(a if isinstance(a, tuple) else ("200 OK", STREAM, a) for a in answers))
    with wsgiref_server(script) as url:
        yield url, script


def wire(offset: int, kind: str = "agent_llm_stream_chunk") -> bytes:
    event = Event(f"run:{offset}", offset, offset, EventType(kind), "run", None, 1.0, {})
    return encode_event(event.to_json(), event=kind, id=offset)


END = "workflow_completed"


def offsets(url: str, **settings: Any) -> List[int]:
    return [event.offset for event in follow(url + "/workflows/run", **settings)]


# --- cuts -----------------------------------------------------------------------------------


def test_what_a_cut_leaves_of_an_event_is_not_handed_out():
    whole = wire(1) + wire(2)
    third = wire(3)
    bodies = [whole + third[:cut] for cut in (1, 5, len(third) // 2, len(third) - 1)]
    for body in bodies:
        with scripted(body, wire(2) + wire(3) + wire(4, END)) as (url, script):
            assert offsets(url) == [1, 2, 3, 4]
            assert script.queries == ["", "after=2"]


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
def test_line_ends_bom_and_bad_bytes(line_end: bytes):
    body = b"\xef\xbb\xbf: hello\n\n" + wire(1) + b":\n\n" + wire(2).replace(b"run", b"r\xffn", 1)
    body = (body + wire(3, END)).replace(b"\n", line_end)
    with scripted(body) as (url, _):
        assert offsets(url) == [1, 2, 3]


def test_a_run_that_ended_while_nobody_listened():
    with scripted(wire(1), ("204 No Content", {}, b"")) as (url, script):
        assert offsets(url) == [1]
        assert script.queries == ["", "after=1"]


def test_a_server_that_has_no_room_is_asked_again():
    full = ("503 Service Unavailable", {"Retry-After": "0"}, b"{}")
    with scripted(full, full, wire(1) + wire(2, END)) as (url, script):
        assert offsets(url, after=0) == [1, 2]
        assert script.queries == ["after=0"] * 3


def test_a_server_may_ask_for_a_longer_wait():
    full = ("503 Service Unavailable", {"Retry-After": "1"}, b"{}")
    with scripted(full, wire(1, END)) as (url, _):
        began = time.monotonic()
        assert offsets(url) == [1]
        assert time.monotonic() - began >= 1.0


def test_from_now_on_is_noted_before_the_first_event():
    start = b"retry: 1000\nid: 7\n\n"
    with scripted(start, wire(8) + wire(9)) as (url, script):
        events = follow(url)
        assert [next(events).offset for _ in range(2)] == [8, 9]
        events.close()  # type: ignore[attr-defined]
        assert script.queries == ["", "after=7"]


def test_what_is_missed_is_told_once():
    missed = Event(
        None,
        0,
        None,
        EventType.EVENTS_MISSED,
        "run",
        None,
        1.0,
        {"first": 1, "last": 5, "unit": "offset"},
    )
    told = encode_event(missed.to_json(), event="events_missed")
    with scripted(told, told + wire(6) + wire(7, END)) as (url, script):
        events = list(follow(url + "/workflows/run"))
        assert [event.offset for event in events] == [0, 6, 7]
        assert events[0].data["last"] == 5
        assert script.queries == ["", "after=5"]


def test_history_that_is_gone():
    with Runtime(event_stream=EventStream(MemoryStore(capacity=5))) as runtime:
        chunks(runtime.event_stream, "run", 20)
        finish(runtime.event_stream, "run")
        with site(runtime) as it:
            events = list(follow(it.url + "/workflows/run"))
            assert [event.offset for event in events] == [0, 17, 18, 19, 20, 21]
            assert events[0].data == {"first": 1, "last": 16, "unit": "offset"}


# --- refusals -------------------------------------------------------------------------------


def test_unknown_runs_and_wrong_tokens_are_errors_at_once():
    with site(token=TOKEN) as it:
        chunks(it.events, "run", 1)
        finish(it.events, "run")
        assert offsets(it.url, token=TOKEN) == [1, 2]
        assert offsets(it.url, token=TOKEN, after=2) == []
        for url, token, after, kind, status in (
            (it.url + "/workflows/none", TOKEN, None, StatusError, 404),
            (it.url + "/workflows/run", TOKEN, 99, StatusError, 400),
            (it.url + "/nothing", TOKEN, None, StatusError, 404),
            (it.url, TOKEN, 99, StatusError, 400),
            (it.url, TOKEN + "x", None, AuthError, 401),
            (it.url, None, None, AuthError, 401),
        ):
            with pytest.raises(kind) as caught:
                list(follow(url, token, after))
            assert caught.value.status == status
            assert "MARKEDKEY" not in repr(caught.value)


def test_what_is_no_event_stream_is_an_error():
    page = ("200 OK", {"Content-Type": "text/html"}, b"<p>hello")
    for answer in (
        page,
        b"data: no json\n\n",
        b"data: {}\n\n",
        b"data: [1]\n\n",
        wire(1).replace(b'"agent_llm_stream_chunk"', b'"none"'),
    ):
        with scripted(answer) as (url, _), pytest.raises(ProtocolError):
            offsets(url)


def test_arguments_that_make_no_sense():
    for url, after in (("http://localhost", -1), ("localhost:80", None), ("ftp://x", None)):
        with pytest.raises(ConfigError):
            next(iter(follow(url, after=after)))


# --- cancel ---------------------------------------------------------------------------------


def test_cancel_frees_a_follower_that_waits_for_events():
    with site(heartbeat=30.0) as it:
        chunks(it.events, "run", 1)
        cancel = CancelToken()
        events = follow(it.url + "/workflows/run", cancel=cancel)
        assert next(events).offset == 1
        reader = Task(lambda: next(events))
        wait_until(lambda: it.app.open_streams == 1)
        cancel.cancel("enough")
        began = time.monotonic()
        error = reader.error()
        assert isinstance(error, Cancelled)
        assert "enough" in str(error)
        assert time.monotonic() - began < 5.0


def test_cancel_frees_a_follower_that_waits_for_a_server():
    cancel = CancelToken()
    url = f"http://127.0.0.1:{free_port()}/workflows/run"
    reader = Task(lambda: list(follow(url, cancel=cancel)))
    threading.Event().wait(0.1)
    cancel.cancel()
    assert isinstance(reader.error(2.0), Cancelled)
    cancel = CancelToken()
    cancel.cancel()
    with pytest.raises(Cancelled):
        list(follow(url, cancel=cancel))


def test_a_follower_that_is_left_closes_its_connection():
    with site(heartbeat=0.1) as it:
        chunks(it.events, "run", 5)
        for event in follow(it.url + "/workflows/run"):
            if event.offset == 2:
                break
        wait_until(lambda: it.app.open_streams == 0)


# --- restarts -------------------------------------------------------------------------------


def test_a_server_is_killed_and_started_again(tmp_path):
    path, port = str(tmp_path / "runs.db"), str(free_port())
    writer = EventStream(SqliteStore(path))
    run: List[int] = []
    everything: List[int] = []
    cancel = CancelToken()

    def follow_all() -> None:
        with contextlib.suppress(Cancelled):
            for event in follow(f"http://127.0.0.1:{port}", after=0, cancel=cancel):
                everything.append(event.position or 0)

    try:
        followers = [
            Task(
                lambda: run.extend(
                    event.offset for event in follow(f"http://127.0.0.1:{port}/workflows/run")
                )
            ),
            Task(follow_all),
        ]
        chunks(writer, "run", 1)  # the followers wait for the server, not for the run
        writer.store.flush()
        for n in range(3):
            with Serve("--log", path, "--port", port):
                goal = 21 + n * 20
                chunks(writer, "run", 10)
                chunks(writer, f"other-{n}", 5)
                chunks(writer, "run", 10)
                if n == 2:
                    finish(writer, "run")
                    followers[0].result()
                    goal += 1
                position = writer.store.bounds().last
                wait_until(
                    lambda: len(run) >= goal and everything and everything[-1] >= position, 10.0
                )
                # leaving kills it (-9)
            if n == 0:
                chunks(writer, "unseen", 3)
        assert run == list(range(1, 63))
        assert everything == list(range(1, 62 + 15 + 3 + 1))
    finally:
        cancel.cancel()
        followers[1].result()
        writer.close()


# --- odd answers (rows B09 and B10) ---------------------------------------------------------


def raw(**changes: Any) -> bytes:
    """The wire of an event with these fields, each as JSON text."""
    fields = json.loads(Event("i", 1, 1, EventType.SYSTEM_WARNING, "run", None, 1.0, {}).to_json())
    texts = {name: json.dumps(value) for name, value in fields.items()}
    texts.update(changes)
    return b"data: {%s}\n\n" % ", ".join(f'"{k}": {v}' for k, v in texts.items()).encode()


ODD = {
    "offset 1e999": raw(offset="1e999"),
    "offset -1": raw(offset="-1"),
    "offset 1.5": raw(offset="1.5"),
    "offset of 400 digits": raw(offset="9" * 400),
    "offset of 5,000 digits": raw(offset="9" * 5000),
    "offset true": raw(offset="true"),
    "position 2**63": raw(position=str(2**63)),
    "position text": raw(position='"7"'),
    "timestamp 1e308": raw(timestamp="1e308"),
    "timestamp text": raw(timestamp='"now"'),
    "timestamp NaN": raw(timestamp="NaN"),
    "count of 400 digits": raw(data='{"usage": {"completion_tokens": %s}}' % ("9" * 400)),
    "Infinity": raw(data='{"duration_ms": Infinity}'),
    "100,000 deep": raw(data='{"x": ' + "[" * 100_000 + "]" * 100_000 + "}"),
    "500 deep": raw(data='{"x": ' + '{"y": ' * 500 + "1" + "}" * 500 + "}"),
    "70 deep": raw(data='{"x": ' + "[" * 70 + "]" * 70 + "}"),
    "no text for an id": raw(workflow_id="5"),
    "a list": b"data: [1]\n\n",
    "a type that is a list": raw(type="[]"),
}


@pytest.mark.parametrize("name", ODD)
def test_b09_an_event_that_is_none_is_a_protocol_error(name: str):
    for path in ("/workflows/run", ""):
        with scripted(ODD[name]) as (url, _):
            with pytest.raises(ProtocolError):
                list(follow(url + path))


def test_b09_an_id_of_5000_digits_says_nothing():
    with scripted(b"id: " + b"9" * 5000 + b"\n\n" + wire(1) + wire(2, END)) as (url, _):
        assert offsets(url) == [1, 2]


@pytest.mark.parametrize(
    "piece",
    [b"data: " + b"x" * 1000 + b"\n", b"x: " + b"y" * 5000 + b"\n", b"data\n", b"id: 7\n"],
    ids=["data", "unknown", "empty data", "id"],
)
def test_b10_an_event_without_end(piece: bytes):
    limits = Limits(event=50_000)
    with ScriptedServer() as server:
        server.reply(
            wire(1), *[piece] * (60_000 // len(piece) + 1), Hang(), content_type="text/event-stream"
        )
        events = follow(server.url + "/workflows/run", limits=limits)
        assert next(events).offset == 1
        with pytest.raises(LimitExceeded) as caught:
            next(events)
        assert caught.value.limit == "event"


def test_b10_comments_without_an_empty_line_are_no_event():
    beats = b":" + b"h" * 1000 + b"\n"
    with scripted(beats * 100 + wire(1) + beats * 100 + wire(2, END)) as (url, _):
        assert offsets(url, limits=Limits(event=10_000)) == [1, 2]


def test_b10_a_line_without_end():
    with ScriptedServer() as server:
        server.reply(b"data: " + b"x" * 30_000, Hang(), content_type="text/event-stream")
        with pytest.raises(LimitExceeded) as caught:
            list(follow(server.url, limits=Limits(line=20_000)))
        assert caught.value.limit == "line"


# --- a list of runs, and where a token goes (rows B03, S02, S03) ----------------------------

STATE = {
    "workflow_id": "run",
    "parent_workflow_id": None,
    "name": "flow",
    "status": "running",
    "started_at": 1.0,
    "ended_at": None,
    "last_offset": 3,
    "usage": None,
    "of a later version": 1,
}


def test_the_runs_of_a_server():
    with site(token=TOKEN) as it:
        chunks(it.events, "run", 1)
        finish(it.events, "run")
        chunks(it.events, "other", 2)
        found = {state.workflow_id: state.last_offset for state in runs(it.url, TOKEN)}
        assert found == {"run": 2, "other": 2}
        assert len(runs(it.url + "/", TOKEN, limit=1)) == 1
        with pytest.raises(AuthError) as caught:
            runs(it.url, TOKEN + "x")
        assert "MARKEDKEY" not in repr(caught.value)


def listing(server: ScriptedServer, body: Any, **options: Any) -> None:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    server.reply(text, **{"content_type": "application/json", **options})


def test_b03_what_a_later_server_adds_is_left_out(server):
    listing(server, {"workflows": [STATE], "more": 1})
    (state,) = runs(server.url)
    assert (state.workflow_id, state.last_offset) == ("run", 3)
    assert server.requests[0].path == "/workflows?limit=1000"


ODD_LISTS = {
    "a list": [],
    "no list": {"workflows": 5},
    "no runs": {},
    "null": {"workflows": None},
    "texts": {"workflows": ["run"]},
    "no id": {"workflows": [{"status": "running"}]},
    "an id that is none": {"workflows": [{**STATE, "workflow_id": 5}]},
    "a time that is none": {"workflows": [{**STATE, "started_at": 1e300}]},
    "a count that is none": {"workflows": [{**STATE, "last_offset": 10**400}]},
    "no JSON": b"<p>hello",
    "no UTF-8": b'{"workflows": "\xff"}',
    "deep": b'{"workflows": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "1e999": b'{"workflows": [], "more": 1e999}',
    "5,000 digits": b'{"workflows": ' + b"9" * 5000 + b"}",
}


@pytest.mark.parametrize("name", ODD_LISTS)
def test_b03_what_is_no_list_of_runs(server, name: str):
    listing(server, ODD_LISTS[name])
    with pytest.raises(ProtocolError):
        runs(server.url)


def test_b03_a_list_has_bounds_in_size_and_time(server):
    listing(server, b" " * (17 * 2**20))
    with pytest.raises(LimitExceeded):
        runs(server.url)
    for pieces in ([Hang()], [b"{", *[Pause(0.1), b" "] * 40]):
        server.reply(*pieces, content_type="application/json")
        began = time.monotonic()
        with pytest.raises(ConnectError, match="in time"):
            runs(server.url, timeout=0.5)
        assert time.monotonic() - began < 3.0
    with pytest.raises(ConnectError):
        runs(f"http://127.0.0.1:{free_port()}")


def test_b03_a_list_is_cancelled_from_another_thread(server):
    server.reply(Hang(), content_type="application/json")
    cancel = CancelToken()
    task = Task(lambda: runs(server.url, cancel=cancel, timeout=60))
    assert server.wait_requests()
    cancel.cancel("enough")
    with pytest.raises(Cancelled, match="enough"):
        task.result()


@pytest.mark.parametrize(
    "url", ["http://[::1", "http://", "ftp://host", "host:80", "http://h:99999", "http://h:0", ""]
)
def test_b19_a_url_that_is_none_is_a_config_error(url: str):
    for ask in (runs, follow):
        with pytest.raises(ConfigError):
            ask(url)


def both(url: str) -> Iterator[AgentStreamError]:
    """What each of the two raises at a server, with a token."""
    for ask in (runs, lambda *given: list(follow(*given))):
        with pytest.raises(AgentStreamError) as caught:
            ask(url, TOKEN)
        yield caught.value


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_s03_b03_no_redirect_takes_the_token_along(server, status: int):
    with ScriptedServer() as other:
        for _ in range(2):
            server.reply(b"", status=status, headers={"Location": other.url + "/workflows"})
        for error in both(server.url):
            assert isinstance(error, BadRequest)
            assert error.location == other.url + "/workflows"
        assert other.connections == 0
    assert len(server.requests) == 2


def test_s02_b03_no_proxy_is_asked_for_this_machine(server, monkeypatch):
    with ScriptedServer() as proxy:
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
            monkeypatch.setenv(name.upper(), proxy.url)
        listing(server, {"workflows": []})
        server.reply(wire(1, END), content_type="text/event-stream")
        assert runs(server.url, TOKEN) == []
        assert offsets(server.url, token=TOKEN) == [1]
        assert proxy.connections == 0
        assert [r.headers["authorization"] for r in server.requests] == [f"Bearer {TOKEN}"] * 2


def test_a_refusal_names_the_url(server: ScriptedServer) -> None:
    server.default(b"no", status=403, content_type="text/plain")
    with pytest.raises(AuthError, match=f"HTTP 403: no, from {server.url}/workflows$") as caught:
        runs(server.url, "a-token")
    assert caught.value.url == f"{server.url}/workflows"
