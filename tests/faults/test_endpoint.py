"""Rows H01 to H08, H10 and S08 of the fault matrix: the endpoint, over real sockets.

H09, the servers it runs under, is in tests/web/test_servers.py.
"""

from __future__ import annotations

import hmac
import socket
import sys
import time
import urllib.parse
from typing import Any

import pytest
import requests

from agentstream import EventStream, MemoryStore, Runtime
from agentstream.events.sqlite import SqliteStore
from agentstream.llm.sse import encode_event
from agentstream.web import create_app, follow
from agentstream.web.server import Server, listen
from benchmarks.endpoint import Crowd, faults, races
from tests.kit.support import Task, free_port, logged, wait_until
from tests.kit.web_support import SSE, TOKEN, Site, chunks, finish, site

RUN = "/workflows/run/stream"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


def test_h01_client_gone_from_an_idle_stream():
    with site(heartbeat=0.2) as it:
        chunks(it.events, "run", 3)
        for path in (RUN, "/events/stream"):
            stream = SSE(it.url, path)
            wait_until(lambda: it.app.open_streams == 1)
            stream.close()
            left = time.monotonic()
            wait_until(lambda: it.app.open_streams == 0)
            assert time.monotonic() - left < 2 * 0.2 + 2.0
        assert len(it.events.store.read(workflow_id="run")) == 3


