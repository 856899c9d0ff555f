"""pydantic's models and others that validate themselves, known by their methods."""

from __future__ import annotations

import dataclasses
import datetime
import json
from typing import Annotated, List, Optional

import pytest

from agentstream.errors import ConfigError, ToolError
from agentstream.tools import to_text
from tests.kit.tool_support import INTEGER, bound, made

# -- pydantic --------------------------------------------------------------------------------


def test_a_pydantic_model_is_made_and_its_refusals_are_placed():
    pydantic = pytest.importorskip("pydantic")

    class Trip(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(strict=True)
        city: str
        day: datetime.date
        people: int = pydantic.Field(default=1, ge=1)

        @pydantic.field_validator("city")
        @classmethod
        def known(cls, value):
            if value != "Rome":
                raise ValueError("only Rome")
            return value

    trip = bound(Trip, '{"city": "Rome", "day": "2025-01-31", "people": "2"}')
    trips = pydantic.create_model("Trips", trips=(List[Trip], ...))
    with pytest.raises(ToolError, match=r'"x\.trips\[0\]\.city" is refused'):
        bound(trips, '{"trips": [{"city": "Oslo", "day": "2025-01-31"}]}')
    assert trip == Trip(city="Rome", day=datetime.date(2025, 1, 31), people=2)
    assert bound(List[Trip], '[{"city": "Rome", "day": "2025-01-31"}]')[0].people == 1
    with pytest.raises(ToolError, match=r'"x\.city" is refused: .*only Rome') as caught:
        bound(Trip, '{"city": "Oslo", "day": "2025-01-31"}')
    assert isinstance(caught.value.__cause__, pydantic.ValidationError)
    with pytest.raises(ToolError, match=r'"x\[0\]\.people" must be at least 1'):
        bound(List[Trip], '[{"city": "Rome", "day": "2025-01-31", "people": 0}]')
    assert to_text(trip) == '{"city": "Rome", "day": "2025-01-31", "people": 2}'
    assert to_text([trip]) == f"[{to_text(trip)}]"


class Mute(Exception):
    def __str__(self):
        raise RuntimeError("no")


@dataclasses.dataclass
class Fragile:
    n: int

    def __post_init__(self):
        raise (Mute() if self.n else ValueError())


def test_an_exception_of_the_callers_type_is_told_even_if_it_cannot_speak():
    with pytest.raises(ToolError, match=r'"x" is refused: Mute\.') as caught:
        bound(Fragile, '{"n": 1}')
    assert isinstance(caught.value.__cause__, Mute)
    with pytest.raises(ToolError, match=r'"x" is refused: ValueError\.'):
        bound(Fragile, '{"n": 0}')


def test_a_model_that_raises_anything_is_a_toolerror():
    class Model:
        @classmethod
        def model_json_schema(cls):
            return {"type": "object", "properties": {"any": True}}

        @classmethod
        def model_validate(cls, value):
            raise KeyError("secret place")

    with pytest.raises(ToolError, match='"x" is refused'):
        bound(Model, '{"any": 1}')


def test_pydantic_models_bring_their_own_schema():
    pydantic = pytest.importorskip("pydantic")

    class Inner(pydantic.BaseModel):
        n: int = pydantic.Field(ge=1, description="how many")

    class Outer(pydantic.BaseModel):
        inner: Inner
        others: List[Inner] = []

    schema = made(Outer).parameters["properties"]["x"]
    inner = schema["properties"]["inner"]
    assert "$ref" not in json.dumps(schema)
    assert "$defs" not in schema
    assert inner["properties"]["n"]["minimum"] == 1
    assert inner["properties"]["n"]["description"] == "how many"
    assert schema["properties"]["others"]["items"] == inner
    described = made(Annotated[int, pydantic.Field(ge=1, description="how many")])
    assert described.parameters["properties"]["x"] == {
        "type": "integer",
        "minimum": 1,
        "description": "how many",
    }


def test_a_recursive_pydantic_model_is_refused():
    pydantic = pytest.importorskip("pydantic")
    tree = pydantic.create_model("Tree", n=(int, ...))
    tree = pydantic.create_model("Tree", __base__=tree, child=(Optional["Tree"], None))  # noqa: F821
    tree.model_rebuild(_types_namespace={"Tree": tree})
    with pytest.raises(ConfigError, match="'probe', parameter 'x': Tree refers to itself"):
        made(tree)


def test_a_model_is_known_by_its_methods_alone():
    class Model:
        @classmethod
        def model_json_schema(cls):
            return {
                "type": "object",
                "properties": {"n": {"$ref": "#/$defs/N"}},
                "$defs": {"N": {"type": "integer"}},
            }

        @classmethod
        def model_validate(cls, value):
            return cls, value

    probe = made(Model)
    assert probe.parameters["properties"]["x"]["properties"] == {"n": INTEGER}
    assert probe.bind('{"x": {"n": 1}}') == {"x": (Model, {"n": 1})}

    class Broken(Model):
        @classmethod
        def model_json_schema(cls):
            raise RuntimeError("no schema")

    with pytest.raises(ConfigError, match="Broken cannot be made: no schema"):
        made(Broken)
