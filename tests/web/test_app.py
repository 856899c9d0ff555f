"""The endpoint's answers over a socket, and the command that serves it."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
import urllib.parse
from typing import Any

import pytest
import requests

import agentstream.web
from agentstream import Agent, EventStream, Runtime, Workflow
from agentstream.cli import main
from agentstream.errors import Cancelled, ConfigError
from agentstream.events.sqlite import SqliteStore
from agentstream.web import create_app
from agentstream.web.server import Server, is_loopback, listen
from tests.kit.support import FunctionClient, saying, wait_until
from tests.kit.web_support import SSE, TOKEN, chunks, finish, site


def workflow(name: str, client: Any) -> Workflow:
    return Workflow(name, [Agent("writer", client=client)])


def test_a_run_is_started_listed_shown_and_streamed():
    flow = workflow("demo", saying("Hello", " world"))
    with site(workflows={"demo": flow}) as it:
        assert requests.get(it.url + "/workflows").json() == {
            "workflows": [],
            "registered": ["demo"],
        }
        begun = requests.post(it.url + "/workflows", json={"workflow": "demo", "input": "hi"})
        assert begun.status_code == 201
        run = begun.json()["workflow_id"]
        with SSE(it.url, f"/workflows/{run}/stream") as stream:
            assert stream.response.getheader("Content-Type").startswith("text/event-stream")
            events = stream.events()
        assert [int(sent.id) for sent in events] == list(range(1, len(events) + 1))
        assert all(sent.event == sent.data["type"] for sent in events)
        assert "".join(sent.data["data"].get("chunk", "") for sent in events) == "Hello world"
        assert events[-1].event == "workflow_completed"
        state = requests.get(f"{it.url}/workflows/{run}").json()
        assert (state["status"], state["name"]) == ("completed", "demo")
        assert state["last_offset"] == len(events)
        assert state["usage"]["completion_tokens"] == 2
        assert requests.get(it.url + "/workflows?limit=5").json()["workflows"] == [state]
        with SSE(it.url, "/events/stream", after=0) as stream:
            assert [stream.event().id for _ in events] == [sent.id for sent in events]


def test_what_cannot_be_started():
    with site(workflows={"demo": workflow("demo", saying("x"))}) as it:
        url = it.url + "/workflows"
        for body, status in (
            ({"workflow": "none"}, 404),
            ({}, 400),
            ({"workflow": 1}, 400),
            ({"workflow": "demo", "input": 1}, 400),
        ):
            answer = requests.post(url, json=body)
            assert answer.status_code == status, body
            assert answer.json()["error"]["code"] == status
        for limit in ("x", "-1", ""):
            assert requests.get(f"{url}?limit={limit}").status_code == 400
        assert requests.put(url).status_code == 405
        assert "GET" in requests.put(url).headers["Allow"]
        it.runtime.shutdown()
        assert requests.post(url, json={"workflow": "demo"}).status_code == 503


def test_a_run_is_stopped_and_one_in_the_queue_can_be_watched():
    talking = threading.Event()

    def talk(request: Any, cancel: Any) -> Any:
        yield "begun"
        talking.set()
        cancel.wait(20.0)
        raise Cancelled("stopped")

    runtime = Runtime(max_workers=1)
    flow = workflow("slow", FunctionClient(talk))
    try:
        with site(runtime, workflows={"slow": flow}) as it:
            body = {"workflow": "slow"}
            begun = [requests.post(it.url + "/workflows", json=body).json() for _ in range(2)]
            first, second = (answer["workflow_id"] for answer in begun)
            assert talking.wait(5.0)
            states = {
                state["workflow_id"]: state["status"]
                for state in requests.get(it.url + "/workflows").json()["workflows"]
            }
            assert states == {first: "running", second: "queued"}
            with SSE(it.url, f"/workflows/{second}/stream") as stream:
                assert stream.status == 200
                for run in (first, second):
                    answer = requests.post(f"{it.url}/workflows/{run}/stop", json={})
                    assert answer.status_code == 202
                assert stream.events()[-1].event == "workflow_cancelled"
            wait_until(
                lambda: requests.get(f"{it.url}/workflows/{first}").json()["status"] == "cancelled"
            )
    finally:
        runtime.shutdown(cancel=True)


def test_a_run_of_another_process_is_stopped(tmp_path):
    talking = threading.Event()

    def talk(request: Any, cancel: Any) -> Any:
        yield "begun"
        talking.set()
        cancel.wait(20.0)
        raise Cancelled("stopped")

    path = tmp_path / "runs.db"
    with Runtime(event_stream=EventStream(SqliteStore(path))) as runtime:
        handle = runtime.submit(workflow("slow", FunctionClient(talk)), "x", workflow_id="far")
        with site(SqliteStore(path)) as it:
            assert talking.wait(5.0)
            with SSE(it.url, "/workflows/far/stream") as stream:
                assert stream.event().event == "workflow_started"
                assert requests.post(it.url + "/workflows/far/stop", json={}).status_code == 202
                assert stream.events()[-1].event == "workflow_cancelled"
            wait_until(handle.done)
            assert requests.post(it.url + "/workflows/far/stop", json={}).status_code == 409


def test_heartbeats_and_head():
    with site(heartbeat=0.05) as it:
        chunks(it.events, "run", 1)
        with SSE(it.url, "/workflows/run/stream?after=1") as stream:
            first = [stream.block() for _ in range(3)]
            assert first[0] == (None, None, None, None, "agentstream")
            assert first[1] == first[2] == (None, None, None, None, "")
        assert requests.head(it.url + "/workflows/run/stream").status_code == 200
        wait_until(lambda: it.app.open_streams == 0)


def test_all_runs_from_now_on_begin_with_their_place():
    with site() as it:
        chunks(it.events, "old", 5)
        with SSE(it.url, "/events/stream") as stream:
            assert stream.response.getheader("Last-Event-ID") == "5"
            chunks(it.events, "new", 1)
            sent = stream.event()
            assert (sent.id, sent.data["workflow_id"]) == ("6", "new")


def test_all_runs_of_a_log_that_others_write(tmp_path):
    writer = EventStream(SqliteStore(tmp_path / "runs.db"))
    try:
        with site(SqliteStore(tmp_path / "runs.db")) as it:
            chunks(writer, "one", 700)  # more than a page
            writer.store.flush()
            with SSE(it.url, "/events/stream", after=0) as late:
                with SSE(it.url, "/events/stream") as live:
                    assert live.response.getheader("Last-Event-ID") == "700"
                    chunks(writer, "two", 1200)  # more than is kept in memory
                    finish(writer, "two")
                    assert [int(live.event().id) for _ in range(1201)] == list(range(701, 1902))
                assert [int(late.event().id) for _ in range(1901)] == list(range(1, 1902))
    finally:
        writer.close()


def test_streams_end_when_their_runtime_shuts_down():
    with site() as it:
        chunks(it.events, "run", 1)
        with SSE(it.url, "/workflows/run/stream") as one, SSE(it.url, "/events/stream") as two:
            one.event()
            it.runtime.shutdown()
            assert one.events() == two.events() == []
        assert requests.get(it.url + "/events/stream").status_code == 503


def test_settings_that_make_no_sense():
    with Runtime() as runtime:
        store = runtime.event_stream.store
        flow = workflow("demo", saying("x"))
        for source, settings in (
            (None, {}),
            (store, {"workflows": {"demo": flow}}),
            (runtime, {"heartbeat": 0}),
            (runtime, {"max_streams": 0}),
            (runtime, {"token": "short"}),
            (runtime, {"token": ""}),
        ):
            with pytest.raises(ConfigError):
                create_app(source, **settings)
        assert create_app(runtime).max_streams == 300
    with pytest.raises(AttributeError):
        agentstream.web.nothing  # noqa: B018


# --- agentstream serve ----------------------------------------------------------------------


class Serve:
    """`agentstream serve` as a process, with the address it printed."""

    def __init__(self, *arguments: str, **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "agentstream", "serve", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.search(r"http://\S+", line)
        assert found, (line, self.process.communicate(timeout=10))
        self.url = found[0]

    def __enter__(self) -> Serve:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate(timeout=10)


def test_serve_shows_a_log_and_stops_on_sigterm(tmp_path):
    token = tmp_path / "token"
    token.write_text(TOKEN + "\n")
    log = str(tmp_path / "runs.db")
    writer = EventStream(SqliteStore(log))
    try:
        chunks(writer, "run", 2)
        writer.store.flush()
        with Serve("--log", log, "--port", "0", "--token-file", str(token)) as served:
            assert stat.S_IMODE(os.stat(log).st_mode) == 0o600
            assert requests.get(served.url + "/workflows").status_code == 401
            page = requests.get(served.url + "/")
            assert "script-src 'sha256-" in page.headers["Content-Security-Policy"]
            assert "unsafe" not in page.headers["Content-Security-Policy"]
            with SSE(served.url, "/workflows/run/stream", token=TOKEN) as stream:
                assert [stream.event().id for _ in range(2)] == ["1", "2"]
                served.process.send_signal(signal.SIGTERM)
                assert [block.retry for block in stream.blocks()] == ["1000"]
            assert served.process.wait(6.0) == 0
            _, errors = served.process.communicate(timeout=5)
            assert "Traceback" not in errors
            assert "MARKEDKEY" not in errors
    finally:
        writer.close()


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="POSIX signals")
@pytest.mark.parametrize("events_at_first", [0, 40])
def test_b02_a_server_that_was_suspended_tells_its_streams_what_retention_took(
    tmp_path, events_at_first: int
):
    log = str(tmp_path / "runs.db")
    writer = EventStream(SqliteStore(log, max_events=100))
    chunks(writer, "run", 1)
    chunks(writer, "other", 1)
    writer.store.flush()
    with contextlib.ExitStack() as stack:
        stack.callback(writer.close)
        served = stack.enter_context(Serve("--log", log, "--port", "0"))
        paths = ("/workflows/run/stream", "/events/stream", "/workflows/other/stream")
        streams = [stack.enter_context(SSE(served.url, path, after=0)) for path in paths]
        chunks(writer, "run", events_at_first)
        had = [
            [stream.event() for _ in range(count)]
            for stream, count in zip(streams, (events_at_first + 1, events_at_first + 2, 1))
        ]
        served.process.send_signal(signal.SIGSTOP)
        for _ in range(20):
            chunks(writer, "other", 20)
            chunks(writer, "run", 100)
            writer.store.flush()
        wait_until(lambda: writer.store.bounds().first > 1500, 20)
        served.process.send_signal(signal.SIGCONT)
        finish(writer, "run")
        finish(writer, "other")
        writer.store.flush()
        last = writer.store.bounds().last
        ends = (events_at_first + 2002, last, 402)
        for stream, seen, end in zip(streams, had, ends):
            while without_a_gap(seen) < end:
                seen.append(stream.event())
            assert any(sent.event == "events_missed" for sent in seen)


def without_a_gap(seen) -> int:
    """The last place of what was sent; each before it was sent once, or told to be missed."""
    reached = 0
    for sent in seen:
        if sent.event == "events_missed":
            assert sent.data["data"]["first"] == reached + 1
            reached = sent.data["data"]["last"]
        else:
            assert int(sent.id) == reached + 1
            reached = int(sent.id)
    return reached


def test_b02_a_client_that_reads_too_slowly_is_told_what_retention_took(tmp_path):
    with EventStream(SqliteStore(tmp_path / "runs.db", max_events=100)) as writer:
        chunks(writer, "run", 1)
        with site(SqliteStore(tmp_path / "runs.db")) as it, contextlib.ExitStack() as stack:
            paths = ("/workflows/run/stream", "/events/stream")
            streams = [stack.enter_context(SSE(it.url, path, after=0)) for path in paths]
            for _ in range(30):
                chunks(writer, "run", 100, "x" * 20_000)
                writer.store.flush()
            finish(writer, "run")
            for stream in streams:
                seen = [stream.event()]
                while without_a_gap(seen) < 3002:
                    seen.append(stream.event())
                assert any(sent.event == "events_missed" for sent in seen)
            it.app.close()


def test_serve_takes_its_token_from_the_environment_and_ends_with_ctrl_c(tmp_path):
    with Serve("--log", str(tmp_path / "runs.db"), "--port", "0", AGENTSTREAM_TOKEN=TOKEN) as it:
        assert requests.get(it.url + "/healthz").json() == {"status": "ok", "token": True}
        assert requests.get(it.url + "/workflows").status_code == 401
        it.process.send_signal(signal.SIGINT)
        assert it.process.wait(6.0) == 0


def test_serve_says_in_one_sentence_what_is_wrong(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("AGENTSTREAM_TOKEN", raising=False)
    empty = tmp_path / "empty"
    empty.write_text("\n")
    log = str(tmp_path / "runs.db")
    not_a_log = tmp_path / "text.db"
    not_a_log.write_text("no database" * 1000)
    with listen("127.0.0.1", 0) as taken:
        port = str(taken.getsockname()[1])
        for arguments, code in (
            (["--log", log, "--host", "0.0.0.0"], 2),
            (["--log", log, "--host", "::"], 2),
            (["--log", log, "--token-file", str(empty)], 2),
            (["--log", log, "--token-file", str(tmp_path / "none")], 2),
            (["--log", log, "--host", "no.such.host.invalid"], 2),
            (["--log", log, "--port", port], 1),
            (["--log", str(not_a_log), "--port", "0"], 1),
            ([], 2),
        ):
            assert main(["serve", *arguments]) == code, arguments
            printed = capsys.readouterr()
            assert printed.out == ""
            assert printed.err.startswith("agentstream: ")
            assert printed.err.count("\n") == 1, printed.err
    assert not os.path.exists(log)
    for arguments in (
        [],
        ["serve", "--log", log, "--port", "70000"],
        ["serve", "--log", log, "--token", TOKEN],
    ):
        with pytest.raises(SystemExit) as left:
            main(arguments)
        assert left.value.code == 2
    capsys.readouterr()


@pytest.mark.parametrize("command", [[], ["serve"]])
def test_the_help_fits_a_small_terminal(command, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as left:
        main([*command, "--help"])
    assert left.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80


def test_loopback_is_told_from_elsewhere():
    assert is_loopback("127.0.0.1")
    assert is_loopback("localhost")
    assert is_loopback("::1")
    assert not is_loopback("0.0.0.0")
    assert not is_loopback("192.0.2.1")
    with pytest.raises(ConfigError, match="no address"):
        is_loopback("no.such.host.invalid")


def test_a_server_is_stopped_twice_and_its_port_is_free_again():
    with Runtime() as runtime:
        sock = listen("127.0.0.1", 0)
        port = sock.getsockname()[1]
        server = Server(create_app(runtime, max_streams=2), sock).start()
        assert requests.get(server.url + "/healthz").status_code == 200
        assert server.stop()
        assert server.stop()
        listen("127.0.0.1", port).close()
        with pytest.raises(requests.ConnectionError):
            requests.get(server.url + "/healthz")


def test_y13_a_streams_prelude_is_comments_only():
    # httpx-sse and others take a block of `retry` or `id` alone for an event.
    with site() as it:
        chunks(it.events, "run", 2)
        for path in ("/workflows/run/stream", "/events/stream?after=0"):
            with SSE(it.url, path) as stream:
                blocks = [stream.block() for _ in range(3)]
            assert blocks[0] == (None, None, None, None, "agentstream")
            assert [block.retry for block in blocks[1:]] == ["1000", None]
            assert all(block.data is not None for block in blocks[1:])


def test_y04_nothing_on_the_way_may_change_a_stream():
    with site() as it:
        chunks(it.events, "run", 1)
        for path in ("/workflows/run/stream", "/events/stream"):
            with SSE(it.url, path) as stream:
                control = stream.response.getheader("Cache-Control")
                assert set(control.split(", ")) == {"no-store", "no-transform"}
                assert stream.response.getheader("X-Accel-Buffering") == "no"


@pytest.mark.parametrize(
    "run", ["team/42", "a/b/c", "/led", "trailed/", "a//b", "ä/ö", "1/stream/2"]
)
def test_b07_a_run_whose_id_has_slashes_is_shown(run: str):
    with site() as it:
        chunks(it.events, run, 2)
        address = f"{it.url}/workflows/{urllib.parse.quote(run, safe='')}"
        assert requests.get(address).json()["workflow_id"] == run
        path = f"/workflows/{urllib.parse.quote(run, safe='')}/stream"
        with SSE(it.url, path) as stream:
            assert stream.event().data["workflow_id"] == run
        assert requests.post(address + "/stop", json={}).status_code == 409


def test_only_some_runs_of_all():
    with site(heartbeat=0.1) as it:
        for run in ("a", "b", "c", "a"):
            chunks(it.events, run, 1)
        with SSE(it.url, "/events/stream?after=0&run=a&run=c") as stream:
            assert [stream.event().data["workflow_id"] for _ in range(3)] == ["a", "c", "a"]
            chunks(it.events, "b", 1)
            assert stream.block() == (None, None, None, None, "")  # heartbeats go on
            chunks(it.events, "c", 1)
            assert stream.event().id == "6"


HTTPS = {"Host": "runs.example.org", "Origin": "https://runs.example.org"}


def test_y05_behind_a_proxy_that_ends_tls():
    with site(token=TOKEN, origins=["https://runs.example.org"]) as it:
        answer = requests.post(it.url + "/login", json={"token": TOKEN}, headers=HTTPS)
        assert answer.status_code == 204
        assert "; Secure" in answer.headers["Set-Cookie"]
        cookie = answer.headers["Set-Cookie"].partition(";")[0]
        chunks(it.events, "run", 1)
        headers = {**HTTPS, "Cookie": cookie}
        assert requests.get(it.url + "/workflows", headers=headers).status_code == 200
        stop = requests.post(it.url + "/workflows/run/stop", json={}, headers=headers)
        assert stop.status_code == 409
        for origin in ("https://evil.example.org", "http://runs.example.org", "null"):
            refused = requests.post(
                it.url + "/login", json={"token": TOKEN}, headers={**HTTPS, "Origin": origin}
            )
            assert refused.status_code == 403, origin
    with site(token=TOKEN) as it:
        refused = requests.post(it.url + "/login", json={"token": TOKEN}, headers=HTTPS)
        assert refused.status_code == 403


@pytest.mark.parametrize(
    "origin",
    [
        *(
            "",
            "runs.example.org",
            "ftp://x",
            "https://",
            "https://x/y",
            "https://x?y",
            "https://x#y",
        ),
        *("https://me:secret@x", "https://x:99999", "https://x:y", "https://a b", "https://[::1"),
    ],
)
def test_y05_what_is_no_origin_is_refused(origin: str):
    with Runtime() as runtime, pytest.raises(ConfigError, match="origin"):
        create_app(runtime, origins=[origin])


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("https://RUNS.example.org/", "https://runs.example.org"),
        ("https://runs.example.org:443", "https://runs.example.org"),
        ("http://runs.example.org:8080", "http://runs.example.org:8080"),
        ("https://bücher.example", "https://xn--bcher-kva.example"),
        ("http://[::1]:80", "http://[::1]"),
    ],
)
def test_y05_an_origin_as_browsers_write_it(given: str, sent: str):
    with site(token=TOKEN, origins=[given]) as it:
        headers = {"Host": sent.partition("://")[2], "Origin": sent}
        answer = requests.post(it.url + "/login", json={"token": TOKEN}, headers=headers)
        assert answer.status_code == 204
        assert ("; Secure" in answer.headers["Set-Cookie"]) == sent.startswith("https:")


def test_y05_serve_is_told_its_origins(tmp_path):
    arguments = ["--log", str(tmp_path / "runs.db"), "--port", "0"]
    for name in ("https://runs.example.org", "http://other.example:81"):
        arguments += ["--origin", name]
    with Serve(*arguments, AGENTSTREAM_TOKEN=TOKEN) as served:
        for origin, status in (
            ("https://runs.example.org", 204),
            ("http://other.example:81", 204),
            ("https://other.example", 403),
        ):
            headers = {"Host": origin.partition("://")[2], "Origin": origin}
            answer = requests.post(served.url + "/login", json={"token": TOKEN}, headers=headers)
            assert answer.status_code == status, origin
            if status == 204:
                assert ("; Secure" in answer.headers["Set-Cookie"]) == origin.startswith("https")


@pytest.mark.parametrize("origin", ["runs.example.org", "https://", "https://me:secret@x"])
def test_y05_serve_refuses_what_is_no_origin(tmp_path, capsys, origin: str):
    log = str(tmp_path / "runs.db")
    assert main(["serve", "--log", log, "--port", "0", "--origin", origin]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "origin" in printed.err
    assert printed.err.count("\n") == 1
    assert "secret" not in printed.err
    assert not os.path.exists(log)


def test_y05_two_servers_on_one_host_do_not_log_each_other_out():
    with site(token=TOKEN) as one, site(token=TOKEN + "2") as two:
        session = requests.Session()
        for it, token in ((one, TOKEN), (two, TOKEN + "2")):
            assert session.post(it.url + "/login", json={"token": token}).status_code == 204
        for it in (one, two):
            assert session.get(it.url + "/workflows").status_code == 200


def test_b22_idle_and_half_open_connections_keep_nobody_out(monkeypatch):
    monkeypatch.setattr("agentstream.web.server._IDLE_S", 1)
    monkeypatch.setattr("agentstream.web.server._CLEANUP_S", 1)
    with site(max_streams=2) as it, contextlib.ExitStack() as stack:
        host, port = urllib.parse.urlsplit(it.url).netloc.split(":")
        for number in range(520):
            sock = stack.enter_context(socket.create_connection((host, int(port)), timeout=10))
            if number % 2:
                sock.sendall(b"GET / HTTP/1.1\r\nHost: 127")
        assert requests.get(it.url + "/healthz", timeout=15).status_code == 200


def test_b22_out_of_descriptors_it_waits_and_says_so_once(caplog):
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with site() as it, contextlib.ExitStack() as stack:
        assert requests.get(it.url + "/healthz", timeout=5).status_code == 200
        used = len(os.listdir("/proc/self/fd"))
        socks = [socket.socket() for _ in range(8)]
        for sock in socks:
            stack.enter_context(sock)
            sock.setblocking(False)
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + 8, hard))
        try:
            address = urllib.parse.urlsplit(it.url)
            for sock in socks:
                sock.connect_ex((address.hostname, address.port))
            spent = time.process_time()
            wait_until(lambda: "no connection can be taken" in caplog.text)
            threading.Event().wait(1.0)
            assert time.process_time() - spent < 0.5
            assert caplog.text.count("no connection can be taken") == 1
            assert "Traceback" not in caplog.text
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        stack.close()
        assert requests.get(it.url + "/healthz", timeout=5).status_code == 200
