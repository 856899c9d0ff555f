"""JsonFormatter: a log record as one line of JSON, for what collects logs.

    {"time": "2026-11-27T18:30:00.250Z", "level": "INFO", "logger": "agentstream.run", ...}

Works with any logger's records; what `extra=` gave them are further keys.
"""

from __future__ import annotations

import datetime
import json
import logging
import re
from typing import Any, Dict, Iterable, Mapping, Optional

from agentstream.events.model import freeze
from agentstream.llm.secrets import Redactor
from agentstream.text import pattern, replace_surrogates, safe_repr

__all__ = ["JsonFormatter"]

#: Attributes of every record, which are no extras.
_OWN = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}
_KEYS = ("time", "level", "logger", "message", "exception", "stack")
#: What looks like a key, whoever wrote it: "sk-...", "Bearer ...", "?api_key=...".
_SECRET = pattern(
    r"(\bsk-[\w-]{4})[\w-]{4,}|(\b(?:bearer|basic)\s+)[\w.~+/=-]{8,}"
    r"|(\b[\w-]{0,40}(?:api[_-]?key|token|secret|password)[\"']?\s*[=:]\s*[\"']?)[^\s&\"',}]{4,}",
    re.IGNORECASE,
)
#: A key whose value is a secret, however it looks.
_SECRET_KEY = pattern(
    r"[\w-]{0,40}(?:api[_-]?key|token|secret|password|authorization|cookie)", re.IGNORECASE
)


class JsonFormatter(logging.Formatter):
    """Formats a record as one line: an object of JSON, in ASCII.

    Its keys: `time` (UTC, ISO 8601, milliseconds), `level`, `logger`, `message`, what `extra=`
    gave, and where there is one `exception`: {`type`, `message`, `traceback`}, or `stack`.
    What JSON lacks is written as events have it, by its repr in the end.  What looks like a
    key, or is named as one (`api_key`, `token`, `password` ...), is masked, and so are `secrets`.

    It may be named in a `logging.config.dictConfig`, as `"class"` or as `"()"`.

    Args:
        fmt, datefmt, style, validate: of every formatter, and of no use here.
        secrets: texts that no line may hold.
        static: keys that every line has, {"service": "digest"} say.
    """

    def __init__(
        self,
        fmt: Optional[str] = None,
        datefmt: Optional[str] = None,
        style: str = "%",
        validate: bool = True,
        *,
        secrets: Iterable[str] = (),
        static: Optional[Mapping[str, Any]] = None,
        **_: object,
    ) -> None:
        super().__init__()
        self._redact = Redactor(keys=list(secrets))
        self._static = dict(static or {})

    def format(self, record: logging.LogRecord) -> str:
        """The line; never raises for what a record holds."""
        line: Dict[str, Any] = {
            "time": _time(record.created),
            "level": record.levelname,
            "logger": record.name,
            "message": self._masked(_message(record)),
            **self._static,
        }
        for key, value in vars(record).items():
            if key not in _OWN:
                line[f"{key}_" if key in _KEYS else key] = self._cleaned(_plain(value), key)
        if record.exc_info and record.exc_info[0] is not None:
            line["exception"] = self._exception(record)
        elif record.exc_text:
            line["exception"] = {"traceback": self._masked(record.exc_text)}
        if record.stack_info:
            line["stack"] = self._masked(record.stack_info)
        return json.dumps(line, default=safe_repr)

    def _exception(self, record: logging.LogRecord) -> Dict[str, str]:
        assert record.exc_info is not None
        kind, error, _ = record.exc_info
        told = {"type": kind.__name__ if kind is not None else "", "message": _said(error)}
        try:
            told["traceback"] = self.formatException(record.exc_info)
        except Exception:  # noqa: BLE001 - of an error that cannot be written
            told["traceback"] = ""
        return {key: self._masked(value) for key, value in told.items()}

    def _cleaned(self, value: Any, key: str = "") -> Any:
        """The JSON value of a key, whose texts are masked."""
        if isinstance(value, str):
            return "…" if value and _SECRET_KEY.fullmatch(key) else self._masked(value)
        if isinstance(value, Mapping):
            return {inner: self._cleaned(item, inner) for inner, item in value.items()}
        return [self._cleaned(item, key) for item in value] if isinstance(value, tuple) else value

    def _masked(self, text: str) -> str:
        return _SECRET.sub(_mask, self._redact(replace_surrogates(text)))


def _mask(found: re.Match[str]) -> str:
    return (found[1] or found[2] or found[3]) + "…"


def _time(created: float) -> str:
    at = datetime.datetime.fromtimestamp(created, datetime.timezone.utc)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001 - arguments that do not fit, or cannot be written
        return f"{safe_repr(record.msg)} {safe_repr(record.args)}"


def _said(error: object) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - somebody else's __str__
        return ""


def _plain(value: Any) -> Any:
    """A value as JSON has it."""
    try:
        return freeze(value)
    except Exception:  # noqa: BLE001 - it contains itself, or raises when it is looked at
        return safe_repr(value, 1000)
