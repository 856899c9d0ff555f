"""Types that JSON has no word for: how each is described, read and refused."""

from __future__ import annotations

import datetime
import decimal
import json
import pathlib
import uuid
from typing import Any, List, NamedTuple, Optional

import pytest

from agentstream.errors import ToolError
from agentstream.tools import tool


class Place(NamedTuple):
    """A place.

    Args:
        lat: degrees north.
    """

    lat: float
    lon: float = 0.5


UUID_TEXT = "12345678-1234-5678-1234-567812345678"

SCALARS = [
    (uuid.UUID, UUID_TEXT, uuid.UUID(UUID_TEXT)),
    (decimal.Decimal, "1.50", decimal.Decimal("1.50")),
    (decimal.Decimal, 0.1, decimal.Decimal("0.1")),
    (decimal.Decimal, 3, decimal.Decimal(3)),
    (pathlib.Path, "a/b.txt", pathlib.Path("a/b.txt")),
    (datetime.time, "09:30:00", datetime.time(9, 30)),
    (datetime.time, "09:30:00Z", datetime.time(9, 30, tzinfo=datetime.timezone.utc)),
    (datetime.timedelta, "PT1H30M", datetime.timedelta(minutes=90)),
    (datetime.timedelta, "P1DT0.5S", datetime.timedelta(days=1, seconds=0.5)),
    (datetime.timedelta, "-P1W", datetime.timedelta(weeks=-1)),
    (datetime.timedelta, "90", datetime.timedelta(seconds=90)),
    (datetime.timedelta, "1 day, 2:03:04", datetime.timedelta(1, 7384)),
    (Place, {"lat": 1}, Place(1.0, 0.5)),
    (Place, {"lat": 1, "lon": 2}, Place(1.0, 2.0)),
    (List[uuid.UUID], [UUID_TEXT], [uuid.UUID(UUID_TEXT)]),
    (Optional[pathlib.Path], None, None),
]


@pytest.mark.parametrize(("annotation", "sent", "value"), SCALARS, ids=str)
def test_t09_types_that_json_has_no_word_for(annotation, sent, value):
    made = tool(_taking(annotation))
    assert made.bind(json.dumps({"x": sent})) == {"x": value}
    assert type(made.bind(json.dumps({"x": sent}))["x"]) is type(value)


@pytest.mark.parametrize(
    ("annotation", "sent"),
    [
        (uuid.UUID, "no"),
        (decimal.Decimal, "NaN"),
        (decimal.Decimal, "1e999999999"),
        (decimal.Decimal, "much"),
        (datetime.time, "noon"),
        (datetime.timedelta, "P"),
        (datetime.timedelta, "P1M"),
        (datetime.timedelta, "soon"),
        (datetime.timedelta, "9" * 30),
        (Place, {"lon": 1}),
        (Place, {"lat": 1, "alt": 2}),
        (Place, [1, 2]),
        (pathlib.Path, 5),
    ],
    ids=str,
)
def test_t09_what_fits_none_of_them_is_told_to_the_model(annotation, sent):
    with pytest.raises(ToolError, match='argument "x'):
        tool(_taking(annotation)).bind(json.dumps({"x": sent}))


def _taking(annotation: Any) -> Any:
    def work(x: Any) -> Any:
        return x

    work.__annotations__["x"] = annotation
    return work


def test_t09_such_types_are_described():
    def work(
        id: uuid.UUID,
        price: decimal.Decimal,
        path: pathlib.Path,
        at: datetime.time,
        wait: datetime.timedelta = datetime.timedelta(seconds=5),
        place: Optional[Place] = None,
    ) -> None: ...

    properties = tool(work).parameters["properties"]
    formats = {name: schema.get("format") for name, schema in properties.items()}
    assert formats == {
        "id": "uuid",
        "price": None,
        "path": "path",
        "at": "time",
        "wait": "duration",
        "place": None,
    }
    assert properties["wait"]["default"] == "0:00:05"
    assert tool(work).parameters["required"] == ["id", "price", "path", "at"]
    place = properties["place"]["anyOf"][0]
    assert place["properties"]["lat"] == {"type": "number", "description": "degrees north."}
    assert place["required"] == ["lat"]
