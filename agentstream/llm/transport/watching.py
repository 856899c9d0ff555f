"""What is sent, shown to whoever asks for it in so many words; logs never have it.

with watching(print):
    client.chat("Hi")          # prints method, URL and body of each request
"""

from __future__ import annotations

import contextlib
from contextvars import ContextVar
from typing import Callable, Iterable, Iterator, Optional

from agentstream.llm.secrets import Redactor
from agentstream.llm.transport.urls import display_url

__all__ = ["show", "watching"]

#: Called with a request's method, its URL without secrets, and its body ("" for none).
Watcher = Callable[[str, str, str], object]

_watcher: ContextVar[Optional[Watcher]] = ContextVar("agentstream_request_watcher", default=None)


@contextlib.contextmanager
def watching(watcher: Watcher) -> Iterator[None]:
    """Tell `watcher` of each request of this context, and of the runs that it starts.

    The body is as it is sent, prompts and all, with the client's keys taken out.
    """
    token = _watcher.set(watcher)
    try:
        yield
    finally:
        _watcher.reset(token)


def show(url: str, body: Optional[bytes], secrets: Callable[[], Iterable[str]]) -> None:
    """Tell this context's watcher, if there is one, of a request that is about to be sent."""
    watcher = _watcher.get()
    if watcher is not None:
        text = "" if body is None else body.decode("utf-8", "replace")
        watcher("GET" if body is None else "POST", display_url(url), Redactor(secrets())(text))
