"""What a docstring says: its paragraphs before any section, a line for each parameter (pure).

Reads the three common ways to write parameters: Google ("Args:"), NumPy (an
underlined "Parameters") and reST (":param x:").  Never raises.
"""

from __future__ import annotations

import inspect
import re
from typing import Dict, List, NamedTuple, Optional

__all__ = ["Docstring", "description", "parse_docstring"]

_HEADER = re.compile(
    r"(?:args|arguments|parameters|params|keyword args|keyword arguments|other parameters"
    r"|attributes|returns?|yields?|raises|examples?|notes?|see also|warnings?)\s*:?\s*$",
    re.IGNORECASE,
)
_OURS = re.compile(
    r"(?:args|arguments|parameters|params|keyword args|keyword arguments|other parameters"
    r"|attributes)\s*:?\s*$",
    re.IGNORECASE,
)
_UNDERLINE = re.compile(r"\s*-{3,}\s*$")
_GOOGLE = re.compile(r"\*{0,2}(\w+)\s*(?:\(.*?\))?\s*:(?:\s+(.*)|)$")
_NUMPY = re.compile(r"(\*{0,2}\w+(?:\s*,\s*\*{0,2}\w+)*)\s*(?::.*)?$")
_REST = re.compile(
    r":(?:param|parameter|arg|argument|key|keyword)\s+(?:[^:]*\s)?\*{0,2}(\w+)\s*:\s*(.*)$"
)
_REST_ANY = re.compile(r":\w+(?:\s[^:]*)?:")


class Docstring(NamedTuple):
    """The parts of a docstring, each on one line.

    Attributes:
        summary: the first paragraph; "" if there is none.
        parameters: what is said of each parameter, by its name.
    """

    summary: str
    parameters: Dict[str, str]


def parse_docstring(text: Optional[str]) -> Docstring:
    """`text`, a docstring as Python holds it, in parts; empty ones for None."""
    lines = inspect.cleandoc(text or "").splitlines()
    parameters: Dict[str, List[str]] = {}
    for at, line in enumerate(lines):
        rest = _REST.match(line.strip())
        if rest:
            parameters[rest.group(1)] = [rest.group(2), *_deeper(lines, at, blanks=False)]
        elif _OURS.match(line.strip()):
            if _underlined(lines, at):
                _numpy(lines, at, parameters)
            elif line.rstrip().endswith(":"):
                _google(lines, at, parameters)
    joined = {name: " ".join(" ".join(said).split()) for name, said in parameters.items()}
    return Docstring(_paragraphs(lines)[0], {name: said for name, said in joined.items() if said})


def description(text: Optional[str]) -> str:
    """The paragraphs before any section, each on one line, with an empty line between them."""
    return "\n\n".join(filter(None, _paragraphs(inspect.cleandoc(text or "").splitlines())))


def _paragraphs(lines: List[str]) -> List[str]:
    paragraphs: List[List[str]] = [[]]
    for at, line in enumerate(lines):
        header = _HEADER.match(line) and (line.rstrip().endswith(":") or _underlined(lines, at))
        if header or _REST_ANY.match(line):
            break
        if line.strip():
            paragraphs[-1].append(line)
        else:
            paragraphs.append([])
    return [" ".join(" ".join(said).split()) for said in paragraphs]


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _underlined(lines: List[str], at: int) -> bool:
    return at + 1 < len(lines) and _UNDERLINE.match(lines[at + 1]) is not None


def _deeper(lines: List[str], at: int, *, blanks: bool) -> List[str]:
    """The lines after `at` that are indented more than it is."""
    taken: List[str] = []
    for line in lines[at + 1 :]:
        if not line.strip():
            if not blanks:
                break
        elif _indent(line) <= _indent(lines[at]):
            break
        taken.append(line)
    return taken


def _google(lines: List[str], at: int, parameters: Dict[str, List[str]]) -> None:
    # `cleandoc` leaves no indent under a docstring whose first line is the header.
    body = _deeper(lines, at, blanks=True) if at else lines[1:]
    first = next((_indent(line) for line in body if line.strip()), 0)
    current: List[str] = []
    for line in body:
        entry = _GOOGLE.match(line.strip()) if line.strip() and _indent(line) <= first else None
        if entry:
            current = parameters.setdefault(entry.group(1), [])
            current.append(entry.group(2) or "")
        else:
            current.append(line)


def _numpy(lines: List[str], at: int, parameters: Dict[str, List[str]]) -> None:
    level = _indent(lines[at])
    for number in range(at + 2, len(lines)):
        line = lines[number]
        if not line.strip() or _indent(line) > level:
            continue
        entry = _NUMPY.match(line.strip())
        if _indent(line) < level or _underlined(lines, number) or not entry:
            return
        for name in entry.group(1).split(","):
            parameters[name.strip(" *")] = _deeper(lines, number, blanks=True)
