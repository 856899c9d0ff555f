"""Values that JSON holds as a text or a number: times, durations, UUIDs, exact decimals (pure).

Each function makes the Python value of a JSON value, or raises Invalid with words that
a model can act on.
"""

from __future__ import annotations

import datetime
import decimal
import pathlib
import re
import uuid
from typing import Any, Union

from agentstream.schema.problems import Invalid

__all__ = ["WRITTEN", "clock_time", "day", "duration", "exact", "identifier", "moment", "real"]

#: Types whose values JSON holds as a text.
WRITTEN = (
    datetime.date,
    datetime.time,
    datetime.timedelta,
    decimal.Decimal,
    uuid.UUID,
    pathlib.PurePath,
)

#: Three ways to write a duration: ISO 8601 (PT1H30M), seconds (90), Python's (1 day, 1:30:00).
_DURATION = re.compile(
    r"(?P<sign>[+-]?)P(?:(?P<weeks>\d+)W)?(?:(?P<days>\d+)D)?"
    r"(?:T(?:(?P<hours>\d+)H)?(?:(?P<minutes>\d+)M)?(?:(?P<seconds>\d+(?:\.\d+)?)S)?)?"
    r"|(?P<seconds_>[+-]?\d+(?:\.\d+)?)"
    r"|(?:(?P<days__>-?\d+) days?, )?"
    r"(?P<hours__>\d+):(?P<minutes__>\d\d):(?P<seconds__>\d\d(?:\.\d+)?)"
)
#: The largest power of ten of an exact number: what is beyond costs memory to write out.
_MOST_DIGITS = 1000


def real(value: Any) -> float:
    """A float."""
    try:
        return float(value)
    except OverflowError:
        raise Invalid.because("must be a smaller number") from None


def moment(value: str) -> datetime.datetime:
    """A date and time, of RFC 3339."""
    try:  # before 3.11 its Z is not understood
        return datetime.datetime.fromisoformat(re.sub("[Zz]$", "+00:00", value))
    except ValueError:
        raise Invalid.because("must be a date and time like 2025-01-31T09:30:00+00:00") from None


def day(value: str) -> datetime.date:
    """A date, of RFC 3339."""
    try:
        return datetime.date.fromisoformat(value)
    except ValueError:
        raise Invalid.because("must be a date like 2025-01-31") from None


def clock_time(value: str) -> datetime.time:
    """A time of day, of RFC 3339."""
    try:
        return datetime.time.fromisoformat(re.sub("[Zz]$", "+00:00", value))
    except ValueError:
        raise Invalid.because("must be a time like 09:30:00") from None


def duration(value: str) -> datetime.timedelta:
    """A duration: of ISO 8601 without months and years, seconds, or as Python writes it."""
    found = _DURATION.fullmatch(value.strip())
    parts = found.groupdict() if found else {}
    sign = parts.pop("sign", None)
    amounts = {unit.rstrip("_"): float(part) for unit, part in parts.items() if part}
    if not amounts:
        raise Invalid.because("must be a duration like PT1H30M, or a number of seconds")
    try:
        length = datetime.timedelta(**amounts)
    except OverflowError:
        raise Invalid.because("must be a shorter duration") from None
    return -length if sign == "-" else length


def identifier(value: str) -> uuid.UUID:
    """A UUID, of RFC 9562."""
    try:
        return uuid.UUID(value)
    except ValueError:
        raise Invalid.because("must be a UUID like 12345678-1234-5678-1234-567812345678") from None


def exact(value: Union[str, float]) -> decimal.Decimal:
    """A finite Decimal, of a number or of a text."""
    try:
        number = decimal.Decimal(str(value).strip())
    except decimal.InvalidOperation:
        number = decimal.Decimal("NaN")
    if not number.is_finite() or abs(number.adjusted()) > _MOST_DIGITS:
        raise Invalid.because('must be a decimal number like "12.50"')
    return number
