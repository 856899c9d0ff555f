"""Work that may be left behind in its thread."""

from __future__ import annotations

import threading
import time
from concurrent.futures import TimeoutError as FutureTimeout

import pytest

from agentstream import threads
from agentstream.cancel import CancelToken
from tests.kit.support import Task
from tests.kit.work import Held, no_thread


def test_abandonable_returns_and_raises_what_the_function_does() -> None:
    assert threads.abandonable("test", lambda: 5, CancelToken()) == 5
    with pytest.raises(OSError, match="no such host"):
        threads.abandonable("test", _no_host, CancelToken())


def _no_host() -> None:
    raise OSError("no such host")


def test_abandonable_leaves_its_thread_behind_when_it_is_stopped() -> None:
    stop, work = CancelToken(), Held()
    caller = Task(lambda: threads.abandonable("test", work, stop))
    assert work.begun.wait(5)
    stopped = time.monotonic()
    stop.cancel()
    assert isinstance(caller.error(), FutureTimeout)
    assert caller.ended - stopped < 1
    work.go.set()


def test_abandonable_with_a_token_cancelled_before_does_not_wait() -> None:
    stop, work = CancelToken(), Held()
    stop.cancel()
    with pytest.raises(FutureTimeout):
        threads.abandonable("test", work, stop)
    work.go.set()


def test_r08_abandonable_without_a_thread_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    stop = CancelToken()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_thread)
        with pytest.raises(RuntimeError):
            threads.abandonable("test", lambda: 1, stop)
    assert not stop._callbacks
