"""docs/events.rst, made of the docstrings of agentstream.events.payloads.

python -m tests.kit.events_doc > docs/events.rst
"""

from __future__ import annotations

import inspect
import re
from typing import Any, Callable, Dict, Iterator, List, Tuple

from agentstream.events import payloads
from agentstream.events.holds import HOLDS
from agentstream.events.model import TERMINAL, Event, EventType

_INTRO = """\
Events
======

.. Made by ``python -m tests.kit.events_doc``: change agentstream/events/payloads.py instead.

An event is a value, the same on the bus, in the log, in the JSON lines of
``agentstream run --jsonl`` and in the streams of ``agentstream serve``:

"""
_BETWEEN = """
``data`` holds JSON values: what a key holds is said below for each type.  A key
with a condition in parentheses is there only then.  Further keys may come with
later versions; those listed stay.  Times that end in ``_ms`` are milliseconds,
in ``_s`` seconds.

"""
_SHARED = (payloads.run_end, payloads.step_head, payloads.author, payloads.tool_call,
           payloads.failure)  # fmt: skip
_KEY = re.compile(r"^(\w+)(?: \(([^)]*)\))?: (.*)$")


def keys(function: Callable[..., Any]) -> Dict[str, Tuple[str, str]]:
    """The keys that a payload's docstring lists: each one's condition ("" for none) and text."""
    _, _, listed = (inspect.getdoc(function) or "").partition("Holds:\n")
    found: Dict[str, Tuple[str, str]] = {}
    key = ""
    for line in inspect.cleandoc(listed).splitlines():
        match = _KEY.match(line)
        if match is not None:
            key = match[1]
            found[key] = match[2] or "", match[3]
        elif line.startswith("    "):
            found[key] = found[key][0], f"{found[key][1]} {line.strip()}"
        elif line:
            raise ValueError(f"{function.__name__}: what is {line!r}?")
    return found


def keys_of(kind: EventType) -> Tuple[set, set]:
    """The keys that the data of a type always holds, and those that it may hold."""
    always, sometimes = set(), set()
    for function in HOLDS[kind]:
        for key, (condition, _) in keys(function).items():
            (sometimes if condition else always).add(key)
    return always, sometimes


def text_of(function: Callable[..., Any]) -> str:
    """What a payload's docstring says before its keys."""
    return (inspect.getdoc(function) or "").partition("Holds:")[0].strip()


def _listed(function: Callable[..., Any]) -> Iterator[str]:
    for key, (condition, what) in keys(function).items():
        when = f" ({condition})" if condition else ""
        yield f"- ``{key}``{when}: {what}"


def _title(text: str, line: str) -> List[str]:
    return [text, line * len(text), ""]


def _attributes() -> Iterator[str]:
    _, _, listed = (inspect.getdoc(Event) or "").partition("Attributes:\n")
    for line in inspect.cleandoc(listed).splitlines():
        name, _, what = line.partition(": ")
        yield f"- ``{name}``: {what}"


def _shared() -> Iterator[str]:
    for function in _SHARED:
        name = function.__name__.replace("_", " ")
        yield from _title(name.capitalize(), "~")
        yield from (text_of(function), "", *_listed(function), "")


def _types() -> Iterator[str]:
    for kind, (own, *others) in HOLDS.items():
        yield from _title(kind.value, "~")
        yield text_of(own)
        if kind in TERMINAL:
            yield "It is the run's last event."
        yield ""
        if others:
            names = " and ".join(f"*{one.__name__.replace('_', ' ')}*" for one in others)
            yield from (f"The keys of {names}{', and:' if keys(own) else '.'}", "")
        yield from _listed(own)
        yield ""


def document() -> str:
    """The whole page."""
    parts = [_INTRO, "\n".join(_attributes()), "\n", _BETWEEN]
    parts.append("\n".join([*_title("Keys that several types hold", "-"), *_shared()]))
    parts.append("\n")
    parts.append("\n".join([*_title("The types", "-"), *_types()]))
    text = re.sub(r"(?<!`)`([^`]+)`(?!`)", r"``\1``", "".join(parts))
    return re.sub(r"\n{3,}", "\n\n", text).rstrip() + "\n"


if __name__ == "__main__":
    print(document(), end="")
