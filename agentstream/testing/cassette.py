"""A cassette: recorded exchanges in a JSONL file, for people to read and for diffs.

The first line says what it is.  An exchange is some lines, one after the other: its request,
the answer's head, each line of the stream as it came (`at`: seconds since the request), and
the end.  They are written together once the exchange is over, so that those of other
threads do not come between; a file that ends in the middle of one loses that one.

    {"cassette": 1, "client": {"provider": "llama", "model": "default", ...}}
    {"request": 1, "method": "POST", "path": "/v1/chat/completions", "body": {...}}
    {"answer": 200, "headers": {"content-type": "text/event-stream"}, "at": 0.2}
    {"line": "data: {...}", "at": 0.213}
    {"end": "whole", "at": 0.9}
"""

from __future__ import annotations

import base64
import json
import logging
import os
import re
import threading
from collections import deque
from typing import Any, Deque, Dict, Iterator, List, Optional, Tuple

from agentstream.errors import AgentStreamError, ConfigError
from agentstream.testing.differences import Difference, differences

__all__ = ["Cassette", "NotRecorded", "Taped"]

logger = logging.getLogger("agentstream.testing")

VERSION = 1
#: An id that the library gave a call of a server that gave none: another one each time.
_OWN_ID = re.compile(r"call_[0-9a-f]{24}")
#: So many differences are told in words.
_TOLD = 5


class NotRecorded(AgentStreamError, LookupError):
    """A request is none of those that were recorded, or was made more often than them.

    Attributes:
        request: {"method", "path", "body"}.
        nearest: the number of the recorded request that is most like it; None if there is none.
        differences: where it is not that one, each with `path`, `recorded` and `asked`.
        used: True if it was recorded, and each recording of it has been replayed.
    """

    def __init__(
        self,
        message: str,
        *,
        request: Dict[str, Any],
        nearest: Optional[int] = None,
        differences: Tuple[Difference, ...] = (),
        used: bool = False,
    ) -> None:
        super().__init__(message, phase="connect")
        self.request = request
        self.nearest = nearest
        self.differences = differences
        self.used = used


class Taped:
    """One exchange.

    Attributes:
        request: {"method", "path", "body"}.
        steps: what followed, as the file's lines have it: the answer, lines or text, the end.
        number: its place in the file, from 1.
    """

    def __init__(self, request: Dict[str, Any], number: int = 0) -> None:
        self.request = request
        self.steps: List[Dict[str, Any]] = []
        self.number = number

    @property
    def key(self) -> str:
        """What is the same for equal requests."""
        return _without_own_ids(json.dumps(self.request, sort_keys=True))

    def lines(self) -> Iterator[str]:
        """The file's lines."""
        for step in ({"request": self.number, **self.request}, *self.steps):
            yield json.dumps(step, ensure_ascii=False) + "\n"


class Cassette:
    """The exchanges of a file.  Any thread may use it.

    Args:
        path: the file's.
        known: keep what the file holds; else it begins anew, and replaces the file only
            when it is closed with something in it.

    Attributes:
        client: whose exchanges they are: the keywords of `providers.make_client`; {} if
            that is not known.

    Raises:
        ConfigError: the file cannot be read, or is no cassette.
    """

    def __init__(self, path: str, *, known: bool) -> None:
        self.path = path
        self._known = known
        self._lock = threading.Lock()
        self.client: Dict[str, Any] = {}
        self._tapes: List[Taped] = []
        if known:
            self.client, self._tapes = _read(path)
        self._left: Dict[str, Deque[Taped]] = {}
        for taped in self._tapes:
            self._left.setdefault(taped.key, deque()).append(taped)
        self._changed = False

    def __len__(self) -> int:
        return len(self._tapes)

    def take(self, request: Dict[str, Any]) -> Optional[Taped]:
        """The next recording of a request that has not been replayed; None if there is none."""
        with self._lock:
            left = self._left.get(Taped(request).key)
            return left.popleft() if left else None

    def missing(self, request: Dict[str, Any]) -> NotRecorded:
        """The error for a request that `take` does not know."""
        what = f"{request['method']} {request['path']}"
        if Taped(request).key in self._left:
            said = f"{what} was made more often than {self.path} has it"
            return NotRecorded(said, request=request, used=True)
        nearest = min(
            ((differences(_comparable(t.request), _comparable(request)), t) for t in self._tapes),
            key=lambda pair: len(pair[0]),
            default=None,
        )
        if nearest is None:
            said = f"{what} is not recorded: {self.path} holds no request (record=True records)"
            return NotRecorded(said, request=request)
        found, taped = nearest
        told = "; ".join(map(str, found[:_TOLD]))
        more = f"; and {len(found) - _TOLD} more" if len(found) > _TOLD else ""
        return NotRecorded(
            f"{what} is not recorded in {self.path}; number {taped.number} is most like it, but for"
            f" {told}{more}",
            request=request,
            nearest=taped.number,
            differences=tuple(found),
        )

    def add(self, taped: Taped) -> None:
        """Keep an exchange that is over."""
        with self._lock:
            taped.number = len(self._tapes) + 1
            self._tapes.append(taped)
            self._changed = True

    def close(self) -> None:
        """Write what was added.  Idempotent.

        Raises:
            ConfigError: the file cannot be written.
        """
        with self._lock:
            if not self._changed:
                return
            self._changed = False
            beside = f"{self.path}.{os.getpid()}.new"
            try:
                os.makedirs(os.path.dirname(self.path), exist_ok=True)
                with open(beside, "w", encoding="utf-8", newline="\n") as file:
                    file.write(json.dumps({"cassette": VERSION, "client": self.client}) + "\n")
                    for taped in self._tapes:
                        file.writelines(taped.lines())
                os.replace(beside, self.path)
            except OSError as error:
                raise ConfigError(
                    f"the cassette {self.path} cannot be written: {error.strerror}"
                ) from None


