"""B13: signal handlers that cancel, stop, shut down and exit, under load; a thousand by hand.

`python -m stress.run_signals` sends a thousand signals to each; here are as many as a suite has time for.
"""

from __future__ import annotations

import signal
import sys
import threading
from typing import Any

import pytest

from agentstream import Runtime, threads
from agentstream.cancel import CancelToken
from tests.kit.programs import run
from tests.kit.signal_programs import EXITS, SHUTDOWNS, STOPS

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals")

STORES = ("memory", "sqlite")


def held(program: str, store: str, how: str, count: int) -> None:
    """Run a program, which is killed after 25 s."""
    done = run(program, store, how, str(count), "25")
    assert done.status == 0, (done.lines, done.errors)  # type: ignore[attr-defined]


@pytest.mark.parametrize("store", STORES)
def test_b13_a_handler_cancels_and_stops(store: str) -> None:
    held(STOPS, store, "", 300)


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("how", ["cancel", "wait"])
def test_b13_a_handler_shuts_down(store: str, how: str) -> None:
    held(SHUTDOWNS, store, how, 60)


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("how", ["sigterm", "shutdown", "interrupt"])
def test_b13_a_handler_exits(store: str, how: str) -> None:
    held(EXITS, store, how, 20)


def test_b13_submit_within_submit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A handler that interrupts a submit cannot submit: it is told so, and nothing is broken."""
    with Runtime() as runtime:
        refusals = []

        def handler(*_: Any) -> None:
            try:
                runtime.submit(_nothing(), "inner")
            except RuntimeError as error:
                refusals.append(str(error))

        open_log = runtime.event_stream.open_log

        def interrupted(*arguments: Any) -> Any:
            signal.raise_signal(signal.SIGUSR1)
            return open_log(*arguments)

        before = signal.signal(signal.SIGUSR1, handler)
        try:
            monkeypatch.setattr(runtime.event_stream, "open_log", interrupted)
            assert runtime.run(_nothing(), "outer").output == "outer"
            monkeypatch.undo()
            assert len(refusals) == 1
            assert "signal handler" in refusals[0]
            assert runtime.run(_nothing(), "next").output == "next"
        finally:
            signal.signal(signal.SIGUSR1, before)


def _nothing() -> Any:
    from agentstream import Workflow

    return Workflow("nothing", [lambda x: x])


def test_b13_exit_on_sigterm_is_not_lost_in_a_finalizer() -> None:
    # Python prints what is raised in __del__, and goes on.
    program = run(
        """
        class Dropped:
            def __del__(self):
                signal.raise_signal(signal.SIGTERM)

        exit_on_sigterm()
        Dropped()
        threading.Event().wait(20)
        say("still here")
        """
    )
    assert program.status == 143, program.errors  # type: ignore[attr-defined]
    assert not program.lines


# --- what the main thread has another thread do ---------------------------------------------


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
