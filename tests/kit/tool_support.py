"""Tools to test with: one of any annotation, and types that annotations name."""

from __future__ import annotations

import dataclasses
import enum
from typing import Any

from agentstream.tools import Tool, tool


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


@dataclasses.dataclass
class Point:
    x: float
    y: float = 0.5
    color: Color = Color.RED

    def __post_init__(self):
        if self.x < 0:
            raise ValueError("x lies left of the map")


def taking(annotation: Any, **default: Any) -> Tool:
    """A tool that gives back its one argument, x."""

    def echo(x):
        return x

    if default:
        echo.__defaults__ = (default["default"],)
    echo.__annotations__["x"] = annotation
    return tool(echo)


def bound(annotation: Any, text: str) -> Any:
    return taking(annotation).bind(f'{{"x": {text}}}')["x"]


NULL = {"type": "null"}
TEXT = {"type": "string"}
INTEGER = {"type": "integer"}


def made(annotation: Any) -> Tool:
    def probe(x):
        pass

    probe.__annotations__["x"] = annotation
    return tool(probe)
