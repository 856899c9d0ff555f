"""Hunts the marked key and prompt through every error, log line and event of the whole suite.

conftest imports the two fixtures.  An error is looked at as it is made, attribute
by attribute, an event as it is published, a log record as it is formatted: so what
a test swallows is seen too, and nothing is kept alive.
"""

from __future__ import annotations

import contextlib
import logging
import traceback
from typing import Any, Iterator, List

import pytest

from agentstream.errors import AgentStreamError
from agentstream.events.stream import EventStream
from tests.kit.support import MARKS

LOGGERS = ("agentstream", "urllib3", "requests", "sseclient", "py.warnings")

_found: List[str] = []
_hunting = False


def look(where: str, text: object, depth: int = 0) -> None:
    """Note it if a mark is in `text`, or among the values of a container."""
    if isinstance(text, bytes):
        text = text.decode("latin-1")
    if isinstance(text, str):
        for mark in MARKS:
            if mark in text:
                _found.append(f"{mark} in {where}: {text[:300]!r}")
    elif isinstance(text, (dict, list, tuple)) and depth < 20:  # some contain themselves
        for item in text.values() if isinstance(text, dict) else text:
            look(where, item, depth + 1)


class _Look(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        look(f"the log {record.name}", record.getMessage())
        if record.exc_info and record.exc_info[1] is not None:
            look(f"the log {record.name}", "".join(traceback.format_exception(*record.exc_info)))


@contextlib.contextmanager
def hunting() -> Iterator[List[str]]:
    """Look at everything meanwhile; yields the list of what is found, and nobody else is told."""
    global _found, _hunting
    outer, _found, was = _found, [], _hunting
    try:
        if _hunting:
            yield _found
        else:
            _hunting = True
            with _watched():
                yield _found
    finally:
        _found, _hunting = outer, was


@contextlib.contextmanager
def _watched() -> Iterator[None]:
    errors: Any = AgentStreamError
    streams: Any = EventStream
    made, published = errors.__init__, streams._publish

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        look(type(self).__name__, args)
        made(self, *args, **kwargs)

    def __setattr__(self: Any, name: str, value: Any) -> None:
        look(f"{type(self).__name__}.{name}", value)
        Exception.__setattr__(self, name, value)

    def _publish(self: Any, log: Any, kind: Any, data: Any) -> Any:
        event = published(self, log, kind, data)
        if event is not None:
            look(f"the event {kind}", event.data)
        return event

    handler = _Look()
    loggers = [logging.getLogger(name) for name in LOGGERS]
    ours = loggers[0]
    level = ours.level
    errors.__init__, errors.__setattr__, streams._publish = __init__, __setattr__, _publish
    for logger in loggers:
        logger.addHandler(handler)
    ours.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        errors.__init__, streams._publish = made, published
        del errors.__setattr__
        for logger in loggers:
            logger.removeHandler(handler)
        ours.setLevel(level)


@pytest.fixture(scope="session", autouse=True)
def secret_hunt() -> Iterator[None]:
    with hunting():
        yield


@pytest.fixture(autouse=True)
def no_secrets(secret_hunt: None) -> Iterator[List[str]]:
    """Fail the test that let a marked secret out; a test that means to takes it and clears it."""
    _found.clear()
    yield _found
    if _found:
        pytest.fail("a secret got out: " + "; ".join(_found[:5]), pytrace=False)
