"""What a setting must be: the checks that stand behind every constructor and every file.

Each returns the value or raises a `ConfigError` that carries the setting's name and
the reason apart, so that whoever read the setting from somewhere else (a file, the
environment, a flag) can name it in their own words.  `of` names the setting's owner
in the message ("agent 'poet'"); with `optional`, None passes as it is.
"""

from __future__ import annotations

import functools
import math
import re
from typing import Any, Callable, Dict, Iterable, Mapping, Optional, Tuple, TypeVar

from agentstream.errors import ConfigError

__all__ = [
    "LONGEST_S",
    "fields",
    "flag",
    "function",
    "instance",
    "is_number",
    "is_whole",
    "keywords",
    "misnamed",
    "number",
    "one_of",
    "parse_time",
    "seconds",
    "text",
    "whole",
]


#: The longest time a clock takes: a century.  Longer ones are as good as none.
LONGEST_S = 3.2e9


_F = TypeVar("_F", bound=Callable[..., Any])


def keywords(
    hints: Mapping[str, str], *, more: Iterable[str] = (), otherwise: str = ""
) -> Callable[[_F], _F]:
    """A decorator: a keyword that the function does not take gets a sentence that helps.

    Args:
        hints: what to write instead, by the keywords that other libraries have.
        more: what the function takes besides its own parameters.
        otherwise: what to say of any other keyword; "{name}" stands for it.
    """

    def decorate(function: _F) -> _F:
        code = function.__code__
        own = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        known = [name for name in (*own, *more) if name != "self"]
        taken = frozenset(known)

        @functools.wraps(function)
        def checked(*args: Any, **named: Any) -> Any:
            for name in named:
                if name not in taken:
                    called = function.__qualname__.replace(".__init__", "").rpartition(".")[2]
                    raise misnamed(called, name, known, hints, otherwise)
            return function(*args, **named)

        return checked  # type: ignore[return-value]

    return decorate


def misnamed(
    called: str,
    name: str,
    known: Iterable[str],
    hints: Mapping[str, str],
    otherwise: str = "",
) -> TypeError:
    """The error of a keyword that `called` does not take; arguments as `keywords` has them."""
    import difflib  # noqa: PLC0415 - only who misspells pays for it

    said = [hints[name]] if name in hints else []
    if not said:
        close = difflib.get_close_matches(name[:60], known, 1, 0.85)
        said = [f"did you mean {word!r}?" for word in close]
        said += [otherwise.format(name=name)] if otherwise else []
    return TypeError(": ".join([f"{called}() takes no {name!r}", " ".join(said)]).rstrip(": "))


def is_whole(value: object) -> bool:
    """True for a whole number; a bool is none."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    """True for a finite number that a float can hold; a bool is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an int of hundreds of digits
        return False


def parse_time(text: str) -> Optional[float]:
    """The seconds that a text gives: "600", "1.5", "90s", "10m", "2h"; None if it gives none."""
    found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?|\.\d{1,9})([smh]?)", text, re.ASCII)
    return float(found[1]) * {"m": 60, "h": 3600}.get(found[2], 1) if found else None


def whole(
    name: str,
    value: Any,
    least: int = 0,
    most: Optional[int] = None,
    *,
    optional: bool = False,
    of: str = "",
) -> Any:
    """A whole number from `least` to `most`.

    Raises:
        ConfigError: it is none.
    """
    return _in_range(name, value, _WHOLE, (least, most), optional=optional, of=of)


def number(
    name: str,
    value: Any,
    least: Optional[float] = None,
    most: Optional[float] = None,
    *,
    optional: bool = False,
    of: str = "",
) -> Any:
    """A finite number from `least` to `most`.

    Raises:
        ConfigError: it is none.
    """
    return _in_range(name, value, _NUMBER, (least, most), optional=optional, of=of)


def seconds(
    name: str, value: Any, *, optional: bool = False, zero: bool = False, of: str = ""
) -> Any:
    """A finite time in seconds, above zero (`zero`: or zero itself), at most `LONGEST_S`.

    A time beyond `LONGEST_S` comes back as that.

    Raises:
        ConfigError: it is none.
    """
    if value is None and optional:
        return None
    usable = is_whole(value) or (isinstance(value, float) and math.isfinite(value))
    if not usable or value < 0 or (value == 0 and not zero):
        said = "0 or more seconds" if zero else "a positive number of seconds"
        raise ConfigError.about(name, f"must be {said}, not {_shown(value)}", of)
    return min(value, LONGEST_S)


