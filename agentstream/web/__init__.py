"""The event stream over HTTP: a WSGI app, its page, and the client that follows remote runs.

Needs the extra `server` (werkzeug, waitress) but for `follow` and `runs`, which need nothing more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agentstream.web.client import follow, runs

if TYPE_CHECKING:
    from agentstream.web.app import App, create_app
    from agentstream.web.registered import Registered

__all__ = ["App", "Registered", "create_app", "follow", "runs"]


def __getattr__(name: str) -> Any:
    if name in ("App", "Registered", "create_app"):
        from agentstream.web import app  # noqa: PLC0415 - only a server needs werkzeug

        return getattr(app, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
