"""Poller: looks again and again, whatever a look does, until it is closed; anew after a fork."""

from __future__ import annotations

import os
import threading

import pytest

from agentstream.threads import Poller
from tests.kit.support import wait_until


def test_it_looks_again_whatever_a_look_raises(caplog: pytest.LogCaptureFixture) -> None:
    looks = []

    def look() -> None:
        looks.append(threading.current_thread().name)
        raise ValueError("not now")

    poller = Poller("test", look, 0.001)
    assert looks == []
    poller.start()
    poller.start()
    wait_until(lambda: len(looks) >= 3)
    poller.close()
    poller.join(10)
    assert set(looks) == {"agentstream-test"}
    assert "a look in the thread test failed" in caplog.text
    poller.start()  # it is over
    assert poller.closed


def test_it_is_woken_and_closed_at_once() -> None:
    looks = []
    poller = Poller("test", lambda: looks.append(1), 60)
    poller.start()
    wait_until(lambda: looks == [1])
    poller.wake()
    wait_until(lambda: looks == [1, 1])
    poller.close()
    poller.join(10)
    poller.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_in_a_forked_child_it_begins_with_the_next_start() -> None:
    looked = threading.Event()
    poller = Poller("test", looked.set, 60)
    poller.start()
    assert looked.wait(10)
    child = os.fork()
    if child == 0:
        looked.clear()
        poller.start()
        os._exit(0 if looked.wait(10) else 1)
    assert os.waitpid(child, 0)[1] == 0
    poller.close()
    poller.join(10)