def text(name: str, value: Any, *, empty: bool = False, of: str = "") -> str:
    """A str, not an empty one unless `empty`; of a class derived from str, the text it holds.

    Raises:
        ConfigError: it is none.
    """
    if not isinstance(value, str):
        raise ConfigError.about(name, f"must be a str, not {type(value).__name__}", of)
    plain = str.__str__(value)  # whatever methods its class has
    if not plain and not empty:
        raise ConfigError.about(name, "must not be empty", of)
    return plain


def flag(name: str, value: Any, *, of: str = "") -> bool:
    """True or False.

    Raises:
        ConfigError: it is neither.
    """
    if not isinstance(value, bool):
        raise ConfigError.about(name, f"must be True or False, not {_shown(value)}", of)
    return value


def one_of(name: str, value: Any, choices: Iterable[Any], *, of: str = "") -> Any:
    """One of `choices`.

    Raises:
        ConfigError: it is none of them.
    """
    known = list(choices)
    if value not in known:
        shown = repr(value[:60]) if isinstance(value, str) else _shown(value)
        reason = f"must be one of {', '.join(map(str, known))}, not {shown}"
        raise ConfigError.about(name, reason, of)
    return value


def instance(
    name: str,
    value: Any,
    kind: type,
    *,
    optional: bool = False,
    of: str = "",
    example: str = "",
) -> Any:
    """An instance of `kind`; `example`, what to write, is said last.

    Raises:
        ConfigError: it is none.
    """
    if value is None and optional:
        return None
    if not isinstance(value, kind):
        given = f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__
        kind_name = (
            getattr(kind, "__name__", "") or str(kind).rpartition(".")[2]
        )  # typing's, on 3.9
        article = "an" if kind_name[:1] in "AEIOU" else "a"
        reason = f"must be {article} {kind_name}, not {given}{example and ': '}{example}"
        raise ConfigError.about(name, reason, of)
    return value


def function(name: str, value: Any, *, optional: bool = False, of: str = "") -> Any:
    """What can be called.

    Raises:
        ConfigError: it cannot.
    """
    if value is None and optional:
        return None
    if not callable(value):
        raise ConfigError.about(name, f"must be callable, not {type(value).__name__}", of)
    return value


def fields(name: str, value: Optional[Mapping[str, Any]], *, of: str = "") -> Dict[str, Any]:
    """A dict of `value`, which may be None for an empty one.

    Raises:
        ConfigError: it is no mapping.
    """
    if not isinstance(value, (Mapping, type(None))):
        raise ConfigError.about(name, f"must be a dict, not {type(value).__name__}", of)
    return dict(value or {})


#: A kind of number: what tells it, and what it is called.
_Kind = Tuple[Callable[[object], bool], str]
_WHOLE: _Kind = (is_whole, "a whole number")
_NUMBER: _Kind = (is_number, "a number")


def _in_range(
    name: str,
    value: Any,
    kind: _Kind,
    bounds: Tuple[Optional[float], Optional[float]],
    *,
    optional: bool,
    of: str,
) -> Any:
    """`value`, if it is of that kind and within the bounds, of which None is none."""
    if value is None and optional:
        return None
    is_kind, called = kind
    if not is_kind(value):
        raise ConfigError.about(name, f"must be {called}, not {_shown(value)}", of)
    least, most = bounds
    low = least is not None and value < least
    if not low and (most is None or value <= most):
        return value
    if most is None:
        said = f"{least} or more"
    elif least is None:
        said = f"{most} or less"
    else:
        said = f"from {least} to {most}"
    raise ConfigError.about(name, f"must be {said}, not {_shown(value)}", of)


def _shown(value: object) -> str:
    """A value as a message may show it: numbers as they are, of others only the type."""
    if value is None or isinstance(value, (bool, float)):
        return repr(value)
    if isinstance(value, int):
        return repr(value) if abs(value) < 10**18 else "one of so many digits"
    return f"a {type(value).__name__}"
