"""agentstream models: the models that a server offers."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

from agentstream.cli.exits import DONE
from agentstream.cli.output import Output
from agentstream.cli.settings import advise, open_client, setting
from agentstream.errors import AgentStreamError
from agentstream.text import strip_controls

if TYPE_CHECKING:
    import argparse

__all__ = ["models"]


def models(given: argparse.Namespace) -> int:
    """List their names; returns the exit code."""
    from agentstream.providers import DEFAULT, PROVIDERS  # noqa: PLC0415 - it brings the clients

    if not PROVIDERS[setting(given, "provider") or DEFAULT].model:
        given.model = "any"  # a client that has no default wants a name, and does not use it
    with contextlib.ExitStack() as stack:
        client = open_client(given, stack, fallback=False)
        try:
            names = client.models()
        except AgentStreamError as error:
            advise(error, given)
            raise
    output = Output(sys.stdout)
    if given.json:
        output.write_json(names)
    else:
        all(output.write(strip_controls(name) + "\n") for name in names)
    return DONE