def text_of(line: bytes) -> Dict[str, str]:
    """A line as JSON can hold it."""
    try:
        return {"line": line.decode()}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(line).decode()}


def bytes_of(step: Dict[str, Any]) -> bytes:
    """The line that `text_of` was given."""
    if "base64" in step:
        return base64.b64decode(step["base64"])
    return str(step["line"]).encode()


def _comparable(request: Dict[str, Any]) -> Any:
    return json.loads(_without_own_ids(json.dumps(request)))


def _without_own_ids(text: str) -> str:
    """The text with the ids that the library gave numbered in their order."""
    seen: Dict[str, str] = {}

    def number(found: re.Match[str]) -> str:
        return seen.setdefault(found.group(), f"call_{len(seen) + 1}")

    return _OWN_ID.sub(number, text)


def _read(path: str) -> Tuple[Dict[str, Any], List[Taped]]:
    """Whose exchanges a file holds, and those; nothing of a file that is not there.

    Raises:
        ConfigError: it cannot be read, or is no cassette.
    """
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.read().split("\n")
    except FileNotFoundError:
        return {}, []
    except OSError as error:
        raise ConfigError(f"the cassette {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is no cassette: it is not UTF-8") from None
    client = _client_in(path, lines[0])
    return client, _tapes_in(path, lines)


def _tapes_in(path: str, lines: List[str]) -> List[Taped]:
    tapes: List[Taped] = []
    taped: Optional[Taped] = None
    for number, line in enumerate(lines[1:], 2):
        if not line.strip():
            continue
        step = _step(line)
        if step is None and any(map(str.strip, lines[number:])):
            raise ConfigError(f"{path}, line {number}: that is no line of a cassette")
        if step is None:
            break
        if "request" in step:
            request = {name: step.get(name) for name in ("method", "path", "body")}
            taped = Taped(request, len(tapes) + 1)
        elif taped is None:
            raise ConfigError(f"{path}, line {number}: no request comes before it")
        elif not _follows(step, taped):
            raise ConfigError(f"{path}, line {number}: that does not belong there")
        else:
            taped.steps.append(step)
            if "end" in step:
                tapes.append(taped)
                taped = None
    else:
        if taped is None:
            return tapes
    logger.warning("the cassette %s ends in the middle of an exchange, which is left out", path)
    return tapes


def _client_in(path: str, line: str) -> Dict[str, Any]:
    """Whose exchanges they are, by a file's first line."""
    head = _step(line) or {}
    if "cassette" not in head:
        raise ConfigError(f"{path} is no cassette: its first line does not say so")
    if head["cassette"] != VERSION:
        raise ConfigError(
            f"{path} is a cassette of form {head['cassette']}, and this is {VERSION}:"
            " record it anew"
        )
    client = head.get("client")
    return client if isinstance(client, dict) else {}


def _follows(step: Dict[str, Any], taped: Taped) -> bool:
    """True if a line may come behind those of `taped`: the answer first, or its end."""
    if not isinstance(step.get("at", 0.0), (int, float)):
        return False
    if "end" in step:
        needed = {"expired": "clock", "failed": "error", "broken": "why"}.get(step["end"], "end")
        return isinstance(step.get(needed), str)
    if not taped.steps:
        return isinstance(step.get("answer"), int) and isinstance(step.get("headers"), dict)
    return any(isinstance(step.get(name), str) for name in ("line", "base64", "text"))


def _step(line: str) -> Optional[Dict[str, Any]]:
    try:
        step = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return step if isinstance(step, dict) else None
