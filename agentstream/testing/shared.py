"""What a store must do whose log processes share, as tests to inherit.

    class TestMyStoreShared(SharedStoreConformance):
        def make_opener(self):
            return functools.partial(MyStore, a_new_log())

        def trouble(self):
            return ...

Run by pytest, which is not needed to import this; each test gets a log of its own.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
import warnings
from abc import abstractmethod
from typing import Any, Callable, ContextManager, Iterator, List, Optional, Tuple

from agentstream.errors import Busy, LogError
from agentstream.events.model import Event, EventType
from agentstream.events.store import EventStore, StopAnswer
from agentstream.events.stream import EventStream
from agentstream.testing.shared_process import Opener, OtherProcess
from agentstream.testing.stores import event, refused

__all__ = ["SharedStoreConformance"]

_CHUNK = EventType.AGENT_LLM_STREAM_CHUNK
_STARTED = EventType.WORKFLOW_STARTED
_COMPLETED = EventType.WORKFLOW_COMPLETED
_FAILED = EventType.WORKFLOW_FAILED
_SUSPENDED = EventType.WORKFLOW_SUSPENDED
_RESUMED = EventType.WORKFLOW_RESUMED
_PATIENCE = 20.0


class _Watcher:
    """What a runtime is to a store: it is told which runs are to stop."""

    def __init__(self) -> None:
        self.told: List[Tuple[str, str]] = []

    def stop(self, workflow_id: str, reason: str) -> bool:
        self.told.append((workflow_id, reason))
        return True


class SharedStoreConformance:
    """The tests.  Subclass it and say how stores on one log are made.

    Attributes:
        lease: seconds after which a process that sleeps is taken for dead; None for a store
            that takes runs from processes only which have ended.
    """

    lease: Optional[float] = None

    @abstractmethod
    def make_opener(self) -> Opener:
        """A callable that makes a store on a new, empty log, and with each call another one.

        It must be picklable: other processes call it as well.  Give the stores a short
        lease, and a short time that they wait for a log which cannot be written.
        """

    @abstractmethod
    def trouble(self) -> ContextManager[object]:
        """Within it the log that was made last cannot be written, or not for sure."""

    @contextlib.contextmanager
    def _stores(self, count: int = 2) -> Iterator[Any]:
        """So many stores on one new log, and what makes more of them."""
        opener = self.make_opener()
        with contextlib.ExitStack() as stack:
            stores = []
            for _ in range(count):
                stores.append(opener())
                stack.callback(stores[-1].close)
            yield (*stores, opener)

    # --- one owner --------------------------------------------------------------------------

    def test_a_run_is_written_by_one_of_two(self) -> None:
        with self._stores() as (one, other, _):
            assert one.shared
            one.claim("w")
            refused(lambda: other.claim("w"))
            refused(lambda: other.append(event("w", 1)))
            _fill(one, "w", 1, 3)
            refused(lambda: other.claim("w"))
            refused(lambda: other.append(event("w", 4)))
            other.claim("v")
            _fill(other, "v", 1, 2)
            for store in (one, other):
                assert _offsets(store, "w") == [1, 2, 3]
                assert _offsets(store, "v") == [1, 2]
                assert {run.workflow_id for run in store.runs()} == {"v", "w"}
                assert store.bounds("w") == (1, 3)

    def test_of_many_claims_at_once_one_wins(self) -> None:
        with self._stores(4) as (*stores, _):
            gate = threading.Barrier(12)
            found: List[Any] = []

            def claim(store: EventStore) -> None:
                gate.wait(_PATIENCE)
                try:
                    store.claim("w")
                    found.append(store)
                except LogError as error:
                    found.append(error)

            threads = [threading.Thread(target=claim, args=(stores[n % 4],)) for n in range(12)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(_PATIENCE)
            assert len(found) == 12
            # Within a process a claim may be made again.
            assert len({id(one) for one in found if isinstance(one, EventStore)}) == 1
            assert len([one for one in found if isinstance(one, LogError)]) == 9

    # --- news of others ---------------------------------------------------------------------

    def test_what_one_writes_the_other_is_told(self) -> None:
        with self._stores() as (one, other, _):
            woken: List[bool] = []
            thread = threading.Thread(target=lambda: woken.append(other.wait(0, _PATIENCE)))
            thread.start()
            one.claim("w")
            _fill(one, "w", 1, 3)
            thread.join(_PATIENCE)
            assert woken == [True]
            other.claim("v")
            _fill(other, "v", 1, 2)
            assert other.wait(other.bounds().last - 1, _PATIENCE)
            events, reach = other.read_others(0, 500)
            assert [(e.workflow_id, e.offset) for e in events] == [("w", 1), ("w", 2), ("w", 3)]
            assert reach == 5
            assert other.read_others(reach, 500) == ([], reach)
            events, reach = other.read_others(0, 2)
            assert ([e.offset for e in events], reach) == ([1, 2], 2)

    def test_news_of_some_runs_leave_out_the_others(self) -> None:
        with self._stores() as (one, other, _):
            for name in ("a", "b", "c"):
                one.claim(name)
            for n in range(1, 11):
                for name in ("a", "b", "c"):
                    one.append(event(name, n))
            one.flush()
            assert other.wait(29, _PATIENCE)
            for only, wanted in ((["b"], "b"), (["a", "c", "none"], "ac"), ([], "")):
                events, reach = other.read_others(0, 500, only=frozenset(only))
                expected = [(name, n) for n in range(1, 11) for name in wanted]
                assert [(e.workflow_id, e.offset) for e in events] == expected
                assert reach == 30
            after, found = 0, []
            while after < 30:
                events, after = other.read_others(after, 4, only=frozenset(["b"]))
                found += [e.offset for e in events]
            assert found == list(range(1, 11))

    def test_each_process_has_each_event_once(self) -> None:
        with self._stores() as (one, other, _), contextlib.ExitStack() as stack:
            streams = [stack.enter_context(EventStream(store)) for store in (one, other)]
            every = [stream.subscribe() for stream in streams]
            single = [stream.subscribe(workflow_id="0") for stream in streams]
            logs = [streams[n].open_log(str(n)) for n in range(2)]
            late = []
            for n in range(60):
                for log in logs:
                    log.append(_CHUNK, {"chunk": f"{n}"})
                if n % 10 == 0:  # who comes while others follow misses nothing either
                    late.append(streams[1].subscribe(workflow_id="0", after=0))
            for log in logs:
                log.append(_COMPLETED, {})
            for subscription in (*single, *late):
                assert [e.offset for e in subscription] == list(range(1, 62))
            for subscription in every:
                found = [subscription.get(_PATIENCE) for _ in range(122)]
                for name in "01":
                    offsets = [e.offset for e in found if e and e.workflow_id == name]
                    assert offsets == list(range(1, 62))
                assert subscription.get(0.05) is None

    # --- stopping ---------------------------------------------------------------------------

    def test_a_run_is_stopped_from_the_other_side(self) -> None:
        with self._stores() as (one, other, _):
            watcher = _Watcher()
            one.watch_stops(watcher.stop)
            assert not other.request_stop("w", "nobody has it")
            one.claim("w")
            one.append(event("w", 1, _STARTED, {"workflow": "demo"}))
            one.flush()
            assert other.request_stop("w", "the user") is StopAnswer.ASKED
            _until(lambda: watcher.told == [("w", "the user")])
            one.append(event("w", 2, EventType.WORKFLOW_CANCELLED, {"reason": "the user"}))
            one.flush()
            _until(lambda: other.has_ended("w"))
            assert other.run("w").status == "cancelled"
            assert not other.request_stop("w", "again")
            assert watcher.told == [("w", "the user")]

    # --- gaps, and errors -------------------------------------------------------------------

    def test_a_gap_is_refused_and_nothing_comes_of_it(self) -> None:
        with self._stores() as (one, other, _):
            one.claim("w")
            refused(lambda: one.append(event("w", 2)))
            _fill(one, "w", 1, 2)
            refused(lambda: one.append(event("w", 4)))
            _fill(one, "w", 3, 4)
            assert _offsets(other, "w") == [1, 2, 3, 4]
            assert [e.position for e in other.read()] == [1, 2, 3, 4]

    def test_what_was_in_doubt_is_kept_once(self) -> None:
        with self._stores() as (one, other, _):
            one.claim("w")
            _fill(one, "w", 1, 5)
            kept = 5
            with self.trouble():
                with contextlib.suppress(LogError):
                    while kept < 20:
                        one.append(event("w", kept + 1))
                        kept += 1
                refused(one.flush)
                for n in range(1, kept + 1):
                    with contextlib.suppress(LogError):
                        one.append(event("w", n))
            _until(lambda: _succeeds(one.flush))
            for n in range(1, kept + 4):
                one.append(event("w", n))
            one.append(event("w", kept + 4, _COMPLETED))
            one.flush()
            for store in (one, other):
                assert _offsets(store, "w") == list(range(1, kept + 5))
                assert [e.position for e in store.read()] == list(range(1, kept + 5))

    # --- fork -------------------------------------------------------------------------------

    def test_a_forked_child_writes_runs_of_its_own(self) -> None:
        if not hasattr(os, "fork"):
            return
        with self._stores() as (one, other, _):
            one.claim("parent")
            _fill(one, "parent", 1, 5)
            one.append(event("parent", 6))  # not committed yet, perhaps: the parent's
            code = _fork(lambda: _be_the_child(one))
            assert code == 0, code
            _fill(one, "parent", 7, 9)
            assert _offsets(other, "parent") == list(range(1, 10))
            assert _offsets(other, "child") == list(range(1, 6))

    # --- take-over --------------------------------------------------------------------------

    def test_a_dead_process_s_runs_are_ended_or_left_to_others(self) -> None:
        with self._stores(1) as (store, opener), EventStream(store) as stream:
            ends = stream.subscribe(workflow_id="plain", after=0, types=[_FAILED])
            with OtherProcess(opener) as process:
                assert process.last == {"plain": 2, "kept": 2}
                refused(lambda: store.claim("plain"))
                refused(lambda: store.checkpoints.resume("kept"), Busy)
                process.kill()
            _until(lambda: not store.wait(1 << 40, 0.01) and _status(store, "plain") == "failed")
            assert [e.offset for e in ends] == [3]
            _until(lambda: _status(store, "kept") == "interrupted")
            assert store.run("plain").output == "some words"
            found = store.read(workflow_id="plain")
            assert [e.offset for e in found] == [1, 2, 3]
            assert found[-1].data["error"] == "Interrupted"
            log, entry = stream.reopen_log("kept")
            assert (entry.last, entry.fence, entry.deaths) == (2, 2, 1)
            assert (entry.reason, entry.records) == ("interrupted", {"a": b"1"})
            log.append(_RESUMED, {})
            log.append(_COMPLETED, {"output": "done"})
            store.flush()
            with contextlib.closing(opener()) as another:
                assert _offsets(another, "kept") == [1, 2, 3, 4]
                assert _status(another, "kept") == "completed"

    # --- the fence --------------------------------------------------------------------------

    def test_who_has_left_a_run_writes_it_no_longer(self) -> None:
        with self._stores() as (one, other, _):
            one.claim("w")
            one.checkpoints.begin("w")
            one.append(event("w", 1, _STARTED, {"workflow": "demo"}))
            one.checkpoints.write("w", {"a": b"1"})
            one.append(event("w", 2, _SUSPENDED, {"status": "suspended"}))
            one.flush()
            entry = other.checkpoints.resume("w")
            assert (entry.last, entry.fence, entry.records) == (2, 2, {"a": b"1"})
            refused(lambda: one.checkpoints.resume("w"), Busy)
            refused(lambda: one.append(event("w", 3)))
            refused(lambda: one.checkpoints.write("w", {"a": b"2"}))
            assert one.checkpoints.answer("w", "answer", b"yes")  # which anybody may
            _fill(other, "w", 3, 4)
            assert other.checkpoints.keys("w", [""]) == {"a", "answer"}
            assert other.checkpoints.read("w") == {"a": b"1", "answer": b"yes"}
            assert _offsets(one, "w") == [1, 2, 3, 4]

    def test_who_slept_too_long_finds_its_run_taken(self) -> None:
        if self.lease is None:
            return
        with self._stores(1) as (store, opener), OtherProcess(opener) as process:
            process.signal(signal.SIGSTOP)
            _until(lambda: not store.wait(1 << 40, 0.01) and _status(store, "kept") != "running")
            entry = store.checkpoints.resume("kept")
            store.append(event("kept", entry.last + 1, _RESUMED))
            store.flush()
            process.signal(signal.SIGCONT)
            errors = process.write_on()
            assert errors == {"plain": "LogError", "kept": "LogError"}
            assert _offsets(store, "kept") == [1, 2, 3]
            assert _offsets(store, "plain") == [1, 2, 3]
            assert store.read(workflow_id="plain")[-1].type is _FAILED


# --- helpers --------------------------------------------------------------------------------


def _fill(store: EventStore, workflow_id: str, first: int, last: int) -> None:
    for n in range(first, last + 1):
        store.append(event(workflow_id, n))
    store.flush()


def _offsets(store: EventStore, workflow_id: str) -> List[int]:
    return [one.offset for one in store.read(workflow_id=workflow_id)]


def _status(store: EventStore, workflow_id: str) -> Optional[str]:
    state = store.run(workflow_id)
    return None if state is None else state.status


def _succeeds(act: Callable[[], object]) -> bool:
    try:
        act()
    except LogError:
        return False
    return True


def _until(true: Callable[[], object]) -> None:
    """Wait until something is so, with a bound."""
    end, pause = time.monotonic() + _PATIENCE, threading.Event()
    while not true():
        assert time.monotonic() < end, "it did not come to be"
        pause.wait(0.01)


def _fork(act: Callable[[], object]) -> int:
    """The exit status of a forked child that does something."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of Python 3.12: there are threads
        child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    code = 1
    try:
        act()
        code = 0
    except AssertionError:
        code = 2
    finally:
        os._exit(code)


def _be_the_child(store: EventStore) -> None:
    refused(lambda: store.append(event("parent", 7)))
    store.claim("child")
    _fill(store, "child", 1, 5)
    found: List[Event] = store.read(workflow_id="child")
    assert len(found) == 5
    store.close()
