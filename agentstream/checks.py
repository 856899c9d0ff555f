"""What a setting must be: the checks that stand behind every constructor and every file.

Each returns the value or raises a `ConfigError` that carries the setting's name and
the reason apart, so that whoever read the setting from somewhere else (a file, the
environment, a flag) can name it in their own words.
"""

from __future__ import annotations

import math
from typing import Any, Iterable, Optional, Type, TypeVar, Union

from agentstream.errors import ConfigError

__all__ = ["flag", "instance", "number", "one_of", "seconds", "text", "whole"]

T = TypeVar("T")

#: The longest time a clock takes: a century.  Longer ones are as good as none.
LONGEST_S = 3.2e9


def whole(name: str, value: Any, least: int = 0, most: Optional[int] = None) -> int:
    """A whole number from `least` to `most`.

    Raises:
        ConfigError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigError.about(name, f"must be a whole number, not {_shown(value)}")
    _check_range(name, value, least, most)
    return value


def number(
    name: str, value: Any, least: float = -math.inf, most: float = math.inf
) -> Union[int, float]:
    """A finite number from `least` to `most`.

    Raises:
        ConfigError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not _finite(value):
        raise ConfigError.about(name, f"must be a number, not {_shown(value)}")
    _check_range(name, value, least, most)
    return value


def seconds(name: str, value: Any, *, optional: bool = False, zero: bool = False) -> Any:
    """A time in seconds, above zero (`zero`: or zero itself), at most `LONGEST_S`.

    With `optional`, None passes as it is.  A time beyond `LONGEST_S` comes back as that.

    Raises:
        ConfigError: it is none.
    """
    if value is None and optional:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or math.isnan(value):
        raise ConfigError.about(name, f"must be a number of seconds, not {_shown(value)}")
    if value < 0 or (value == 0 and not zero):
        least = "0 or more" if zero else "above 0"
        raise ConfigError.about(name, f"must be {least} seconds, not {value!r}")
    return min(value, LONGEST_S)


def text(name: str, value: Any, *, empty: bool = False) -> str:
    """A str, not an empty one unless `empty`.

    Raises:
        ConfigError: it is none.
    """
    if not isinstance(value, str):
        raise ConfigError.about(name, f"must be a str, not {type(value).__name__}")
    if not value and not empty:
        raise ConfigError.about(name, "must not be empty")
    return value


def flag(name: str, value: Any) -> bool:
    """True or False.

    Raises:
        ConfigError: it is neither.
    """
    if not isinstance(value, bool):
        raise ConfigError.about(name, f"must be True or False, not {_shown(value)}")
    return value


def one_of(name: str, value: Any, choices: Iterable[Any]) -> Any:
    """One of `choices`.

    Raises:
        ConfigError: it is none of them.
    """
    known = list(choices)
    if value not in known:
        raise ConfigError.about(
            name, f"must be one of {', '.join(map(str, known))}, not {_shown(value)}"
        )
    return value


def instance(name: str, value: Any, kind: Type[T]) -> T:
    """An instance of `kind`.

    Raises:
        ConfigError: it is none.
    """
    if not isinstance(value, kind):
        article = "an" if kind.__name__[:1] in "AEIOU" else "a"
        raise ConfigError.about(
            name, f"must be {article} {kind.__name__}, not {type(value).__name__}"
        )
    return value


def _finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an int of hundreds of digits
        return False


def _check_range(name: str, value: float, least: float, most: Optional[float]) -> None:
    if most is not None and most != math.inf and not least <= value <= most:
        raise ConfigError.about(name, f"must be from {least} to {most}, not {_shown(value)}")
    if value < least:
        raise ConfigError.about(name, f"must be {least} or more, not {_shown(value)}")


def _shown(value: Any) -> str:
    """A value as a message may show it: numbers as they are, of others only the type."""
    if value is None or isinstance(value, (bool, float)):
        return repr(value)
    if isinstance(value, int):
        return repr(value) if -(10**18) < value < 10**18 else "one of so many digits"
    return f"a {type(value).__name__}"
