"""What a setting must be: from a text of the environment, or a value of the config file, to it."""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Tuple

from agentstream import checks
from agentstream.cli.fallback import named_in
from agentstream.cli.log_place import check_log
from agentstream.cli.rate import rate_in
from agentstream.cli.table import Setting, find
from agentstream.errors import ConfigError
from agentstream.text import is_encodable

__all__ = ["as_prices", "checked", "known", "parsed"]

#: The most of those that are numbers: a century, and as many tries as a flag takes.
_MOST = {"deadline": checks.LONGEST_S, "log_days": checks.LONGEST_S / 86_400, "retries": 999_999}
_UNITS = {"deadline": "seconds", "log_days": "days"}


def _are_texts(values: List[Any]) -> bool:
    return all(isinstance(value, str) for value in values)


#: What a value of each kind must be.
_FITS: Dict[Any, Tuple[str, Callable[[Any], bool]]] = {
    str: ("a text", lambda value: isinstance(value, str)),
    bool: ("true or false", lambda value: isinstance(value, bool)),
    float: ("a number", checks.is_number),
    int: ("a whole number", checks.is_whole),
    dict: ("a table", lambda value: isinstance(value, dict)),
    list: ("a list of texts", lambda value: isinstance(value, list) and _are_texts(value)),
}
_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


def known(name: str) -> Setting:
    """The setting of that name."""
    found = find(name)
    assert found is not None, name
    return found


def parsed(name: str, text: str, where: str) -> Any:
    """A setting's value from its text; `where` it stands.

    Raises:
        ConfigError: it is none.
    """
    kind = known(name).kind
    if not is_encodable(text):
        raise ConfigError(f"{where} is not UTF-8")
    if kind is bool:
        if text.lower() in _TRUE + _FALSE:
            return text.lower() in _TRUE
        raise ConfigError(f"{where} must be 1 or 0")
    if kind is str:
        return text
    if kind is dict:
        return _table(text, where)
    if kind is list:
        return [part.strip() for part in text.split(",") if part.strip()]
    if name == "deadline":
        seconds = checks.parse_time(text)
        if seconds is None:
            raise ConfigError(f"{where} must be seconds above 0, or 10m, or 2h")
        return seconds
    try:
        return kind(text)
    except ValueError:
        raise ConfigError(f"{where} must be a number, not {text[:40]!r}") from None


def _table(text: str, where: str) -> Any:
    """A table as the environment has it: a JSON object."""
    import json  # noqa: PLC0415 - few need it

    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise ConfigError(f"{where} must be a JSON object") from None


def checked(name: str, value: Any, where: str) -> Any:
    """A setting's value, if it can be that.

    Raises:
        ConfigError: it cannot.
    """
    said, fits = _FITS[known(name).kind]
    if not fits(value):
        raise ConfigError(f"{where} must be {said}")  # no value: it may be a key
    if name == "provider":
        _check_provider(where, value)
    elif name == "api":
        _check_api(where, value)
    elif name == "fallback":
        named_in(value, where)
    elif name == "prices":
        as_prices(value, where)
    elif name == "rate_limit" and rate_in(value) is None:
        raise ConfigError(f"{where} must be requests, as 60/m, 5/s or 1000/h")
    elif name == "budget_tokens":
        checks.whole(where, value, 1)
    elif name == "budget_cost":
        value = checks.number(where, value, 0)
    elif name in _UNITS:
        value = float(value)
        if not 0 < value <= _MOST[name]:
            most = f"{_MOST[name]:.0f} at most"
            raise ConfigError(f"{where} must be {_UNITS[name]} above 0, {most}, not {value:g}")
    elif name == "retries":
        checks.whole(where, value, 0, int(_MOST[name]))
    elif name == "base_url" and not value.startswith(("http://", "https://")):
        raise ConfigError(f"{where} must begin with http:// or https://")  # it may hold a key
    return check_log(where, value) if name == "log" else value


def _check_provider(where: str, value: str) -> None:
    from agentstream import providers  # noqa: PLC0415 - it brings the clients

    checks.one_of(where, value, providers.NAMES)


def as_prices(value: Any, where: str) -> Any:
    """The `Prices` of a table.

    Raises:
        ConfigError: it is none.
    """
    from agentstream.llm.prices import Prices  # noqa: PLC0415 - few have some

    try:
        return Prices(value)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def _check_api(where: str, value: str) -> None:
    from agentstream.llm.clients import APIS  # noqa: PLC0415 - as above

    checks.one_of(where, value, APIS)
