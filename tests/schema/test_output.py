"""What an answer is to be, and texts as that: mended, where it can only be meant one way."""

from __future__ import annotations

import dataclasses
import enum
from typing import Any, Dict, List, Literal, Optional, Union

import pytest

from agentstream import ConfigError, Output
from agentstream.schema.growing import NOTHING
from agentstream.schema.output import as_output, said
from agentstream.schema.problems import Invalid, Problem


class Color(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Item:
    name: str
    price: float = 0.0


def problems(kind: Any, text: str, *, cut: bool = False) -> List[str]:
    with pytest.raises(Invalid) as caught:
        Output(kind).read(text, cut=cut)
    return said(caught.value.problems)


@pytest.mark.parametrize(
    ("kind", "name", "wrapped"),
    [
        (Item, "Item", False),
        (List[Item], "list_of_Item", True),
        (Optional[Item], "Item_or_None", True),
        (Literal["a"], "Literal", True),
        (Dict[str, int], "dict_of_str_and_int", False),
        ({"title": "My type", "type": "object"}, "My_type", False),
        ({"properties": {"a": {}}}, "answer", False),
        ({"type": "string"}, "answer", True),
        (Union[int, str], "int_or_str", True),
    ],
)
def test_what_is_no_object_stands_in_one(kind: Any, name: str, wrapped: bool):
    output = Output(kind)
    assert (output.name.lower(), output.wrapped) == (name.lower(), wrapped)
    assert output.schema["type"] == "object"
    assert (list(output.schema.get("properties", {})) == ["value"]) is wrapped
    assert as_output(output) is output and as_output(kind) == output
    assert hash(as_output(kind)) == hash(output)
    assert Output(kind, retries=3) != output != kind


def test_references_follow_a_wrapped_schema():
    node = {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/node"}]}
    schema = {"type": "array", "items": node, "$defs": {"node": {"type": "integer"}}}
    output = Output(schema)
    moved = output.schema["properties"]["value"]["items"]["anyOf"][1]
    assert moved == {"$ref": "#/properties/value/$defs/node"}
    assert output.read('{"value": [null, 1]}').value == [None, 1]
    tree = {"type": "array", "items": {"$ref": "#"}}
    assert Output(tree).read('{"value": [[], [[]]]}').value == [[], [[]]]


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "nut"}',
        ' \n{"name": "nut"}\n',
        '```json\n{"name": "nut"}\n```',
        '```\n{"name": "nut"}\n```',
        'Sure!\n```json\n{"name": "nut"}\n```\nAnything else?',
        'Here [1] it is, {you see}: {"name": "nut"}.',
        '<think>A bolt, {"name": "bolt"}? No.</think>\n{"name": "nut"}',
        '{"name": "nut"} {"name": "nut"}',
        '"{\\"name\\": \\"nut\\"}"',
    ],
)
def test_words_around_the_json_are_passed_over(text: str):
    assert Output(Item).read(text).value == Item("nut")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("no", "the answer holds no JSON"),
        ("", "the answer holds no JSON"),
        ('{"name": "nut"} or {"name": "bolt"}', "the answer holds several values; give one"),
        ('{"name": "nut", "price": {"name": "inner"}', "cannot be read: this is not JSON"),
        ('{"a": {"name": "inner"},}', "cannot be read: this is not JSON"),
        ('{"name": "a", "name": "b"}', 'cannot be read: the key "name" is given twice'),
        ("[" * 200, "cannot be read"),
        ("null", "the answer must be an object, not null"),
        ('[{"name": "nut"}]', "must be an object, not an array of 1 item(s)"),
        ("{" * 500, "the answer holds no JSON"),
    ],
)
def test_nothing_is_invented(text: str, problem: str):
    (found,) = problems(Item, text)
    assert problem in found


def test_of_a_cut_answer_only_what_is_closed_counts():
    assert Output(int).read('{"value": 12}', cut=True).value == 12
    assert problems(int, "12", cut=True) == ["the answer holds no JSON"]
    assert problems(Color, "red", cut=True) == ["the answer holds no JSON"]
    assert Output(Color).read("red").value is Color.RED
    assert problems(Item, '{"name": "nu', cut=True)


def test_all_problems_are_told_with_their_places():
    text = '{"value": [{"price": "x"}, {"name": "a", "price": []}, 3]}'
    with pytest.raises(Invalid) as caught:
        Output(List[Item]).read(text)
    assert [problem.path for problem in caught.value.problems] == [
        (0, "name"),
        (0, "price"),
        (1, "price"),
        (2,),
    ]
    told = Output(List[Item]).correction(caught.value)
    assert "- value[0].name is missing\n" in told and "- value[2] must be an object" in told
    assert "JSON schema" not in told
    wrong = Invalid.because("holds no JSON")
    wrong.value = NOTHING
    assert "JSON schema" in Output(List[Item]).correction(wrong)
    many = tuple(Problem((at,), "is wrong") for at in range(30))
    assert said(many)[-1] == "and 20 more problems" and len(said(many)) == 11


def test_what_the_type_itself_refuses_is_a_problem():
    @dataclasses.dataclass
    class Even:
        n: int

        def __post_init__(self) -> None:
            if self.n % 2:
                raise ValueError("odd")

    assert problems(Even, '{"n": 1}') == ["the answer is refused: odd"]
    assert problems(List[Even], '[{"n": 2}, {"n": 1}]') == ["[1] is refused: odd"]


def test_a_schema_that_is_none_is_refused():
    for schema in ({"$ref": "#/x"}, {"items": {"$ref": "elsewhere"}}, {"a": object()}):
        with pytest.raises(ConfigError, match="output"):
            Output(schema)
