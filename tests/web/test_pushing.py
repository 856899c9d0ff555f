"""Streams whose events one thread writes: to the fast, to the slow, to those who are gone."""

from __future__ import annotations

import os
import threading
from typing import List

import pytest

from agentstream import EventStream, EventType
from agentstream.errors import Closed
from agentstream.events.mailbox import NotLive
from tests.kit.programs import Program
from tests.kit.support import wait_until
from tests.kit.web_support import SSE, Site, chunks, finish, site

RUN = "/workflows/run/stream"


def pushers() -> List[threading.Thread]:
    return [one for one in threading.enumerate() if one.name == "agentstream-pusher"]


def lent(it: Site, count: int) -> None:
    """Wait until so many streams are written to by the one thread."""
    open_ones = it.app._streams._open
    wait_until(lambda: sum(bool(one.loan and one.loan._lent) for one in open_ones) == count)


def test_streams_that_are_up_to_date_are_written_by_one_thread():
    with site(max_streams=30) as it:
        chunks(it.events, "run", 3)
        readers = [SSE(it.url, RUN, after=n % 4) for n in range(20)]
        lent(it, 20)
        assert len(pushers()) == 1
        writers = [
            threading.Thread(target=chunks, args=(it.events, run, 200)) for run in ("run", "run")
        ]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join(20)
        finish(it.events, "run")
        for n, reader in enumerate(readers):
            assert reader.ids() == list(range(n % 4 + 1, 405))
            reader.close()
        wait_until(lambda: it.app.open_streams == 0)
    wait_until(lambda: not pushers())


def test_a_client_that_reads_slowly_waits_alone_and_misses_nothing():
    with site() as it:
        chunks(it.events, "run", 1)
        with SSE(it.url, RUN) as slow, SSE(it.url, RUN) as quick:
            assert slow.event().id == quick.event().id == "1"
            lent(it, 2)
            for _ in range(100):  # more than any buffer takes
                chunks(it.events, "run", 1, "x" * 100_000)
                quick.event()
            finish(it.events, "run")
            assert quick.ids() == [102]
            assert slow.ids() == list(range(2, 103))


def test_a_client_that_is_gone_is_noticed_with_the_next_events():
    with site(heartbeat=60.0) as it:
        chunks(it.events, "run", 1)
        with SSE(it.url, RUN) as stream:
            stream.event()
            lent(it, 1)

        def told() -> bool:
            chunks(it.events, "run", 1)
            return it.app.open_streams == 0

        wait_until(told)


def test_comments_come_when_it_is_quiet_and_events_after_them():
    with site(heartbeat=0.1) as it:
        chunks(it.events, "run", 1)
        with SSE(it.url, RUN, after=1) as stream:
            stream.block()
            for _ in range(3):
                assert stream.block().comment == ""
                chunks(it.events, "run", 1)
                sent = next(block for block in stream.blocks() if block.data is not None)
            assert sent.id == "4"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_an_app_that_was_serving_when_it_was_forked_serves_in_the_child() -> None:
    source = """
    from agentstream.web.server import Server, listen
    from tests.web.test_pushing import RUN, SSE, chunks, lent, site
    with site(max_streams=1, heartbeat=30.0) as it:
        chunks(it.events, "run", 1)
        theirs = SSE(it.url, RUN, after=1)
        theirs.block()
        lent(it, 1)
        child = os.fork()
        if not child:
            try:
                with Server(it.app, listen("127.0.0.1", 0)) as server:
                    mine = SSE(server.url, RUN, after=1, timeout=5.0)
                    say(mine.status)
                    mine.block()
                    lent(it, 1)
                    chunks(it.events, "run", 1)
                    say(mine.event().id)
                    mine.close()
            except BaseException as error:
                say("child:", repr(error))
            os._exit(0)
        os.waitpid(child, 0)
        chunks(it.events, "run", 1)
        say(theirs.event().id)
        theirs.close()
    """
    with Program(source, env={"PYTHONWARNINGS": "ignore"}) as program:
        assert program.finish() == 0, program.errors
        assert program.lines == ["200", "2", "2"], program.errors


def test_a_bell_rings_for_all_that_comes_and_what_is_read_from_the_store_is_no_news():
    rung: List[int] = []
    with EventStream() as stream:
        chunks(stream, "run", 3)
        with stream.subscribe(workflow_id="run", after=1, max_queue=2) as events:
            with pytest.raises(NotLive):
                events.get_now()  # two are to be read from the store
            assert [events.get(1).offset for _ in range(2)] == [2, 3]
            assert events.get(0.0) is None
            assert events.get_now() is None
            events.ring(lambda: rung.append(1))
            chunks(stream, "run", 1)
            assert (events.get_now().offset, rung) == (4, [1])
            chunks(stream, "run", 5)  # more than the queue takes
            found = []
            while events.get_now() is not None:
                found.append(1)
                if len(found) == 2:
                    break
            with pytest.raises(NotLive):
                events.get_now()
            assert [events.get(1).offset for _ in range(3)] == [7, 8, 9]
            assert events.get(0.0) is None
            rung.clear()
            events.ring(None)
            finish(stream, "run")
            assert events.get_now().type is EventType.WORKFLOW_COMPLETED
            with pytest.raises(NotLive):
                events.get_now()
            with pytest.raises(Closed):
                events.get(0.0)
            assert rung == []