def test_h02_client_that_stops_reading_is_cut_and_comes_back():
    if not sys.platform.startswith("linux"):
        return  # other systems have no TCP_USER_TIMEOUT
    with site(heartbeat=0.2, cut_after=1.0) as it:
        chunks(it.events, "run", 1)
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.settimeout(10)
        sock.connect(("127.0.0.1", int(it.url.rpartition(":")[2])))
        sock.sendall(f"GET {RUN} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
        with SSE(it.url, RUN) as other:
            wait_until(lambda: it.app.open_streams == 2)
            for n in range(200):  # more than both sides' buffers hold
                chunks(it.events, "run", 1, "x" * 65536)
                if n % 20 == 0:
                    other.event()
            finish(it.events, "run")
            stopped = time.monotonic()
            assert [int(sent.id) for sent in other.events()][-1] == 202
            wait_until(lambda: it.app.open_streams == 0, timeout=10.0)
            assert time.monotonic() - stopped < 10.0
        had = b""
        try:
            while data := sock.recv(65536):
                had += data
        except OSError:
            pass  # cut by a reset
        sock.close()
        whole = had.rpartition(b"\n\n")[0].count(b"\nid: ")
        assert 0 < whole < 202
        with SSE(it.url, RUN, after=whole) as back:
            assert back.ids() == list(range(whole + 1, 203))


def test_h03_many_come_back_at_once():
    count = 100
    with site(max_streams=count) as it:
        chunks(it.events, "run", 60)
        crowd = Crowd("127.0.0.1", int(it.url.rpartition(":")[2]), RUN)
        try:
            afters = [n % 60 for n in range(count)]
            began = time.monotonic()
            crowd.join(list(afters))
            publisher = Task(lambda: (chunks(it.events, "run", 40), finish(it.events, "run")))
            assert crowd.read(20.0)
            assert time.monotonic() - began < 10.0
            publisher.result()
            assert faults(crowd.clients, afters, 101) == {
                "missing": 0,
                "twice": 0,
                "disorder": 0,
                "refused": 0,
            }
        finally:
            crowd.close()


@pytest.mark.parametrize("path", [RUN, "/events/stream"])
def test_h04_last_event_id_that_makes_no_sense(path: str):
    with site() as it:
        chunks(it.events, "run", 3)
        for junk in ("x", "-1", "1.5", "4", "10" * 30, "1 2", "+1", "\xb2"):
            with SSE(it.url, path, after=junk) as stream:
                assert stream.status == 400, junk
                assert "message" in stream.text()
        for junk in ("%00", "1%00", "-1", "", "4"):
            assert requests.get(f"{it.url}{path}?after={junk}").status_code == 400, junk
        raw = socket.create_connection(("127.0.0.1", int(it.url.rpartition(":")[2])), 5)
        with raw:
            raw.sendall(
                f"GET {path} HTTP/1.0\r\nHost: localhost\r\nLast-Event-ID: 1\0\r\n\r\n".encode()
            )
            assert b" 400 " in raw.recv(65536).split(b"\r\n")[0]
        assert it.app.open_streams == 0


@pytest.mark.parametrize("after", [None, 2])
def test_h04_history_that_is_gone_is_told_first(after: Any):
    with Runtime(event_stream=EventStream(MemoryStore(capacity=5))) as runtime:
        chunks(runtime.event_stream, "run", 20)
        with site(runtime) as it:
            with SSE(it.url, RUN, after=after) as stream:
                assert stream.status == 200
                missed = stream.event()
                assert (missed.event, missed.id) == ("events_missed", None)
                first = (after or 0) + 1
                assert missed.data["data"] == {"first": first, "last": 15, "unit": "offset"}
                assert missed.data["workflow_id"] == "run"
                assert [stream.event().id for _ in range(5)] == ["16", "17", "18", "19", "20"]
            with SSE(it.url, "/events/stream", after=after or 0) as stream:
                missed = stream.event()
                assert missed.data["data"] == {"first": first, "last": 15, "unit": "position"}
                assert stream.event().id == "16"


def test_h05_resume_races_with_append():
    assert races(2000) == {"races": 2000, "broken": 0}


def test_h06_too_many_streams():
    with site(max_streams=2) as it:
        chunks(it.events, "run", 1)
        with SSE(it.url, RUN) as one, SSE(it.url, "/events/stream") as two:
            assert one.event().id == "1"
            wait_until(lambda: it.app.open_streams == 2)
            answer = requests.get(it.url + RUN)
            assert answer.status_code == 503
            assert int(answer.headers["Retry-After"]) > 0
            assert requests.get(it.url + "/workflows/run").status_code == 200
            chunks(it.events, "run", 1)
            assert one.event().id == "2"
            assert two.event().id == "2"
        chunks(it.events, "run", 2)  # whoever is gone is noticed by what is sent

        def opens() -> bool:
            chunks(it.events, "run", 1)
            with SSE(it.url, RUN) as three:
                return three.status == 200

        wait_until(opens)


def test_h07_unknown_and_finished_runs():
    with site() as it:
        chunks(it.events, "run", 2)
        finish(it.events, "run")
        for path in ("/workflows/none/stream", "/workflows/none", "/nothing"):
            assert requests.get(it.url + path).status_code == 404
        stop = requests.post(it.url + "/workflows/none/stop", json={})
        assert stop.status_code == 404
        with SSE(it.url, RUN) as stream:
            assert stream.ids() == [1, 2, 3]
        with SSE(it.url, RUN, after=1) as stream:
            assert stream.ids() == [2, 3]
        assert requests.get(it.url + RUN, headers={"Last-Event-ID": "3"}).status_code == 204
        assert requests.get(it.url + RUN + "?after=3").status_code == 204
        assert requests.post(it.url + "/workflows/run/stop", json={}).status_code == 409


def test_h08_nothing_in_an_event_makes_another():
    nasty = "a\n\nevent: evil\ndata: {}\r\n\r\nid: 99\rdata: x\x85\u2028\u2029\x0b\x00 \ud800"
    with site() as it:
        it.events.append("workflow_started", "run", {"workflow": nasty, nasty: nasty})
        chunks(it.events, "run", 1, nasty)
        finish(it.events, "run")
        shown = nasty.replace("\ud800", "\ufffd")
        with SSE(it.url, RUN) as stream:
            events = stream.events()
        assert [sent.event for sent in events] == [
            "workflow_started",
            "agent_llm_stream_chunk",
            "workflow_completed",
        ]
        assert events[0].data["data"] == {"workflow": shown, shown: shown}
        assert events[1].data["data"]["chunk"] == shown
        assert [
            event.data["chunk"]
            for event in follow(it.url + "/workflows/run")
            if "chunk" in event.data
        ] == [shown]
    raw = encode_event("x", event="a\nb\rdata: c\0", id="1\nid: 2")
    assert raw == b"event: abdata: c\nid: 1id: 2\ndata: x\n\n"


def test_h10_a_server_that_stops_sends_its_clients_back(tmp_path):
    port = free_port()
    writer = EventStream(SqliteStore(tmp_path / "runs.db"))
    had = []
    try:
        chunks(writer, "run", 3)
        writer.store.flush()
        follower = None
        with site(SqliteStore(tmp_path / "runs.db"), port=port) as it:
            follower = Task(lambda: had.extend(follow(it.url + "/workflows/run")))
            with SSE(it.url, RUN) as one, SSE(it.url, "/events/stream") as all_runs:
                assert [one.event().id for _ in range(3)] == ["1", "2", "3"]
                assert all_runs.response.getheader("Last-Event-ID") == "3"
                wait_until(lambda: it.app.open_streams == 3)
                began = time.monotonic()
                assert it.server.stop()
                assert time.monotonic() - began < 5.0
                for stream in (one, all_runs):
                    left = [block for block in stream.blocks() if block.comment is None]
                    assert [block.retry for block in left] == ["1000"], left
            assert it.app.open_streams == 0
        chunks(writer, "run", 2)
        with Server(create_app(SqliteStore(tmp_path / "runs.db")), listen("127.0.0.1", port)):
            finish(writer, "run")
            follower.result()
        assert [event.offset for event in had] == [1, 2, 3, 4, 5, 6]
    finally:
        writer.close()


# --- S08 ------------------------------------------------------------------------------------

GETS = ("/workflows", "/workflows/run", RUN, "/events/stream", "/metrics")
POSTS = ("/workflows", "/workflows/run/stop")


@pytest.fixture
def guarded():
    with logged() as records, site(token=TOKEN) as it:
        chunks(it.events, "run", 1)
        yield it
    assert not [line for line in records if "MARKEDKEY" in line and "urllib3" not in line]


def test_s08_no_token_and_a_wrong_one(guarded: Site):
    cookie = f"agentstream-{urllib.parse.urlsplit(guarded.url).port}"
    wrong = [
        {},
        {"Authorization": "Bearer nope"},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Authorization": f"Bearer {TOKEN[:-1]}"},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": TOKEN},
        {"Authorization": "Bearer "},
        {"Cookie": f"{cookie}={TOKEN}"},
        {"Cookie": f"{cookie}="},
        {"Authorization": "Bearer \xe9\xff".encode("latin-1")},
    ]
    for headers in wrong:
        for path in GETS:
            answer = requests.get(guarded.url + path, headers=headers, stream=True)
            assert answer.status_code == 401, (path, headers)
            assert answer.headers["WWW-Authenticate"] == "Bearer"
            assert TOKEN not in answer.text
        for path in POSTS:
            assert requests.post(guarded.url + path, json={}, headers=headers).status_code == 401
    with SSE(guarded.url, f"/workflows?token={TOKEN}") as answer:
        assert answer.status == 401
    for path in ("/", "/healthz"):
        assert requests.get(guarded.url + path).status_code == 200
    assert requests.get(guarded.url + "/workflows", headers=BEARER).status_code == 200
    assert guarded.app.open_streams == 0


