"""Calls of one tool as text: whatever the pieces, and beside other calls."""

from __future__ import annotations

from typing import Any, List

from hypothesis import given, strategies as st

from agentstream.llm.accumulator import Accumulator
from agentstream.llm.messages import Delta, ToolCallDelta
from agentstream.llm.output.dialect import ToolAnswer
from tests.kit.profiles import SUITE


def read(deltas: List[Delta]) -> Any:
    """The response that the deltas add up to, the calls of "answer" taken for text."""
    answer, sum_ = ToolAnswer("answer"), Accumulator("m")
    for delta in deltas:
        sum_.add(answer.read(delta))
    last = answer.flush(None)
    if last is not None:
        sum_.add(last)
    return sum_.response()


@SUITE
@given(st.lists(st.sampled_from(["answer", "look", "find"]), max_size=4), st.data())
def test_calls_in_any_pieces(names, data):
    pieces: List[List[Delta]] = []
    for place, name in enumerate(names):
        cut = data.draw(st.integers(1, 6))
        text = f'{{"n": {place}}}'
        parts = [ToolCallDelta(place, f"id{place}", name[: data.draw(st.integers(0, 6))] or "")]
        parts.append(ToolCallDelta(place, name=name))
        parts += [
            ToolCallDelta(place, arguments=text[:cut]),
            ToolCallDelta(place, "", "", text[cut:]),
        ]
        pieces.append([Delta(tool_calls=(part,)) for part in parts])
    response = read([delta for group in pieces for delta in group])
    others = [(at, name) for at, name in enumerate(names) if name != "answer"]
    texts = "".join(f'{{"n": {at}}}' for at, name in enumerate(names) if name == "answer")
    assert response.content == texts
    assert [(call.id, call.name, call.arguments) for call in response.tool_calls] == [
        (f"id{at}", name, f'{{"n": {at}}}') for at, name in others
    ]


def test_the_end_is_that_of_an_answer_if_nothing_else_is_called():
    call = Delta(tool_calls=(ToolCallDelta(0, "i", "answer", "{}"),), provider_state={"a": 1})
    end = Delta(finish_reason="tool_calls")
    response = read([call, end])
    assert (response.content, response.finish_reason) == ("{}", "stop")
    assert response.provider_state is None  # it holds a call that gets no result
    other = Delta(tool_calls=(ToolCallDelta(1, "j", "look", "{}"),))
    assert read([call, other, end]).finish_reason == "tool_calls"
    assert read([end]).finish_reason == "tool_calls"


def test_arguments_that_are_sent_anew_go_on_or_follow():
    def call(text: str, *, replaces: bool = False) -> Delta:
        piece = ToolCallDelta(0, "", "answer", text, replaces=replaces)
        return Delta(tool_calls=(piece,))

    assert read([call('{"a"'), call('{"a": 1}', replaces=True)]).content == '{"a": 1}'
    assert read([call("{}"), call('{"a": 1}', replaces=True)]).content == '{}\n{"a": 1}'


def test_other_deltas_pass_as_they_are():
    delta = Delta("text", "thought")
    assert ToolAnswer("answer").read(delta) is delta
