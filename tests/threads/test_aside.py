"""What the main thread has another thread do: for it alone, with what that raises (B13)."""

from __future__ import annotations

import signal
import sys
import threading
from typing import Any

import pytest

from agentstream import threads
from agentstream.cancel import CancelToken

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals")


def test_aside_is_another_thread_for_the_main_thread_only() -> None:
    main = threading.current_thread()
    assert threads.aside("test", threading.current_thread, main) is not main
    seen = []
    thread = threading.Thread(
        target=lambda: seen.append(threads.aside("test", threading.current_thread, main) is thread)
    )
    thread.start()
    thread.join()
    assert seen == [True]


def test_aside_raises_what_the_work_does() -> None:
    with pytest.raises(ZeroDivisionError):
        threads.aside("test", lambda: 1 // 0, 0)


def test_aside_waits_where_the_library_waits_and_not_within_it() -> None:
    answers = []
    done = threading.Event()

    def handler(*_: Any) -> None:
        answers.append(threads.aside("test", lambda: "waited", "not waited"))

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        signal.raise_signal(signal.SIGUSR1)  # user code
        token = CancelToken()
        main = threading.main_thread().ident
        assert main is not None
        timer = threading.Timer(0.05, lambda: signal.pthread_kill(main, signal.SIGUSR1))
        timer.start()
        token.wait(0.3)  # the library, at rest
        timer.join()
        token.add_callback(lambda: signal.raise_signal(signal.SIGUSR1))
        token.cancel()  # within the library
        done.set()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert answers == ["waited", "waited", "not waited"]
