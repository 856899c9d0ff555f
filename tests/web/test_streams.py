"""A stream over HTTP: heartbeats, its prelude, its place among all runs, its end."""

from __future__ import annotations

import requests

from agentstream import EventStream
from agentstream.events.sqlite import SqliteStore
from tests.kit.support import wait_until
from tests.kit.web_support import SSE, chunks, finish, site


def test_heartbeats_and_head():
    with site(heartbeat=0.05) as it:
        chunks(it.events, "run", 1)
        with SSE(it.url, "/workflows/run/stream?after=1") as stream:
            first = [stream.block() for _ in range(3)]
            assert first[0] == (None, None, None, None, "agentstream")
            assert first[1] == first[2] == (None, None, None, None, "")
        assert requests.head(it.url + "/workflows/run/stream").status_code == 200
        wait_until(lambda: it.app.open_streams == 0)


def test_comments_come_while_only_other_runs_events_are_passed_by():
    with site(heartbeat=0.0005) as it:
        chunks(it.events, "other", 9_000)
        chunks(it.events, "mine", 1)
        with SSE(it.url, "/events/stream?run=mine", after=0) as stream:
            blocks = [stream.block().comment for _ in range(2)]
            assert blocks == ["agentstream", ""]
            assert stream.event().data["workflow_id"] == "mine"


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
