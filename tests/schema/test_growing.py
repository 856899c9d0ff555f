"""Values that grow while their JSON arrives: any value, cut anywhere; and what it costs."""

from __future__ import annotations

import json
import time
from types import SimpleNamespace
from typing import Any, Dict, List, Optional

import pytest
from hypothesis import given, strategies as st

from agentstream.llm.output.judge import growing
from agentstream.schema.growing import NOTHING, GrowingValue
from agentstream.schema.known import known_of
from agentstream.schema.output import Output
from agentstream.schema.problems import Invalid
from tests.kit.profiles import SUITE
from tests.kit.schemas import cuts, is_part, pairs, written

PLACES = st.lists(st.integers(0, 10_000), max_size=30)


def grown(value: GrowingValue, pieces: List[str]) -> List[Any]:
    """All values of a text."""
    return [value.value() for piece in pieces if value.feed(piece)]


def kept(values: List[Any]) -> List[Any]:
    """The values as they were when they came, for a look at whether they have changed since."""
    return [json.loads(json.dumps(value)) for value in values]


@SUITE
@given(pairs, PLACES, st.booleans(), st.booleans(), st.sampled_from(["", "So: ", "```json\n"]))
def test_any_value_cut_anywhere_is_right_and_each_part_a_beginning(pair, places, a, b, before):
    schema, value = pair
    output = Output(schema)
    wire = {"value": value} if output.wrapped else value
    text = before + written(wire, a, b) + ("\n```" if "`" in before else "")
    assert output.read(text).value == value
    growth = output.growing()
    found: List[Any] = []
    copies: List[Any] = []
    for piece in cuts(text, places):
        if growth.feed(piece):
            found.append(growth.value())
            copies += kept(found[-1:])
    assert found == copies  # no later one changed an earlier one
    for earlier, later in zip(found, found[1:]):
        assert is_part(earlier, later)
    assert all(is_part(part, value) for part in found)
    assert found[-1] == value


@SUITE
@given(pairs, st.integers(0, 10_000))
def test_two_pieces_show_what_one_character_at_a_time_shows(pair, place):
    output = Output(pair[0])
    text = written({"value": pair[1]} if output.wrapped else pair[1], True, False)
    head = text[: place % (len(text) + 1)]
    single, whole = output.growing(), output.growing()
    grown(single, list(head))
    grown(whole, [head])
    same = single.value() is whole.value() is NOTHING or single.value() == whole.value()
    assert same, head


JSONISH = st.lists(
    st.sampled_from(
        ['{"value": ', "{", "}", "[", "]", '"', ":", ",", "1", "-", "e5", "true", "nul", "null"]
        + ["\\", "\\ud83d", "\\u00e9", "x", " ", "\n", "```", "<think>", "NaN", '"a": ', "\ud800"]
    ),
    max_size=25,
)


@SUITE
@given(JSONISH, st.sampled_from([int, str, List[int], Dict[str, Any], Any, Optional[List[str]]]))
def test_no_text_breaks_it(parts, kind):
    output = Output(kind)
    text = "".join(parts)
    growth = output.growing()
    shown = [growth.value() for part in parts if growth.feed(part)]
    assert all(value is not NOTHING for value in shown)
    try:
        value = output.read(text).plain
    except Invalid as wrong:
        assert wrong.problems
    else:
        assert json.loads(json.dumps(value)) == value


def test_fields_are_there_once_begun_texts_grow_and_numbers_are_whole():
    pieces = ['{"na', 'me"', ":", ' "A', "d", 'a", "age": 3', "6", ', "ok": tr', "ue}"]
    assert grown(GrowingValue(), pieces) == [
        {"name": "A"},
        {"name": "Ad"},
        {"name": "Ada"},
        {"name": "Ada", "age": 36},
        {"name": "Ada", "age": 36, "ok": True},
    ]


