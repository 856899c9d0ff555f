"""Values as JSON and back: what `plain` writes, the type's schema takes."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import json
import pathlib
import uuid
from typing import Any, Dict, List, NamedTuple, Optional, Set, Tuple

import pytest

from agentstream import Output
from agentstream.schema.plain import plain


class Level(enum.IntEnum):
    HIGH = 2


class Kind(enum.Enum):
    A = "a"


class Point(NamedTuple):
    x: int
    y: Optional[Kind] = None


@dataclasses.dataclass
class Nest:
    points: List[Point]
    by_name: Dict[str, Point]
    day: datetime.date
    pair: Tuple[int, str]


NEST = Nest([Point(1, Kind.A)], {"a": Point(2)}, datetime.date(2026, 11, 27), (1, "b"))


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (Nest, NEST),
        (List[Nest], [NEST, NEST]),
        (Level, Level.HIGH),
        (Set[int], {1, 2}),
        (datetime.datetime, datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.timezone.utc)),
        (datetime.time, datetime.time(3, 4)),
        (datetime.timedelta, datetime.timedelta(days=2, seconds=5)),
        (decimal.Decimal, decimal.Decimal("1.10")),
        (uuid.UUID, uuid.UUID(int=7)),
        (pathlib.Path, pathlib.Path("a/b")),
        (Optional[float], None),
    ],
)
def test_there_and_back(kind: Any, value: Any):
    text = json.dumps(plain(value), allow_nan=False)
    assert (
        Output(kind)
        .read(json.dumps({"value": json.loads(text)}) if Output(kind).wrapped else text)
        .value
        == value
    )


def test_models_and_what_has_no_form():
    pydantic = pytest.importorskip("pydantic")
    model = pydantic.create_model("Trip", day=(datetime.date, ...), at=(Point, ...))
    trip = model(day="2026-11-27", at=Point(1))
    assert plain([trip]) == [{"day": "2026-11-27", "at": [1, None]}]
    odd = object()
    assert plain({1: [odd, b"ab"]}) == {"1": [odd, "YWI="]}
