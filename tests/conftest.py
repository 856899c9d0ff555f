"""Shared fixtures, and the check that no test leaves a thread or a descriptor behind.

Whatever is new after a test and still there two seconds and a gc later fails it.
What a module- or session-scoped fixture opened is its own business; a test that
must leave something says `@pytest.mark.leak_exempt`.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import tempfile
import threading
import time
from collections import Counter
from typing import Any, Counter as CounterType, Iterator, List, Set

import pytest

from agentstream import Runtime
from agentstream.testing import ScriptedServer
from tests.kit.cli_support import cli, here  # noqa: F401
from tests.kit.fixtures_llama import llama_server, llama_tool_server  # noqa: F401
from tests.kit.secret_hunt import no_secrets, secret_hunt  # noqa: F401
from tests.kit.workflow_support import cast  # noqa: F401

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Started in the background of a shell without job control: the programs that the tests
    # start would inherit that, and no Ctrl-C would reach them.
    signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # by nohup, likewise

if os.environ.pop("PYTHONDONTWRITEBYTECODE", None):
    # Hundreds of interpreters are started, and each would compile the package anew.  The tree
    # stays as it was asked to be.
    _bytecode = tempfile.TemporaryDirectory(prefix="agentstream-bytecode-")
    os.environ["PYTHONPYCACHEPREFIX"] = _bytecode.name

SETTLE = 2.0  # seconds

# Started once a process, on first use, and meant to stay.
ALLOWED_THREADS = {"agentstream-clock"}

#: The marks of tests that need more than Python.
REAL_PARTS = ("real_llama", "real_mcp", "browser")
_FIRST = ("recipes", "cli", "local", "faults", "web", "runtime", "events")

_FAILED = pytest.StashKey[bool]()
_EXEMPT = pytest.StashKey["Held"]()


class Held:
    """The threads and the descriptors of this process at one moment."""

    def __init__(self, threads: Set[threading.Thread], descriptors: CounterType[str]) -> None:
        self.threads = threads
        self.descriptors = descriptors

    @classmethod
    def now(cls) -> Held:
        threads = {
            thread
            for thread in threading.enumerate()
            # Dummies stand for threads of C code; they never go.
            if not isinstance(thread, threading._DummyThread)
            and thread.name not in ALLOWED_THREADS
            and not thread.name.startswith("pytest")
        }
        return cls(threads, _descriptors())

    def beyond(self, other: Held) -> Held:
        return Held(self.threads - other.threads, self.descriptors - other.descriptors)

    def add(self, other: Held) -> None:
        self.threads |= other.threads
        self.descriptors += other.descriptors

    def names(self) -> List[str]:
        return sorted(repr(t) for t in self.threads) + sorted(self.descriptors.elements())


def _descriptors() -> CounterType[str]:
    """What is open, as /proc names it ("socket:[81234]"); nothing where there is no /proc."""
    found: CounterType[str] = Counter()
    try:
        numbers = os.listdir("/proc/self/fd")
    except OSError:
        return found
    for number in numbers:
        with contextlib.suppress(OSError):  # the listing's own is closed by now
            found[os.readlink(f"/proc/self/fd/{number}")] += 1
    return found


def _leaks(before: Held, exempt: Held) -> Held:
    end = time.monotonic() + SETTLE
    while True:
        leaks = Held.now().beyond(before).beyond(exempt)
        if not leaks.names() or time.monotonic() >= end:
            return leaks
        gc.collect()
        for thread in leaks.threads:
            thread.join(0.02)
        threading.Event().wait(0.005)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "leak_exempt: may leave threads and descriptors behind")
    config.stash[_EXEMPT] = Held(set(), Counter())
    # pytest-xdist would hand out the files by their number of tests; the slow ones have few.
    config.option.loadscopereorder = False
    # In CI a busy machine may fail what is right: a second look, told as a rerun at the end.
    if os.environ.get("CI") and config.pluginmanager.hasplugin("rerunfailures"):
        config.option.reruns = 1
        config.option.reruns_delay = 1
        config.option.rerun_except = ["the test leaked"]
        config.option.reportchars += "R"


def _slow(item: pytest.Item) -> int:
    """How early a test's file is handed out: what starts models, browsers and programs first."""
    room = item.path.relative_to(item.config.rootpath).parts[1]
    return _FIRST.index(room) if room in _FIRST else len(_FIRST)


def pytest_collection_modifyitems(config: pytest.Config, items: List[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):  # one of the processes that share the suite
        real = {i.path for i in items for name in REAL_PARTS if i.get_closest_marker(name)}
        items.sort(key=lambda item: (item.path not in real, _slow(item)))
    # Processes that share the suite (pytest-xdist) must call a test by one name.
    changing = [item.nodeid for item in items if " at 0x" in item.nodeid]
    if changing:
        raise pytest.UsageError(f"a test's id must not hold an address: {changing[0]}")


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()  # the collections to come need not walk through seven thousand tests each time


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: Any, request: Any) -> Any:
    """Exempt what a fixture of higher scope opens, though a test asks for it half-way."""
    if fixturedef.scope == "function":
        return (yield)
    before = Held.now()
    try:
        return (yield)
    finally:
        request.config.stash[_EXEMPT].add(Held.now().beyond(before))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: Any) -> Any:
    report = yield
    if report.failed:
        item.stash[_FAILED] = True
    return report


@pytest.fixture(autouse=True)
def no_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    if request.node.get_closest_marker("leak_exempt"):
        yield
        return
    before = Held.now()
    yield
    if _FAILED in request.node.stash:  # its traceback may hold anything
        return
    leaks = _leaks(before, request.config.stash[_EXEMPT]).names()
    if leaks:
        pytest.fail("the test leaked: " + ", ".join(leaks), pytrace=False)


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        yield server


@pytest.fixture
def runtime() -> Iterator[Runtime]:
    with Runtime() as runtime:
        yield runtime


@pytest.fixture
def tls_server() -> Iterator[ScriptedServer]:
    with ScriptedServer(tls=True) as server:
        yield server
