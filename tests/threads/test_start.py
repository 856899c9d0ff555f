"""Waits: in pieces in the main thread, at a stretch in others, and of centuries."""

from __future__ import annotations

import queue
import threading
import time

import pytest

from agentstream import threads
from agentstream.cancel import CancelToken
from tests.kit.support import Task


def test_r01_the_main_thread_waits_in_pieces_and_others_at_a_stretch() -> None:
    # A signal between the last look and the system call that blocks wakes nobody.
    assert next(threads.slices(None)) == threads.start._STRETCH_S
    assert next(threads.slices(10)) == threads.start._STRETCH_S
    assert list(threads.slices(0)) == [0]
    (only,) = threads.slices(0.1)
    assert only is not None
    assert 0.05 < only <= 0.1
    began = time.monotonic()
    for seconds in threads.slices(0.5):
        threading.Event().wait(seconds)
    assert 0.5 <= time.monotonic() - began < 2
    assert Task(lambda: list(threads.slices(None))).result() == [None]
    assert Task(lambda: list(threads.slices(7.5))).result() == [7.5]


@pytest.mark.parametrize("seconds", [9.3e9, 1e12, 1e300, threads.NEVER])
def test_b18_a_wait_of_centuries_is_a_wait(seconds: float) -> None:
    box: queue.SimpleQueue[int] = queue.SimpleQueue()
    waiting = Task(lambda: threads.get_within(box, seconds))
    pieces = Task(lambda: next(threads.slices(seconds))).result()
    assert pieces is not None
    assert 1e6 < pieces <= threading.TIMEOUT_MAX
    box.put(7)
    assert waiting.result() == 7
    token = CancelToken()
    asleep = Task(lambda: token.wait(seconds))
    token.cancel()
    assert asleep.result() is True