def test_s08_tokens_are_compared_in_constant_time(guarded: Site, monkeypatch):
    compared = []
    right = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: compared.append(b) or right(a, b))
    requests.get(guarded.url + "/workflows", headers={"Authorization": "Bearer nope"})
    assert compared[0] == TOKEN.encode()
    requests.post(guarded.url + "/login", json={"token": "nope"})
    assert compared[-1] == TOKEN.encode()
    assert len(compared) == 3  # the bearer, the cookie, the login


def test_s08_path_tricks(guarded: Site):
    tricks = (
        "//workflows",
        "/./workflows",
        "/healthz/../workflows",
        "/%2e/workflows",
        "/Workflows",
        "/healthz%2f..%2fworkflows",
        "/workflows;/healthz",
        "/healthz/workflows",
        "/%00",
        "/workflows/run%2fstream",
        "/workflows/../../etc/passwd",
        "//healthz/../workflows/run",
        "/page/page.html",
        "/login/../workflows",
        "http://localhost/workflows/run",
    )
    port = int(guarded.url.rpartition(":")[2])
    for trick in tricks:
        with socket.create_connection(("127.0.0.1", port), 5) as sock:
            sock.sendall(f"GET {trick} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
            answer = b""
            while data := sock.recv(65536):
                answer += data
        status = int(answer.split()[1])
        assert status in (400, 401, 404), (trick, status)
        assert b"last_offset" not in answer


def test_s08_foreign_host_or_origin(guarded: Site):
    port = guarded.url.rpartition(":")[2]
    for host in (
        "evil.example",
        f"evil.example:{port}",
        "localhost.evil.example",
        "192.0.2.1",
        "127.0.0.1.evil.example",
        "user@evil.example",
        "[::2]",
        "][",
    ):
        for path in ("/", "/healthz", *GETS):
            answer = requests.get(guarded.url + path, headers={"Host": host, **BEARER}, stream=True)
            assert answer.status_code in (400, 403), (host, path)
    for origin in (
        "http://evil.example",
        "null",
        "http://localhost:1",
        f"https://127.0.0.1:{port}",
        f"http://127.0.0.1:{port}.evil.example",
    ):
        for path in ("/login", *POSTS):
            answer = requests.post(
                guarded.url + path, json={"token": TOKEN}, headers={"Origin": origin, **BEARER}
            )
            assert answer.status_code == 403, (origin, path)
            assert "Access-Control-Allow-Origin" not in answer.headers
        preflight = requests.options(guarded.url + GETS[0], headers={"Origin": origin})
        assert preflight.status_code == 403
    for host in ("localhost", f"127.0.0.1:{port}", f"[::1]:{port}", "LOCALHOST"):
        answer = requests.get(guarded.url + "/workflows", headers={"Host": host, **BEARER})
        assert answer.status_code == 200
    answer = requests.get(guarded.url + "/workflows", headers={"Origin": guarded.url, **BEARER})
    assert answer.status_code == 200
    assert not [name for name in answer.headers if name.startswith("Access-Control")]


def test_s08_other_hosts_and_origins_where_told():
    page = "https://pages.example"
    with site(token=TOKEN, hosts=["runs.example", "0.0.0.0"], cors=[page]) as it:
        for host, status in (
            ("runs.example", 200),
            ("192.0.2.1:80", 200),
            ("[2001:db8::1]", 200),
            ("evil.example", 403),
        ):
            answer = requests.get(it.url + "/workflows", headers={"Host": host, **BEARER})
            assert answer.status_code == status, host
        answer = requests.get(it.url + "/workflows", headers={"Origin": page, **BEARER})
        assert answer.status_code == 200
        assert answer.headers["Access-Control-Allow-Origin"] == page
        assert "Access-Control-Allow-Credentials" not in answer.headers
        preflight = requests.options(it.url + "/workflows", headers={"Origin": page})
        assert preflight.status_code == 204
        assert "Authorization" in preflight.headers["Access-Control-Allow-Headers"]
        assert requests.get(it.url + "/workflows", headers={"Origin": page}).status_code == 401


def test_s08_json_bodies_only(guarded: Site):
    for path in (*POSTS, "/login"):
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""):
            answer = requests.post(
                guarded.url + path, data='{"token": "x"}', headers={"Content-Type": kind, **BEARER}
            )
            assert answer.status_code == 415, (path, kind)
        for body in ("{", "[]", '"x"', "[" * 100_000, "\xff"):
            answer = requests.post(
                guarded.url + path,
                data=body.encode("latin-1"),
                headers={"Content-Type": "application/json", **BEARER},
            )
            assert answer.status_code == 400, (path, body[:9])
    huge = b'{"workflow": "' + b"x" * 2**20 + b'"}'
    answer = requests.post(
        guarded.url + "/workflows",
        data=huge,
        headers={"Content-Type": "application/json", **BEARER},
    )
    assert answer.status_code == 413


def test_s08_the_pages_cookie(guarded: Site):
    refused = requests.post(guarded.url + "/login", json={"token": "nope"})
    assert refused.status_code == 401
    assert "Set-Cookie" not in refused.headers
    for token in (None, 7, [TOKEN], ""):
        assert requests.post(guarded.url + "/login", json={"token": token}).status_code == 401
    answer = requests.post(guarded.url + "/login", json={"token": TOKEN})
    assert answer.status_code == 204
    cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert TOKEN not in cookie
    let_in = {"Cookie": cookie.partition(";")[0]}
    assert requests.get(guarded.url + "/workflows", headers=let_in).status_code == 200
    with SSE(guarded.url, RUN, Cookie=let_in["Cookie"]) as stream:
        assert stream.event().id == "1"
    # A page of somebody else's that has the cookie sent along still cannot ask.
    headers = {**let_in, "Origin": "http://evil.example"}
    stop = requests.post(guarded.url + "/workflows/run/stop", json={}, headers=headers)
    assert stop.status_code == 403
