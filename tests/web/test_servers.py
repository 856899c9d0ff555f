"""Row H09: the endpoint under waitress, gunicorn's gthread, wsgiref and within a Flask app."""

from __future__ import annotations

import contextlib
import os
import signal
import socketserver
import subprocess
import sys
import threading
import wsgiref.simple_server
import wsgiref.validate
import zlib
from typing import Any, Iterator

import flask
import pytest
import requests
import waitress
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from agentstream import EventStream, Runtime
from agentstream.events.sqlite import SqliteStore
from agentstream.web import create_app, follow
from tests.kit.support import free_port, wait_until
from tests.kit.web_support import SSE, TOKEN, chunks, finish, site

HOP_BY_HOP = {"keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "upgrade"}
RUN = "/workflows/run/stream"


def check_stream(url: str, events: EventStream, *, http10: bool) -> None:
    """A stream that is live, whole, ends, and says how it must be treated."""
    run = f"run-{int(http10)}"
    chunks(events, run, 2)
    events.store.flush()
    with SSE(url, f"/workflows/{run}/stream", token=TOKEN, http10=http10) as stream:
        assert stream.status == 200
        headers = {name.lower(): value for name, value in stream.response.getheaders()}
        assert not HOP_BY_HOP & set(headers)
        assert headers.get("connection", "close") in ("close", "keep-alive")  # the server's own
        assert headers["x-accel-buffering"] == "no"
        assert headers["cache-control"] == "no-store, no-transform"
        assert "content-length" not in headers
        assert not (http10 and "transfer-encoding" in headers)
        assert [stream.event().id for _ in range(2)] == ["1", "2"]
        chunks(events, run, 1)  # the others are here already: nothing is held back
        assert stream.event().id == "3"
        finish(events, run)
        assert stream.ids() == [4]
    again = requests.get(
        f"{url}/workflows/{run}/stream",
        headers={"Last-Event-ID": "4", "Authorization": f"Bearer {TOKEN}"},
    )
    assert again.status_code == 204
    assert [event.offset for event in follow(f"{url}/workflows/{run}", TOKEN)] == [1, 2, 3, 4]


def check_slow(url: str, events: EventStream) -> None:
    """One who reads slowly holds up nobody, and gets all of it."""
    chunks(events, "slow", 1)
    events.store.flush()
    path = "/workflows/slow/stream"
    with SSE(url, path, token=TOKEN) as slow, SSE(url, path, token=TOKEN) as quick:
        assert slow.event().id == quick.event().id == "1"
        for _ in range(60):
            chunks(events, "slow", 1, "x" * 100_000)  # more than a socket takes, in the end
            assert len(quick.event().data["data"]["chunk"]) == 100_000
        finish(events, "slow")
        assert quick.ids() == [62]
        told = slow.events()
        assert [int(sent.id) for sent in told if sent.id] == list(range(2, 63))
        assert {len(sent.data["data"].get("chunk", "")) for sent in told} == {100_000, 0}


def check_deflated(url: str, events: EventStream) -> None:
    """A middleware that changes the body changes all of it."""
    chunks(events, "deflated", 1)
    events.store.flush()
    unpacker = zlib.decompressobj()
    had = b""
    with SSE(url, "/workflows/deflated/stream", token=TOKEN, **{"X-Deflate": "1"}) as stream:
        for number in range(1, 12):
            while b"id: %d\n" % number not in had:
                piece = stream.response.read1(65536)
                assert piece, had
                had += unpacker.decompress(piece)
            if number < 11:
                chunks(events, "deflated", 1)
        finish(events, "deflated")
        had += unpacker.decompress(stream.response.read())
    assert had.count(b"\nid: ") == 12, had


def check(url: str, events: EventStream) -> None:
    for http10 in (False, True):
        check_stream(url, events, http10=http10)
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    assert requests.get(url + "/workflows").status_code == 401
    assert len(requests.get(url + "/workflows", headers=bearer).json()["workflows"]) == 2
    assert "text/html" in requests.get(url + "/").headers["Content-Type"]
    stop = requests.post(url + "/workflows/run-0/stop", json={}, headers=bearer)
    assert stop.status_code == 409


def test_h09_waitress_as_agentstream_serves():
    with site(token=TOKEN) as it:
        check(it.url, it.events)


def test_h09_waitress_with_its_defaults():
    with Runtime() as runtime:
        app = create_app(runtime, TOKEN, max_streams=3)
        server = waitress.create_server(app, host="127.0.0.1", port=0, threads=4)
        thread = threading.Thread(target=server.run)
        thread.start()
        try:
            check(f"http://127.0.0.1:{server.effective_port}", runtime.event_stream)
        finally:
            app.close(wait=5.0)
            server.task_dispatcher.shutdown()
            server.trigger.pull_trigger(lambda: server.asyncore.close_all(server._map))
            thread.join(10.0)


class _Quiet(wsgiref.simple_server.WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


class _Threading(socketserver.ThreadingMixIn, wsgiref.simple_server.WSGIServer):
    daemon_threads = False
    block_on_close = True


@contextlib.contextmanager
def wsgiref_server(app: Any) -> Iterator[str]:
    server = wsgiref.simple_server.make_server(
        "127.0.0.1", 0, app, server_class=_Threading, handler_class=_Quiet
    )
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join(5.0)
        server.server_close()


def test_h09_wsgiref():
    with Runtime() as runtime:
        app = create_app(runtime, TOKEN)
        with wsgiref_server(app) as url:
            check(url, runtime.event_stream)
            app.close(wait=5.0)


def test_h09_wsgi_to_the_letter():
    with Runtime() as runtime:
        app = create_app(runtime, TOKEN)
        with wsgiref_server(wsgiref.validate.validator(app)) as url:
            check_stream(url, runtime.event_stream, http10=True)
            app.close(wait=5.0)


def test_h09_within_a_flask_app():
    outer = flask.Flask("outer")

    @outer.route("/")
    def index() -> str:
        return "the outer app"

    with Runtime() as runtime:
        app = create_app(runtime, TOKEN)
        outer.wsgi_app = DispatcherMiddleware(outer.wsgi_app, {"/runs": app})  # type: ignore
        with wsgiref_server(outer) as url:
            assert requests.get(url + "/").text == "the outer app"
            check(url + "/runs", runtime.event_stream)
            login = requests.post(url + "/runs/login", json={"token": TOKEN})
            assert "Path=/runs" in login.headers["Set-Cookie"]
            app.close(wait=5.0)


GUNICORN = """
import signal
import zlib
from agentstream.events.sqlite import SqliteStore
from agentstream.web import create_app

def make(path, token):
    return Deflating(create_app(SqliteStore(path), token, heartbeat=1.0))

class Deflating:
    def __init__(self, app):
        self.app, self.close = app, app.close

    def __call__(self, environ, start_response):
        if "HTTP_X_DEFLATE" not in environ:
            return self.app(environ, start_response)

        def start(status, headers):
            return start_response(status, [*headers, ("Content-Encoding", "deflate")])

        return self.deflated(self.app(environ, start))

    def deflated(self, body):
        packer = zlib.compressobj()
        try:
            for piece in body:
                yield packer.compress(piece) + packer.flush(zlib.Z_SYNC_FLUSH)
        finally:
            body.close()

def post_worker_init(worker):
    # gunicorn waits for its requests to end; streams end when they are told.
    before = signal.getsignal(signal.SIGTERM)

    def stop(*args):
        worker.wsgi.close()
        before(*args)

    signal.signal(signal.SIGTERM, stop)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="gunicorn needs fork")
def test_h09_h10_gunicorn_gthread(tmp_path):
    (tmp_path / "site_of_runs.py").write_text(GUNICORN)
    path = tmp_path / "runs.db"
    events = EventStream(SqliteStore(path))
    port = free_port()
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "gunicorn",
            "--worker-class",
            "gthread",
            "--threads",
            "6",
            "--bind",
            f"127.0.0.1:{port}",
            "--config",
            "site_of_runs.py",
            "--graceful-timeout",
            "5",
            f"site_of_runs:make({str(path)!r}, {TOKEN!r})",
        ],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([os.getcwd(), *sys.path])},
    )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: _answers(url), timeout=60.0)
        check(url, events)
        check_slow(url, events)
        check_deflated(url, events)
        chunks(events, "run", 1)
        events.store.flush()
        with SSE(url, RUN, token=TOKEN) as stream:
            assert stream.event().id == "1"
            process.send_signal(signal.SIGTERM)
            assert [block.retry for block in stream.blocks()] == ["1000"]
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0
        assert "Traceback" not in errors, errors
    finally:
        process.kill()
        process.communicate()
        events.close()


def _answers(url: str) -> bool:
    try:
        return requests.get(url + "/healthz", timeout=20).status_code == 200
    except requests.RequestException:
        return False