def test_unknown_keys_are_dropped_with_all_that_is_in_them():
    schema = {
        "type": "object",
        "properties": {
            "a": {"type": "array", "items": {"type": "object", "properties": {"b": {}}}}
        },
        "additionalProperties": False,
    }
    text = '{"x": {"a": ["no"]}, "a": [{"b": 1, "y": [2]}, {"z": "t"}], "w": "u"}'
    for size in (1, 5, len(text)):
        pieces = [text[at : at + size] for at in range(0, len(text), size)]
        found = grown(GrowingValue(known_of(schema, closed=True)), pieces)
        assert found[-1] == {"a": [{"b": 1}, {}]}
        assert all(set(value) <= {"a"} for value in found)
    assert grown(GrowingValue(known_of(schema, closed=False)), [text])[-1]["a"][0] == {
        "b": 1,
        "y": [2],
    }


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("no JSON at all", []),
        ("use {braces} as in {x: 1}, so: {", []),
        ("so {x: 1} is {}", [{}]),
        ('{"a": tru', []),
        ('{"a": "b", "c": wrong, "d": 1}', [{"a": ""}, {"a": "b"}]),
        ('{"a": 1} {"b": 2}', [{"a": 1}]),
        ('{"a": NaN}', []),
        ('{"a": "\\ud83d\\ude00\\ud83d"}', [{"a": ""}, {"a": "😀"}, {"a": "😀�"}]),
        ('{"a": 1' + "0" * 5000, []),
        ('{"' + "k" * 5000, []),
        ("[1, 2]", []),
    ],
)
def test_what_is_no_json_stops_growing(text, values):
    assert grown(GrowingValue(), list(text)) == values


def test_a_wrapped_value_may_come_bare_if_it_can_begin_so():
    lists: Dict[str, Any] = {"type": "array", "items": {"type": "integer"}}
    assert grown(Output(lists).growing(), ["[1, 2]"]) == [[1, 2]]
    assert grown(Output(lists).growing(), ['{"value": [1, 2]}']) == [[1, 2]]
    words = Output({"enum": ["a", "b"]})
    assert grown(words.growing(), ['As [1] says: {"value": "a"}']) == ["a"]
    either = Output({"anyOf": [{"type": "null"}, {"type": "object", "properties": {"x": {}}}]})
    assert grown(either.growing(), ['{"x": 1}']) == [{"x": 1}]


@pytest.mark.parametrize(
    "text",
    [
        '{"a":' * 100_000 + "1" + "}" * 100_000,
        "[" * 500_000 + "]",
        "{" * 300_000 + " ]",
        '{"a": "' + "\\" * 500_001,
        "```" + " " * 500_000 + "x",
        "{x " * 200_000,
    ],
)
def test_hostile_texts_cost_what_their_length_says(text):
    for kind in (Any, List[int], {"type": "object"}):
        began = time.process_time()
        Output(kind).growing().feed(text)
        with pytest.raises(Invalid):
            Output(kind).read(text)
        assert time.process_time() - began < 5


@pytest.mark.parametrize("shape", ["text", "numbers", "records", "keys"])
def test_long_answers_cost_what_their_length_says(shape):
    def work(size: int) -> int:
        """Characters and members that are copied: what would grow with the square."""
        value: Any = {
            "text": {"s": "x" * size},
            "numbers": {"n": list(range(size // 8))},
            "records": {"r": [{"id": at, "tag": "abc"} for at in range(size // 30)]},
            "keys": {f"key{at}": at for at in range(size // 20)},
        }[shape]
        text = json.dumps(value)
        pieces = (text[at : at + 4] for at in range(0, len(text), 4))
        copied = 0
        for last in growing(Output({"type": "object"}), pieces, SimpleNamespace(begun=1)):
            copied += len(last)
            copied += sum(len(part) for part in last.values() if hasattr(part, "__len__"))
        assert is_part(last, value)
        return copied

    small, large = work(2**14), work(2**18)
    assert large <= 20 * max(small, 2**20)
