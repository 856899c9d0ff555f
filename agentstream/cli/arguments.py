"""What an argument must be: from its text to its value, or to the line that says why not.

For argparse's `type`: each raises `argparse.ArgumentTypeError`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
from typing import Any, Dict, Tuple

from agentstream import checks

__all__ = [
    "amount",
    "assignment",
    "count",
    "json_object",
    "json_or_text",
    "number",
    "path",
    "port",
    "seconds",
    "temperature",
    "text",
]


def seconds(given: str) -> float:
    """A time above 0: "600", "10m"."""
    found = checks.parse_time(given)
    if not found:
        raise argparse.ArgumentTypeError(f"{given!r} must be seconds above 0, or 10m, or 2h")
    return found


def temperature(given: str) -> float:
    """A number from 0 to 10."""
    try:
        found = float(given)
    except ValueError:
        found = -1.0
    if not 0 <= found <= 10:
        raise argparse.ArgumentTypeError(f"{given!r} must be a number from 0 to 10")
    return found


def amount(given: str) -> float:
    """A number from 0 on, of money."""
    try:
        found = float(given)
    except ValueError:
        found = -1.0
    if not 0 <= found < float("inf"):
        raise argparse.ArgumentTypeError(f"{given!r} must be a number from 0 on")
    return found


def number(given: str) -> int:
    """A whole number from 0 on."""
    if not re.fullmatch(r"[0-9]{1,6}", given):
        raise argparse.ArgumentTypeError(f"{given!r} must be a whole number from 0 on")
    return int(given)


def count(given: str) -> int:
    """A whole number from 1 on."""
    if not re.fullmatch(r"[0-9]{1,6}", given) or int(given) < 1:
        raise argparse.ArgumentTypeError(f"{given!r} must be a whole number from 1 on")
    return int(given)


def port(given: str) -> int:
    """The number of a port; 0 for any."""
    if not re.fullmatch(r"[0-9]{1,5}", given) or int(given) > 65535:
        raise argparse.ArgumentTypeError("a port is a number from 0 to 65535")
    return int(given)


def text(given: str) -> str:
    """UTF-8, whatever the locale: in that of cron, which is C, Python may take it for ASCII."""
    try:
        given.encode("utf-8")
        return given
    except UnicodeEncodeError:
        pass
    try:
        return os.fsencode(given).decode("utf-8")
    except UnicodeError:
        raise argparse.ArgumentTypeError("what is given is not UTF-8") from None


def path(given: str) -> str:
    """A path as the system has it, which must be UTF-8: it is shown, logged and sent."""
    text(given)
    return given


def assignment(given: str) -> Tuple[str, str]:
    """KEY=VALUE."""
    key, sign, value = text(given).partition("=")
    if not sign or not key.strip():
        raise argparse.ArgumentTypeError(f"{given!r} must be KEY=VALUE, as agents.writer.seed=1")
    return key.strip(), value


def json_object(given: str) -> Dict[str, Any]:
    """A JSON object."""
    try:
        found = _json(text(given))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"what is given is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise argparse.ArgumentTypeError('what is given is no JSON object, as {"path": "a.txt"}')
    return found


def json_or_text(given: str) -> Any:
    """What it is as JSON; what is no JSON is itself."""
    try:
        return _json(text(given))
    except ValueError:
        return text(given)


def _json(given: str) -> Any:
    """A JSON value as RFC 8259 has it: no NaN; raises ValueError if it is none."""
    try:
        return json.loads(given, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no JSON")
