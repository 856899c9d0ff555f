"""Where two JSON values differ, path by path.  Pure."""

from __future__ import annotations

import json
from typing import Any, Iterator, List, NamedTuple

__all__ = ["ABSENT", "Difference", "differences"]

#: So much of a value is shown.
_SHOWN = 60


class _Absent:
    """What is not there at all."""

    def __repr__(self) -> str:
        return "nothing"


ABSENT = _Absent()


class Difference(NamedTuple):
    """One place where a request is not the recorded one.

    Attributes:
        path: as in "body.messages[1].content".
        recorded, asked: what stands there; `ABSENT` for nothing.
    """

    path: str
    recorded: Any
    asked: Any

    def __str__(self) -> str:
        return f"{self.path}: recorded {_shown(self, 1)}, asked {_shown(self, 2)}"


def differences(recorded: Any, asked: Any, path: str = "") -> List[Difference]:
    """All of them, in the order of the recorded value."""
    return list(_walk(recorded, asked, path))


def _walk(recorded: Any, asked: Any, path: str) -> Iterator[Difference]:
    if isinstance(recorded, dict) and isinstance(asked, dict):
        for name in [*recorded, *(name for name in asked if name not in recorded)]:
            inner = f"{path}.{name}" if path else str(name)
            yield from _walk(recorded.get(name, ABSENT), asked.get(name, ABSENT), inner)
    elif isinstance(recorded, list) and isinstance(asked, list):
        for place in range(max(len(recorded), len(asked))):
            one, other = (
                each[place] if place < len(each) else ABSENT for each in (recorded, asked)
            )
            yield from _walk(one, other, f"{path}[{place}]")
    elif type(recorded) is not type(asked) or recorded != asked:
        yield Difference(path, recorded, asked)


def _shown(difference: Difference, which: int) -> str:
    """A value for people; of two long texts, from a little before the place where they part."""
    value, other = difference[which], difference[3 - which]
    if value is ABSENT:
        return repr(value)
    text = json.dumps(value, ensure_ascii=False)
    if len(text) <= _SHOWN:
        return text
    begin = 0
    if isinstance(value, str) and isinstance(other, str):
        same = next((at for at, (a, b) in enumerate(zip(value, other)) if a != b), len(other))
        begin = max(0, min(same - _SHOWN // 3, len(value) - 1))
        text = json.dumps(value[begin:], ensure_ascii=False)
    before = "..." if begin else ""
    return before + (text if len(text) <= _SHOWN else text[:_SHOWN] + "...")
