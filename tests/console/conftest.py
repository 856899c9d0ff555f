"""Fixtures of these tests: a feed of events, a terminal."""

from __future__ import annotations

from typing import Any, Iterator

import pytest

from tests.kit.screens import Feed, Terminal


@pytest.fixture
def feed() -> Feed:
    return Feed()


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch, request: Any) -> Iterator[Terminal]:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    terminal = Terminal(getattr(request, "param", 60))
    yield terminal
    if not terminal.files[0].closed:
        terminal.close()
