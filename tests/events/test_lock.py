"""The stream's lock, and what a signal handler raises as it is taken (B13)."""

from __future__ import annotations

import contextlib
import gc
import sys
from typing import Any, Callable, Dict

import pytest

from agentstream import EventStream, EventType
from tests.kit.support import Task

CHUNK = EventType.AGENT_LLM_STREAM_CHUNK
ACTS: Dict[str, Callable[[EventStream], object]] = {
    "open_log": lambda stream: stream.open_log("new"),
    "append": lambda stream: stream.append("system_warning", "mine", {}),
    "end": lambda stream: stream.append("workflow_completed", "mine", {}),
    "subscribe": lambda stream: stream.subscribe(workflow_id="run"),
    "unsubscribe": lambda stream: stream.subscribe().close(),
    "lag": lambda stream: _lag(stream),
    "close": lambda stream: stream.close(),
}


def _lag(stream: EventStream) -> None:
    with stream.subscribe(max_queue=1) as lagging:
        for n in range(5):
            stream.append("system_warning", "mine", {"n": n})
        while lagging.get(0) is not None:
            pass


@pytest.mark.parametrize("act", ACTS)
def test_b13_what_a_handler_raises_as_the_lock_is_taken_leaves_it_free(act: str) -> None:
    """A handler runs right behind a call of C: there, in a method, the lock would be held for ever."""
    stream = EventStream()
    log = stream.open_log("run")
    lock: Any = stream._lock.lock

    def profile(frame: Any, kind: str, called: Any) -> None:
        taken = getattr(called, "__self__", None) is lock and called.__name__ == "acquire"
        if kind == "c_return" and taken:
            raise KeyboardInterrupt

    sys.setprofile(profile)
    try:
        with contextlib.suppress(KeyboardInterrupt):
            ACTS[act](stream)
    finally:
        sys.setprofile(None)
    with contextlib.suppress(Exception):
        Task(lambda: log.append(CHUNK, {"n": 1})).result(5)
    assert lock.acquire(timeout=5)
    lock.release()
    assert not stream._lock.is_mine()
    stream.close()


def test_any_number_of_subscriptions_may_be_abandoned_at_once() -> None:
    with EventStream() as stream:
        kept = stream.subscribe()
        abandoned = [stream.subscribe(workflow_id=f"run {n}") for n in range(1500)]
        del abandoned
        gc.collect()
        stream.append("system_warning", "mine", {})
        assert kept.get(10) is not None
        assert len(stream._subscribers) == 1
